"""User code that cancels every task or stops the event loop does not stop other work."""

import signal
from contextlib import asynccontextmanager

import pytest

from saga_engine.identifiers import uuid7
from tests.kit.command_line import exit_code_of, read_log_until, running_command, saga_engine
from tests.kit.hanging_code import publish_starts

pytestmark = pytest.mark.long

MISBEHAVIOUR_SOURCE = """
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

MISBEHAVIOURS = {each.__name__: each for each in (cancel_all, stop, stop_later, cancel_later,
    exit_later, stop_from_a_thread, close, sabotage)}
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
    MISBEHAVIOURS.get(given.mapping, str)()
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
    MISBEHAVIOURS.get(command["way"], str)()
    await asyncio.sleep(0)
"""
PREVENTED = ["cancel_all", "stop", "stop_later", "cancel_later"]
STOPPED = ["exit_later", "stop_from_a_thread"]
PROBLEMS = dict.fromkeys(PREVENTED, "") | {
    "exit_later": "SystemExit",
    "stop_from_a_thread": "The event loop was stopped",
}


def write_modules(path):
    (path / "sagas.py").write_text(MISBEHAVIOUR_SOURCE + SAGAS)
    (path / "services.py").write_text(MISBEHAVIOUR_SOURCE + SERVICES)
    return ("worker", "sagas", "--port", "0"), ("participant", "services", "--port", "0")


async def started(urls, *more, given):
    ran = await saga_engine("start", "shop", "--input", given, *more, **urls)
    assert ran.exit_code == 0, ran
    return ran.out.split()[0]


@asynccontextmanager
async def running_both(tmp_path, urls):
    """A worker and a participant with that code, ready."""
    worker_command, participant_command = write_modules(tmp_path)
    async with (
        running_command(
            *worker_command, cwd=tmp_path, **urls, log_throttle_interval="0.001"
        ) as worker,
        running_command(
            *participant_command, cwd=tmp_path, **urls, log_throttle_interval="0.001"
        ) as participant,
    ):
        await read_log_until(worker, "process.ready")
        await read_log_until(participant, "process.ready")
        yield worker, participant


@pytest.mark.parametrize("where", ["mapping", "handler"])
async def test_code_that_stops_the_loop_affects_neither_its_process_nor_other_runs(
    tmp_path, urls, where
):
    """One after another in one process, so that an earlier one must not affect a later one."""
    async with running_both(tmp_path, urls) as (worker, participant):
        process = worker if where == "mapping" else participant
        for way in (*PREVENTED, *STOPPED):
            run_id = str(uuid7())
            await publish_starts(urls, {run_id: {where: way}})
            known = way in PREVENTED
            named = (run_id, "do", "shop.do") if known else (None, None, None)
            line = await read_contained(process, named, PROBLEMS[way])
            assert line["problem"].endswith(
                "The loop goes on." if "cancel" not in way else "Nothing was cancelled."
            )
            await others_complete(urls)
        await publish_starts(urls, {str(uuid7()): {where: "close"}})
        await read_log_until(
            process, "user_code.failed" if where == "mapping" else "handler.failed"
        )
        await others_complete(urls)
        for each in (worker, participant):
            each.send_signal(signal.SIGTERM)
            assert await exit_code_of(each, 300) == 0


async def read_contained(process, named, words):
    """Read the log up to a `user_code.contained` for that run, step and command."""
    while True:
        line = await read_log_until(process, "user_code.contained")
        found = (line.get("run_id"), line.get("step"), line.get("command"))
        if found == named and words in line["problem"]:
            return line


async def others_complete(urls):
    ran = await saga_engine("start", "shop", "--input", "{}", "--wait", **urls)
    assert ran.exit_code == 0, ran


async def test_a_handler_that_cancels_every_task_fails_no_other_handler(tmp_path, urls):
    async with running_both(tmp_path, urls) as (_, participant):
        other, cancelling = str(uuid7()), str(uuid7())
        await publish_starts(urls, {other: {"handler": "meet"}})
        assert await participant.stdout.readline() == b"met\n"
        await publish_starts(urls, {cancelling: {"handler": "cancel_all"}})
        assert (await read_log_until(participant, "user_code.contained"))["run_id"] == cancelling
        participant.stdin.write(b"\n")
        assert (await saga_engine("wait", other, "--timeout", "60", **urls)).exit_code == 0


async def test_a_cancelled_process_names_the_reason_and_exits_9(tmp_path, urls):
    async with running_both(tmp_path, urls) as (_, participant):
        await publish_starts(urls, {str(uuid7()): {"handler": "sabotage"}})
        assert await exit_code_of(participant, 300) == 9
        written = (await participant.stderr.read()).decode()
        assert "cancelled the main task of the process" in written
