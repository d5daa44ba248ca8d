"""Code of users that cancels every task, or stops the event loop, stops nobody else's work."""

import signal
from contextlib import asynccontextmanager

import pytest

from saga_engine.identifiers import uuid7
from tests.cli.conftest import saga_engine
from tests.cli.test_services import ended, serving, told
from tests.cli.test_user_code import record


@pytest.fixture
def urls(migrated_url, rabbitmq_url):
    """What a process of the engine needs."""
    return {"database_url": migrated_url, "broker_url": rabbitmq_url}


WAYS = """
import asyncio, contextvars, sys, threading

def cancel_all():
    for task in asyncio.all_tasks():
        task.cancel()

def stop():
    asyncio.get_running_loop().stop()

def stop_later():
    asyncio.get_running_loop().call_soon(stop)

def cancel_later():
    asyncio.get_running_loop().call_soon(cancel_all)

def exit_later():
    asyncio.get_running_loop().call_soon(sys.exit)

def stop_from_a_thread():
    loop = asyncio.get_running_loop()
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
    thread.start()
    thread.join()

def close():
    asyncio.get_running_loop().close()

def sabotage():
    tasks = asyncio.all_tasks()
    contextvars.Context().run(lambda: [task.cancel() for task in tasks])

EVIL = {each.__name__: each for each in (cancel_all, stop, stop_later, cancel_later, exit_later,
    stop_from_a_thread, close, sabotage)}
"""
SAGAS = """
from pydantic import BaseModel
from saga_engine import Retry, Saga

class Given(BaseModel):
    mapping: str = ""
    handler: str = ""

shop = Saga("shop", version=1, input=Given)

@shop.step(command="shop.do", read_only=True, retry=Retry(attempts=1))
def do(given: Given) -> dict:
    EVIL.get(given.mapping, str)()
    return {"way": given.handler}
"""
SERVICES = """
from saga_engine import Participant

shop = Participant("shop")

@shop.command("shop.do")
async def do(command: dict) -> None:
    if command["way"] == "meet":
        print("met", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    EVIL.get(command["way"], str)()
    await asyncio.sleep(0)
"""
PREVENTED = ["cancel_all", "stop", "stop_later", "cancel_later"]
STOPPED = ["exit_later", "stop_from_a_thread"]
WORDS = dict.fromkeys(PREVENTED, "") | {
    "exit_later": "SystemExit",
    "stop_from_a_thread": "The event loop was stopped",
}


def wrote(path):
    (path / "sagas.py").write_text(WAYS + SAGAS)
    (path / "services.py").write_text(WAYS + SERVICES)
    return ("worker", "sagas", "--port", "0"), ("participant", "services", "--port", "0")


async def started(urls, *more, given):
    ran = await saga_engine("start", "shop", "--input", given, *more, **urls)
    assert ran.exit_code == 0, ran
    return ran.out.split()[0]


@asynccontextmanager
async def both(tmp_path, urls):
    """A worker and a participant of that code, ready."""
    one, other = wrote(tmp_path)
    async with (
        serving(*one, cwd=tmp_path, **urls, log_repeat="0.001") as worker,
        serving(*other, cwd=tmp_path, **urls, log_repeat="0.001") as participant,
    ):
        await told(worker, "process.ready")
        await told(participant, "process.ready")
        yield worker, participant


@pytest.mark.parametrize("where", ["mapping", "handler"])
async def test_code_that_turns_on_the_loop_stops_neither_its_process_nor_other_runs(
    tmp_path, urls, where
):
    """One after another in one process: what one has done harms no other either."""
    async with both(tmp_path, urls) as (worker, participant):
        process = worker if where == "mapping" else participant
        for way in (*PREVENTED, *STOPPED):
            run_id = str(uuid7())
            await record(urls, {run_id: {where: way}})
            known = way in PREVENTED
            named = (run_id, "do", "shop.do") if known else (None, None, None)
            line = await contained(process, named, WORDS[way])
            assert line["problem"].endswith(
                "The loop goes on." if "cancel" not in way else "Nothing was cancelled."
            )
            await others_complete(urls)
        await record(urls, {str(uuid7()): {where: "close"}})
        await told(process, "user_code.failed" if where == "mapping" else "handler.failed")
        await others_complete(urls)
        for each in (worker, participant):
            each.send_signal(signal.SIGTERM)
            assert await ended(each, 300) == 0


async def contained(process, named, words):
    """The line that tells what was contained, of that run, step and command, with those words."""
    while True:
        line = await told(process, "user_code.contained")
        found = (line.get("run_id"), line.get("step"), line.get("command"))
        if found == named and words in line["problem"]:
            return line


async def others_complete(urls):
    ran = await saga_engine("start", "shop", "--input", "{}", "--wait", **urls)
    assert ran.exit_code == 0, ran


async def test_a_handler_that_cancels_every_task_fails_no_handler_beside_it(tmp_path, urls):
    async with both(tmp_path, urls) as (_, participant):
        beside, evil = str(uuid7()), str(uuid7())
        await record(urls, {beside: {"handler": "meet"}})
        assert await participant.stdout.readline() == b"met\n"
        await record(urls, {evil: {"handler": "cancel_all"}})
        assert (await told(participant, "user_code.contained"))["run_id"] == evil
        participant.stdin.write(b"\n")
        assert (await saga_engine("wait", beside, "--timeout", "60", **urls)).exit_code == 0


async def test_a_process_that_is_cancelled_all_the_same_ends_with_a_line_and_code_9(tmp_path, urls):
    async with both(tmp_path, urls) as (_, participant):
        await record(urls, {str(uuid7()): {"handler": "sabotage"}})
        assert await ended(participant, 300) == 9
        written = (await participant.stderr.read()).decode()
        assert "cancelled the process" in written
