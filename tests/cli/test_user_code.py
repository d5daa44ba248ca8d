"""Code of users in a real worker: it may exit, raise or hang, and the others' runs go on."""

import asyncio
import json
import os
import signal
from uuid import uuid4

import pytest

from saga_engine.amqp.publisher import Publisher
from saga_engine.identifiers import uuid7
from saga_engine.protocol.message import Message
from saga_engine.settings import Settings
from saga_engine.store import crash_suspects
from saga_engine.store.database import Database
from tests.cli.conftest import saga_engine
from tests.cli.test_services import ended, page, serving, told
from tests.kit.connections import open_connection

SAGAS = """
import itertools, re, sys, threading, time
from pydantic import BaseModel, field_validator
from saga_engine import Saga

def hang():
    any(itertools.repeat(False))  # in C, for ever, without a look at signals

def swallow():
    while True:
        try:
            while True:
                time.sleep(0.001)
        except BaseException:
            pass

def search():
    re.match(r"(a|a)*$", "a" * 64 + "b")  # in C, for years, with a look at signals

WAYS = {"search": search, "exit": sys.exit, "hang": hang, "swallow": swallow,
    "sleep": lambda: time.sleep(3600), "spin": lambda: [None for _ in iter(int, 1)],
    "thread": lambda: threading.Thread(target=time.sleep, args=(3600,)).start()}

class Given(BaseModel):
    way: str = ""
    when_read: str = ""

    @field_validator("when_read")
    @classmethod
    def read(cls, way: str) -> str:
        WAYS.get(way, str)()
        return way

shop = Saga("shop", version=1, input=Given)

@shop.step(command="shop.do", read_only=True)
def do(given: Given) -> dict:
    if given.way:
        print("called", flush=True)
    WAYS.get(given.way, str)()
    return {}
"""

SERVICES = """
from saga_engine import Participant

shop = Participant("shop")

@shop.command("shop.do")
async def do(command: dict) -> None:
    pass
"""
QUICK = {
    "mapping_timeout": "0.4",
    "mapping_hard_timeout": "3",
    "shutdown_timeout": "10",
    "poll_interval": "0.02",
}


@pytest.fixture
def urls(migrated_url, rabbitmq_url):
    """What a process of the engine needs."""
    return {"database_url": migrated_url, "broker_url": rabbitmq_url}


@pytest.fixture
async def shop(tmp_path, urls):
    """A directory with the modules, and a participant that serves them."""
    (tmp_path / "sagas.py").write_text(SAGAS)
    (tmp_path / "services.py").write_text(SERVICES)
    arguments = ("participant", "services", "--port", "0")
    async with serving(*arguments, cwd=tmp_path, **urls) as participant:
        await told(participant, "process.ready")
        yield tmp_path


def worker(shop, urls, **settings):
    arguments = ("worker", "sagas", "--port", "0")
    return serving(*arguments, cwd=shop, **{**urls, **QUICK, **settings})


async def started(urls, *more, **given):
    ran = await saga_engine("start", "shop", "--input", json.dumps(given), *more, **urls)
    assert ran.exit_code == 0, ran
    return ran.out.split()[0]


async def shown(urls, run_id):
    return (await saga_engine("show", run_id, "--json", **urls)).json


async def record(urls, given):
    """Send starts in one write, with nothing that waits for an answer; *given* by run id."""
    bodies = [{"run_id": run_id, "saga": "shop", "input": each} for run_id, each in given.items()]
    messages = [
        Message("saga.requests", "start", json.dumps(body).encode(), uuid4().hex, "start")
        for body in bodies
    ]
    async with open_connection(urls["broker_url"], "publish") as link:
        assert set(await Publisher(link).publish(messages)) == {"confirmed"}


async def until_called(process):
    """Wait until a mapping that prints has been called."""
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"called\n"


async def suspects_of(urls):
    settings = Settings(database_url=urls["database_url"])
    async with Database(urls["database_url"], settings) as database, database.transaction() as tx:
        return await crash_suspects.read_all(tx)


