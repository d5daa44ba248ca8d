"""User code in real processes: it may exit, raise or hang, and other runs go on."""

import asyncio
import json
import os
import signal

import pytest

from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import crash_suspects
from saga_engine.store.database import Database
from tests.kit.command_line import (
    exit_code_of,
    http_get,
    read_log_until,
    running_command,
    saga_engine,
)
from tests.kit.hanging_code import (
    FORWARDING_SAGAS,
    HANGING_SERVICES,
    SAGAS,
    publish_starts,
    run_worker,
    wait_until_called,
)

pytestmark = pytest.mark.long

SERVICES = """
from saga_engine import Participant

shop = Participant("shop")

@shop.command("shop.do")
async def do(command: dict) -> None:
    pass
"""


@pytest.fixture
async def shop(tmp_path, urls):
    """A directory with the modules, and a running participant."""
    (tmp_path / "sagas.py").write_text(SAGAS)
    (tmp_path / "services.py").write_text(SERVICES)
    arguments = ("participant", "services", "--port", "0")
    async with running_command(*arguments, cwd=tmp_path, **urls) as participant:
        await read_log_until(participant, "process.ready")
        yield tmp_path


async def start_run(urls, *more, **given):
    ran = await saga_engine("start", "shop", "--input", json.dumps(given), *more, **urls)
    assert ran.exit_code == 0, ran
    return ran.out.split()[0]


async def show_run(urls, run_id):
    return (await saga_engine("show", run_id, "--json", **urls)).json


async def read_suspects(urls):
    settings = Settings(database_url=urls["database_url"])
    async with Database(urls["database_url"], settings) as database, database.transaction() as tx:
        return await crash_suspects.read_all(tx)


async def test_a_mapping_that_exits_or_hangs_affects_its_own_run_only(shop, urls):
    async with run_worker(shop, urls, log_throttle_interval="0.001") as process:
        await read_log_until(process, "process.ready")
        for way in ("exit", "sleep", "spin", "search"):
            broken = await start_run(urls, way=way)
            line = await read_log_until(process, "user_code.failed")
            assert (line["run_id"], line["saga"], line["step"]) == (broken, "shop", "do")
            command = (line["direction"], line["command"], line["function"])
            assert command == ("action", "shop.do", "do")
            problem = "raised SystemExit at" if way == "exit" else "did not return within 0.4 s"
            assert problem in line["problem"]
            [incident] = (await show_run(urls, broken))["incidents"]
            assert incident["cause"] == "mapping_failed"
            assert f"{shop}/sagas.py:" in incident["message"]
            await start_run(urls, "--wait")
        process.send_signal(signal.SIGTERM)
        assert await exit_code_of(process) == 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("where", "way"), [("way", "hang"), ("when_read", "swallow")])
async def test_code_that_cannot_be_interrupted_kills_two_workers_and_no_third(
    shop, urls, where, way
):
    step = "do" if where == "way" else ""
    stuck, *others = [str(uuid7()) for _ in range(4)]
    for times in (1, 2):
        async with run_worker(shop, urls) as process:
            await read_log_until(process, "process.ready")
            if times == 1:
                inputs = {stuck: {where: way}, **{each: {} for each in others}}
                await publish_starts(urls, inputs)
            line = await read_log_until(process, "user_code.hung")
            assert (line["run_id"], line["saga"], line.get("step", "")) == (stuck, "shop", step)
            assert (line["function"], line["recorded"]) == ("do" if step else "Given", True)
            assert line["level"] == "error"
            assert await exit_code_of(process) == -signal.SIGKILL
        assert (await read_suspects(urls))[stuck].crash_count == times
    async with run_worker(shop, urls) as process:
        line = await read_log_until(process, "message.dead_lettered")
        assert (line["reason"], line["run_id"]) == ("code_killed_worker", stuck)
        for run_id in others:
            assert (await saga_engine("wait", run_id, "--timeout", "30", **urls)).exit_code == 0
        if step:
            [incident] = (await show_run(urls, stuck))["incidents"]
            assert incident["cause"] == "mapping_failed"
            assert " ended 2 worker processes" in incident["message"]
        process.send_signal(signal.SIGTERM)
        assert await exit_code_of(process) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_worker_keeps_its_shutdown_timeout_although_a_mapping_hangs(shop, urls, number):
    slow = {"mapping_timeout": "60", "mapping_hard_timeout": "90", "shutdown_timeout": "2"}
    async with run_worker(shop, urls, **slow) as process:
        await read_log_until(process, "process.ready")
        run_id = str(uuid7())
        way = "swallow" if number == signal.SIGTERM else "hang"
        await publish_starts(urls, {run_id: {"way": way}})
        await wait_until_called(process)
        process.send_signal(number)
        line = await read_log_until(process, "user_code.hung")
        assert (line["run_id"], line["step"], line["command"]) == (run_id, "do", "shop.do")
        # Usually the watchdog is first; in C not even a thread of the process itself runs.
        codes = (-signal.SIGKILL,) if way == "hang" else (-signal.SIGKILL, 128 + number)
        assert await exit_code_of(process, 300) in codes


