import asyncio
import json
import re
import signal
import sys
import urllib.request
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.cli.conftest import REPOSITORY, environment, saga_engine
from tests.kit.fork_server import COMMAND

SAGAS, SERVICES = "examples.place_order.sagas", "examples.place_order.services"
ORDER = {"order_id": "o-1", "sku": "A1", "quantity": 1, "amount": "9.90"}

STUBBORN = """
import asyncio
from saga_engine import Participant

slow = Participant("slow")

@slow.command("slow.do")
async def do(command: dict) -> None:
    print("begun", flush=True)
    await asyncio.sleep(60)
"""


def _hear_all_signals():
    """Have what is started hear SIGHUP, although the tests may run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@asynccontextmanager
async def serving(*arguments, cwd=REPOSITORY, under=(), **settings):
    """A process that serves, started by the command *under*; killed at the end if still there."""
    process = await asyncio.create_subprocess_exec(
        *(*under, COMMAND),
        *arguments,
        env=environment(log_format="json", **settings),
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_hear_all_signals,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def told(process, event):
    """Read its log until it tells that event; the line."""
    lines = []
    async with asyncio.timeout(60):
        while line := await process.stderr.readline():
            lines.append(json.loads(line))
            if lines[-1]["event"].startswith(event):
                return lines[-1]
    raise AssertionError(lines)


async def page(url):
    def get():
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()

    return await asyncio.to_thread(get)


async def ended(process, seconds=25):
    async with asyncio.timeout(seconds):
        return await process.wait()


@pytest.fixture
def urls(migrated_url, rabbitmq_url):
    """What a process of the engine needs."""
    return {"database_url": migrated_url, "broker_url": rabbitmq_url}


async def test_a_worker_and_a_participant_serve_the_contract_of_the_readme(urls):
    async with (
        serving("worker", SAGAS, "--port", "0", **urls) as worker,
        serving("participant", SERVICES, "--port", "0", **urls) as participant,
    ):
        listening = await told(worker, "http.listening")
        await told(worker, "process.ready")
        await told(participant, "process.ready")
        ok, declined = json.dumps(ORDER | {"card": "ok"}), json.dumps(ORDER | {"card": "declined"})
        start = ("start", "place-order", "--wait", "--json", "--timeout", "30", "--input")
        done = await saga_engine(*start, ok, "--key", "o-1", **urls)
        assert (done.exit_code, done.json["status"], done.json["version"]) == (0, "completed", 1)
        undone = await saga_engine(*start, declined, "--key", "o-2", **urls)
        assert (undone.exit_code, undone.json["status"]) == (6, "compensated")
        shown = (await saga_engine("show", undone.json["run_id"], "--json", **urls)).json
        assert [(step["name"], step["status"]) for step in shown["steps"]] == [
            ("reserve", "succeeded"),
            ("charge", "rejected"),
            ("confirm", "pending"),
        ]
        assert shown["steps"][0]["compensation"]["status"] == "succeeded"
        where = f"http://{listening['event'].split()[1]}"
        assert await page(f"{where}/readyz") == (200, '{"status":"ok"}\n')
        _, metrics = await page(f"{where}/metrics")
        assert 'saga_runs_finished_total{outcome="compensated",saga="place-order"} 1.0' in metrics
        for process in (worker, participant):
            process.send_signal(signal.SIGTERM)
        assert [await ended(worker), await ended(participant)] == [0, 0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_drains_and_the_second_exits_at_once(tmp_path, urls, number):
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "sagas.py").write_text(SAGA)
    async with (
        serving("worker", "sagas", "--port", "0", cwd=tmp_path, **urls) as worker,
        serving("participant", "stubborn", "--port", "0", cwd=tmp_path, **urls) as participant,
    ):
        await told(worker, "process.ready")
        await told(participant, "process.ready")
        assert (await saga_engine("start", "slow", "--input", "{}", **urls)).exit_code == 0
        assert await participant.stdout.readline() == b"begun\n"
        participant.send_signal(number)
        await told(participant, "process.stopping")
        participant.send_signal(number)
        assert await ended(participant, 5) == 128 + number
        worker.send_signal(number)
        assert await ended(worker) == 0


SAGA = """
from saga_engine import Saga

slow = Saga("slow", version=1, input=dict)

@slow.step(command="slow.do", read_only=True)
def do(given: dict) -> dict:
    return given
"""


BUSY = """
import asyncio, time
from saga_engine.cli.process import until_told

async def run(stop):
    print("begun", flush=True)
    while True:
        time.sleep(0.01)

asyncio.run(until_told(run))
"""


async def test_the_second_signal_exits_even_when_the_loop_is_kept_busy():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BUSY), stdout=asyncio.subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    async with asyncio.timeout(30):
        while process.returncode is None:  # Two that come at once count as one.
            process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await process.wait()
    assert process.returncode == 143


async def test_a_worker_that_cannot_run_says_what_to_set(urls, database_url, rabbitmq_url):
    wrong = rabbitmq_url.replace("guest:guest", "guest:secret7")
    database = urls["database_url"]
    cases: tuple[tuple[tuple[str, ...], dict[str, Any], int, str], ...] = (
        (("worker", SAGAS), {}, 2, "SAGA_ENGINE_DATABASE_URL is not set"),
        (("worker", SAGAS), {"database_url": database}, 2, "SAGA_ENGINE_BROKER_URL is not set"),
        (("participant", SERVICES), {}, 2, "SAGA_ENGINE_BROKER_URL is not set"),
        (("worker",), urls, 2, "Name a module"),
        (("worker", "nowhere"), urls, 2, "There is no module 'nowhere'"),
        (("worker", SERVICES), urls, 2, "declares no Saga"),
        (("worker", SAGAS), urls | {"database_url": database_url}, 5, "saga-engine migrate"),
        (("worker", SAGAS), urls | {"broker_url": wrong}, 2, "refuses this user or password"),
        (("worker", SAGAS), urls | {"broker_url": "amqp://127.0.0.1:1/"}, 5, "out of reach"),
        (("worker", SAGAS, "--port", "70000"), urls, 2, "SAGA_ENGINE_HTTP_PORT"),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(saga_engine(*arguments, **given, http_port="0"))
            for arguments, given, _, _ in cases
        ]
    for task, (arguments, _, code, words) in zip(tasks, cases, strict=True):
        ran = task.result()
        assert (ran.exit_code, words in ran.err) == (code, True), (arguments, ran)
        (sentence,) = re.findall(r"^saga-engine: .*$", ran.err, re.MULTILINE)
        assert words in sentence
        assert "Traceback" not in ran.err
        assert "secret7" not in ran.err