async def test_a_mapping_that_exits_or_does_not_return_costs_its_own_run_only(shop, urls):
    async with worker(shop, urls, log_repeat="0.001") as process:
        await told(process, "process.ready")
        for way in ("exit", "sleep", "spin", "search"):
            broken = await started(urls, way=way)
            line = await told(process, "user_code.failed")
            assert (line["run_id"], line["saga"], line["step"]) == (broken, "shop", "do")
            place = (line["direction"], line["command"], line["function"])
            assert place == ("action", "shop.do", "do")
            problem = "raised SystemExit at" if way == "exit" else "did not return within 0.4 s"
            assert problem in line["problem"]
            [incident] = (await shown(urls, broken))["incidents"]
            assert incident["cause"] == "mapping_failed"
            assert f"{shop}/sagas.py:" in incident["message"]
            await started(urls, "--wait")
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("where", "way"), [("way", "hang"), ("when_read", "swallow")])
async def test_code_that_cannot_be_interrupted_ends_two_workers_and_no_third(
    shop, urls, where, way
):
    step = "do" if where == "way" else ""
    stuck, *others = [str(uuid7()) for _ in range(4)]
    for times in (1, 2):
        async with worker(shop, urls) as process:
            await told(process, "process.ready")
            if times == 1:
                given = {stuck: {where: way}, **{each: {} for each in others}}
                await record(urls, given)
            line = await told(process, "user_code.hung")
            assert (line["run_id"], line["saga"], line.get("step", "")) == (stuck, "shop", step)
            assert (line["function"], line["recorded"]) == ("do" if step else "Given", True)
            assert line["level"] == "error"
            assert await ended(process) == -signal.SIGKILL
        assert (await suspects_of(urls))[stuck].crash_count == times
    async with worker(shop, urls) as process:
        line = await told(process, "message.dead_lettered")
        assert (line["reason"], line["run_id"]) == ("code_killed_worker", stuck)
        for run_id in others:
            assert (await saga_engine("wait", run_id, "--timeout", "30", **urls)).exit_code == 0
        if step:
            [incident] = (await shown(urls, stuck))["incidents"]
            assert incident["cause"] == "mapping_failed"
            assert " ended 2 worker processes" in incident["message"]
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_worker_ends_within_its_drain_time_whatever_a_mapping_does(shop, urls, number):
    slow = {"mapping_timeout": "60", "mapping_hard_timeout": "90", "shutdown_timeout": "2"}
    async with worker(shop, urls, **slow) as process:
        await told(process, "process.ready")
        run_id = str(uuid7())
        way = "swallow" if number == signal.SIGTERM else "hang"
        await record(urls, {run_id: {"way": way}})
        await until_called(process)
        process.send_signal(number)
        line = await told(process, "user_code.hung")
        assert (line["run_id"], line["step"], line["command"]) == (run_id, "do", "shop.do")
        # The overseer is first as a rule; in C not even a thread of the process itself runs.
        codes = (-signal.SIGKILL,) if way == "hang" else (-signal.SIGKILL, 128 + number)
        assert await ended(process, 300) in codes


async def test_a_thread_that_a_mapping_left_behind_does_not_keep_the_worker(shop, urls):
    async with worker(shop, urls) as process:
        await told(process, "process.ready")
        await started(urls, "--wait", way="thread")
        process.send_signal(signal.SIGHUP)
        await told(process, "process.stopped")
        assert await ended(process, 60) == 0


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
async def test_a_module_that_does_not_import_is_named_with_exit_code_2(
    tmp_path, urls, source, words
):
    (tmp_path / "broken.py").write_text(source)
    ran = await saga_engine("worker", "broken", cwd=tmp_path, import_timeout="0.5", **urls)
    assert ran.exit_code == 2
    (line,) = ran.err.splitlines()
    assert line.startswith("saga-engine: Module 'broken' does not import: ")
    assert words in line