async def test_a_thread_left_running_by_a_mapping_does_not_keep_the_worker(shop, urls):
    async with run_worker(shop, urls) as process:
        await read_log_until(process, "process.ready")
        await start_run(urls, "--wait", way="thread")
        process.send_signal(signal.SIGHUP)
        await read_log_until(process, "process.stopped")
        assert await exit_code_of(process, 60) == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import sys; sys.exit()", "SystemExit"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("import time; time.sleep(3600)", "did not return within 0.5 s"),
        (
            "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
            "did not return within 0.5 s",
        ),
        (
            "class E(BaseException):\n    __str__ = __repr__ = lambda _: 1 / 0\nraise E",
            "E",
        ),
    ],
)
async def test_a_module_that_cannot_be_imported_is_named_with_exit_code_2(
    tmp_path, urls, source, words
):
    (tmp_path / "broken.py").write_text(source)
    ran = await saga_engine("worker", "broken", cwd=tmp_path, import_timeout="0.5", **urls)
    assert ran.exit_code == 2
    (line,) = ran.err.splitlines()
    assert line.startswith("saga-engine: Module 'broken' does not import: ")
    assert words in line


@pytest.mark.parametrize("command", ["check", "graph", "schema"])
async def test_commands_that_load_a_module_keep_the_import_timeout(tmp_path, command):
    (tmp_path / "hanging.py").write_text("import time; time.sleep(3600)")
    ran = await saga_engine(command, "hanging", cwd=tmp_path, import_timeout="0.5")
    assert (ran.exit_code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("saga-engine: Module 'hanging' does not import: it did not return")
    assert "within 0.5 s (SAGA_ENGINE_IMPORT_TIMEOUT)" in line


@pytest.mark.parametrize(
    ("way", "number"),
    [
        ("thread", signal.SIGTERM),
        ("swallow", signal.SIGHUP),
        ("spin", signal.SIGTERM),
        ("spin", signal.SIGINT),
        ("hang", signal.SIGTERM),
        ("hang", signal.SIGHUP),
    ],
)
async def test_a_participant_ends_although_its_handler_does_not(tmp_path, urls, way, number):
    (tmp_path / "sagas.py").write_text(FORWARDING_SAGAS)
    (tmp_path / "services.py").write_text(HANGING_SERVICES)
    arguments = ("participant", "services", "--port", "0")
    # A process that exits on its own does so 0.4 s before its watchdog would kill it.
    seconds = "8" if way in ("thread", "swallow") else "2"
    async with (
        running_command(*arguments, cwd=tmp_path, **urls, shutdown_timeout=seconds) as participant,
        run_worker(tmp_path, urls) as process,
    ):
        await read_log_until(participant, "process.ready")
        await read_log_until(process, "process.ready")
        await publish_starts(urls, {str(uuid7()): {"way": way}})
        await wait_until_called(participant)
        participant.send_signal(number)
        # A blocked loop cannot shut down: a thread exits the process, or the watchdog kills it. For
        # code in C only the watchdog can.
        usual = {"spin": 128 + number, "hang": -signal.SIGKILL}.get(way, 0)
        codes = (usual, -signal.SIGKILL) if way == "spin" else (usual,)
        assert await exit_code_of(participant, 300) in codes


async def test_a_participant_that_exits_names_the_reason(tmp_path, urls):
    (tmp_path / "sagas.py").write_text(FORWARDING_SAGAS)
    (tmp_path / "services.py").write_text(HANGING_SERVICES)
    settings = {"participant_concurrency": "1", "participant_handler_timeout": "0.2"}
    async with (
        running_command(
            *("participant", "services", "--port", "0"),
            cwd=tmp_path,
            **urls,
            **settings,
            participant_cancel_timeout="0.2",
        ) as participant,
        run_worker(tmp_path, urls) as process,
    ):
        await read_log_until(participant, "process.ready")
        await read_log_until(process, "process.ready")
        await publish_starts(urls, {str(uuid7()): {"way": "swallow"}})
        async with asyncio.timeout(60):
            lines = (await participant.stderr.read()).decode().splitlines()
        assert await exit_code_of(participant, 60) == 9
    sentences = [line for line in lines if line.startswith("saga-engine: ")]
    assert len(sentences) == 1, lines
    assert "All 1 slots for handlers (participant_concurrency) are used" in sentences[0]


WAITING = """
import asyncio, os
from saga_engine import Participant

shop = Participant("shop")

@shop.command("shop.do")
async def do(command: dict) -> None:
    print("called", flush=True)
    await asyncio.to_thread(open, command["way"])
    print("done", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_participant_waits_for_its_handlers_until_its_shutdown_timeout(
    tmp_path, urls, number
):
    (tmp_path / "sagas.py").write_text(FORWARDING_SAGAS)
    (tmp_path / "services.py").write_text(WAITING)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    arguments = ("participant", "services", "--port", "0")
    async with (
        running_command(*arguments, cwd=tmp_path, **urls, shutdown_timeout="86400") as participant,
        run_worker(tmp_path, urls) as process,
    ):
        await read_log_until(process, "process.ready")
        address = (await read_log_until(participant, "http.listening"))["event"].split()[1]
        await read_log_until(participant, "process.ready")
        await publish_starts(urls, {str(uuid7()): {"way": str(fifo)}})
        await wait_until_called(participant)
        participant.send_signal(number)
        await read_log_until(participant, "process.stopping")
        assert (await http_get(f"http://{address}/livez"))[0] == 200
        assert participant.returncode is None
        await asyncio.to_thread(fifo.write_text, "")  # blocks until the handler has opened it
        assert await participant.stdout.readline() == b"done\n"
        assert (await read_log_until(participant, "process.stopped"))["clean"] is True
        assert await exit_code_of(participant, 300) == 0


CODEC = """
class Odd:
    def encrypt(self, plaintext, associated_data):
        if b"codec-raises" in plaintext:
            raise SystemExit
        while b"codec-spins" in plaintext:
            pass
        return None

    def decrypt(self, ciphertext, associated_data):
        raise ValueError

codec = Odd()
"""


@pytest.mark.parametrize("way", ["codec-raises", "codec-spins"])
async def test_a_codec_that_hangs_is_treated_as_one_that_raises(shop, urls, way):
    (shop / "odd.py").write_text(CODEC)
    async with run_worker(
        shop, urls, payload_codec="odd:codec", mapping_hard_timeout="86400"
    ) as process:
        await read_log_until(process, "process.ready")
        await publish_starts(urls, {str(uuid7()): {"way": way}})
        line = await read_log_until(process, "message.dead_lettered")
        assert (line["reason"], line["queue"]) == ("internal_error", "saga.requests")
        assert line["problem"] == "The engine could not read it: EncryptionError."
        await start_run(urls, "--wait")
        process.send_signal(signal.SIGTERM)
        assert await exit_code_of(process, 300) == 0