@pytest.mark.parametrize("command", ["check", "graph", "schema"])
async def test_what_reads_a_module_gives_its_import_as_long_as_a_worker_does(tmp_path, command):
    (tmp_path / "hanging.py").write_text("import time; time.sleep(3600)")
    ran = await saga_engine(command, "hanging", cwd=tmp_path, import_timeout="0.5")
    assert (ran.exit_code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("saga-engine: Module 'hanging' does not import: it did not return")
    assert "within 0.5 s (SAGA_ENGINE_IMPORT_TIMEOUT)" in line


STUCK = """
import asyncio, itertools, time
from saga_engine import Participant

shop = Participant("shop")

async def swallow():
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass

async def spin():
    while True:
        pass

async def hang():
    any(itertools.repeat(False))

WAYS = {"thread": lambda: asyncio.to_thread(time.sleep, 3600), "swallow": swallow, "spin": spin,
    "hang": hang}

@shop.command("shop.do")
async def do(command: dict) -> None:
    print("called", flush=True)
    await WAYS[command["way"]]()
"""
PASSED_ON = SAGAS.replace(
    """    if given.way:
        print("called", flush=True)
    WAYS.get(given.way, str)()
    return {}
""",
    """    return {"way": given.way}
""",
)


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
async def test_a_participant_ends_although_its_handler_never_does(tmp_path, urls, way, number):
    (tmp_path / "sagas.py").write_text(PASSED_ON)
    (tmp_path / "services.py").write_text(STUCK)
    arguments = ("participant", "services", "--port", "0")
    # Who ends by itself does so 0.4 s before its overseer would: a busy machine needs that.
    drain = "8" if way in ("thread", "swallow") else "2"
    async with (
        serving(*arguments, cwd=tmp_path, **urls, drain=drain) as participant,
        worker(tmp_path, urls) as process,
    ):
        await told(participant, "process.ready")
        await told(process, "process.ready")
        await record(urls, {str(uuid7()): {"way": way}})
        await until_called(participant)
        participant.send_signal(number)
        # A loop that is blocked cannot drain: a thread ends the process, or its overseer does, and
        # in C only that can.
        by_itself = {"spin": 128 + number, "hang": -signal.SIGKILL}.get(way, 0)
        codes = (by_itself, -signal.SIGKILL) if way == "spin" else (by_itself,)
        assert await ended(participant, 300) in codes


async def test_a_participant_that_ends_itself_says_why(tmp_path, urls):
    (tmp_path / "sagas.py").write_text(PASSED_ON)
    (tmp_path / "services.py").write_text(STUCK)
    settings = {"participant_concurrency": "1", "participant_handler_timeout": "0.2"}
    async with (
        serving(
            *("participant", "services", "--port", "0"),
            cwd=tmp_path,
            **urls,
            **settings,
            participant_grace="0.2",
        ) as participant,
        worker(tmp_path, urls) as process,
    ):
        await told(participant, "process.ready")
        await told(process, "process.ready")
        await record(urls, {str(uuid7()): {"way": "swallow"}})
        async with asyncio.timeout(60):
            lines = (await participant.stderr.read()).decode().splitlines()
        assert await ended(participant, 60) == 9
    said = [line for line in lines if line.startswith("saga-engine: ")]
    assert len(said) == 1, lines
    assert "All 1 places for handlers (participant_concurrency) are taken" in said[0]


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
async def test_a_participant_waits_for_its_handlers_while_its_drain_time_lasts(
    tmp_path, urls, number
):
    (tmp_path / "sagas.py").write_text(PASSED_ON)
    (tmp_path / "services.py").write_text(WAITING)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    arguments = ("participant", "services", "--port", "0")
    async with (
        serving(*arguments, cwd=tmp_path, **urls, drain="86400") as participant,
        worker(tmp_path, urls) as process,
    ):
        await told(process, "process.ready")
        where = (await told(participant, "http.listening"))["event"].split()[1]
        await told(participant, "process.ready")
        await record(urls, {str(uuid7()): {"way": str(fifo)}})
        await until_called(participant)
        participant.send_signal(number)
        await told(participant, "process.stopping")
        assert (await page(f"http://{where}/livez"))[0] == 200
        assert participant.returncode is None
        await asyncio.to_thread(fifo.write_text, "")  # waits until the handler has opened it
        assert await participant.stdout.readline() == b"done\n"
        assert (await told(participant, "process.stopped"))["clean"] is True
        assert await ended(participant, 300) == 0


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
async def test_a_codec_that_does_not_return_is_treated_as_one_that_raises(shop, urls, way):
    (shop / "odd.py").write_text(CODEC)
    async with worker(shop, urls, payload_codec="odd:codec", code_limit="86400") as process:
        await told(process, "process.ready")
        await record(urls, {str(uuid7()): {"way": way}})
        line = await told(process, "message.dead_lettered")
        assert (line["reason"], line["queue"]) == ("internal_error", "saga.requests")
        assert line["problem"] == "The engine could not read it: SealError."
        await started(urls, "--wait")
        process.send_signal(signal.SIGTERM)
        assert await ended(process, 300) == 0
