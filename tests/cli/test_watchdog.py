"""The overseer ends a process in time, counted in its ticks; it may be lost, and come back."""

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from saga_engine.cli.watchdog import LOG_TIMEOUT, POLL_INTERVAL, RECORD_TIMEOUT, Watchdog
from saga_engine.cli.watchdog_process import watchdog_process
from saga_engine.identifiers import uuid7
from saga_engine.payload.guard import UserCodeCall
from saga_engine.settings import Settings
from saga_engine.shutdown import ShutdownSchedule
from saga_engine.worker.time_limit import CALL_NOTE_BYTES, TimeLimitWatch
from tests.cli.test_services import ended, serving, told
from tests.cli.test_user_code import PASSED_ON, SAGAS, STUCK, record, until_called, worker


@pytest.fixture
def urls(migrated_url, rabbitmq_url):
    """What a process of the engine needs."""
    return {"database_url": migrated_url, "broker_url": rabbitmq_url}


CALL = UserCodeCall("shop", str(uuid7()), "do", None, "shop.do", "do", "sagas.py:1")


class Watched:
    """A child process, and an overseer of it whose time is given to it."""

    def __init__(self, *, in_call, database_url=None, limit=100_000.0, drain=25.0):
        self.child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.memory = mmap.mmap(-1, CALL_NOTE_BYTES)
        self.alarm = TimeLimitWatch(1.0, self.memory)
        if in_call:
            self.alarm.enter(CALL)
        settings = {"database_url": database_url, "log_format": "json", "log_level": "info"}
        told = {
            "limit": limit,
            "drain": drain,
            "draining": None,
            "signals": os.open(os.devnull, os.O_RDONLY),
            "settings": settings,
        }
        self.overseer = Watchdog(told, self.child.pid, self.memory)
        self.seconds = 0.0

    def until_it_ends(self, most):
        """Give it ticks until it ends its parent; the seconds that it counted."""
        while self.seconds < most:
            self.seconds += POLL_INTERVAL
            try:
                self.overseer.tick(POLL_INTERVAL)
            except SystemExit:
                return self.seconds
        raise AssertionError("it has not ended its parent")


@contextmanager
def watched(**options):
    found = Watched(**options)
    try:
        yield found
    finally:
        if found.alarm.call is not None:
            found.alarm.leave()
        found.child.kill()
        found.child.communicate()


@pytest.fixture
def silent():
    """The URL of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql+asyncpg://user@127.0.0.1:{server.getsockname()[1]}/none"


@pytest.mark.parametrize("drain", [0.5, 2.0, 25.0, 3_600.0])
@pytest.mark.parametrize("in_call", [True, False])
def test_what_the_overseer_does_at_shutdown_fits_into_drain(silent, drain, in_call):
    with watched(in_call=in_call, database_url=silent, drain=drain) as found:
        found.overseer.on_signals(bytes([signal.SIGTERM]))
        seconds = found.until_it_ends(drain + 10)
        assert seconds <= drain + POLL_INTERVAL
        if in_call:
            assert seconds >= ShutdownSchedule(drain).work_deadline, (
                "the time of the work is the work's"
            )
        assert found.child.wait() == -signal.SIGKILL


def test_a_line_that_cannot_be_written_in_time_is_written_without_what_it_would_import(capfd):
    with watched(in_call=True, limit=1.0) as found:
        while not found.overseer._stuck_call:
            found.overseer.tick(POLL_INTERVAL)
        found.overseer._stuck_call.write_fallback_line()
        (line,) = [json.loads(each) for each in capfd.readouterr().err.splitlines()]
        names = {name: line[name] for name in ("saga", "run_id", "step", "command", "function")}
        assert line["event"] == "user_code.hung"
        assert names == {name: getattr(CALL, name) for name in names}


def test_a_database_that_does_not_answer_delays_the_end_of_stuck_code_by_its_own_budget(silent):
    with watched(in_call=True, database_url=silent, limit=3.0) as found:
        assert found.until_it_ends(100) <= 3 + RECORD_TIMEOUT + LOG_TIMEOUT + 3 * POLL_INTERVAL


def test_a_drain_that_begins_while_a_call_is_being_recorded_still_ends_in_time(silent):
    with watched(in_call=True, database_url=silent, limit=1.0, drain=2.0) as found:
        while not found.overseer._stuck_call:
            found.overseer.tick(POLL_INTERVAL)
        found.overseer.on_signals(bytes([signal.SIGTERM]))
        assert found.until_it_ends(100) <= 2.0 + POLL_INTERVAL


def test_a_call_that_returns_while_it_is_recorded_is_not_ended(silent):
    with watched(in_call=True, database_url=silent, limit=1.0) as found:
        while not found.overseer._stuck_call:
            found.overseer.tick(POLL_INTERVAL)
        found.alarm.leave()
        for _ in range(100):
            found.overseer.tick(POLL_INTERVAL)
        assert found.child.poll() is None


@pytest.mark.parametrize("seconds", [0.001, 0.5, 2.0, 10.0, 25.0, 86_400.0])
def test_the_moments_of_a_shutdown_follow_each_other_within_drain(seconds):
    drain = ShutdownSchedule(seconds)
    moments = [
        drain.work_deadline,
        drain.suspect_recording_at,
        drain.suspect_recording_deadline,
        drain.close_deadline,
        drain.exit_deadline,
        seconds,
    ]
    assert moments == sorted(moments)
    assert moments[0] > 0
    assert drain.work_deadline + drain.handler_grace_period <= drain.close_deadline


def test_a_signal_to_a_forked_child_is_none_to_this_process():
    """A `multiprocessing.Pool` in a handler ends its processes so."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with watchdog_process(Settings()):
            parent = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(parent, warn_on_full_buffer=False)
            child = os.fork()
            if not child:
                kept = signal.set_wakeup_fd(-1) != -1
                os.kill(os.getpid(), signal.SIGTERM)
                os._exit(kept)
            _, status = os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert parent != -1
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM


def overseers_of(pid):
    """The process ids and states of its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        int(each): Path(f"/proc/{each}/stat").read_text().split(")")[1].split()[0]
        for each in children
    }


def test_an_overseer_that_does_not_end_does_not_outlive_its_process():
    with watchdog_process(Settings()):
        (overseer,) = (each for each in overseers_of(os.getpid()) if is_overseer(each))
        os.kill(overseer, signal.SIGSTOP)
    assert not is_overseer(overseer)


def is_overseer(pid):
    """Whether there is one of that process id."""
    with suppress(FileNotFoundError):
        return b"saga_engine.cli.watchdog" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


async def test_a_process_whose_overseer_is_killed_goes_on_with_another_one(tmp_path, urls):
    (tmp_path / "sagas.py").write_text(SAGAS)
    async with worker(tmp_path, urls, drain="86400") as process:
        await told(process, "process.ready")
        (before,) = overseers_of(process.pid)
        os.kill(before, signal.SIGKILL)
        line = await told(process, "watchdog.lost")
        assert (line["level"], line["problem"]) == ("warning", "It ended with -9.")
        await told(process, "watchdog.restarted")
        ((after, state),) = overseers_of(process.pid).items()
        assert after != before
        assert state != "Z"
        await record(urls, {str(uuid7()): {"way": "hang"}})
        await until_called(process)
        assert (await told(process, "user_code.hung"))["recorded"] is True
        assert await ended(process, 300) == -signal.SIGKILL


HANGS_LATE = (
    STUCK
    + """
import sys

async def hang_late():
    told = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
    while not told.done():
        try:
            await asyncio.wait([told])
        except BaseException:
            pass
    await hang()

WAYS["hang_late"] = hang_late
"""
)


async def test_an_overseer_that_comes_late_knows_that_the_process_was_told_to_stop(tmp_path, urls):
    """Code that holds the interpreter afterwards can be ended by nobody else."""
    (tmp_path / "sagas.py").write_text(PASSED_ON)
    (tmp_path / "services.py").write_text(HANGS_LATE)
    arguments = ("participant", "services", "--port", "0")
    async with (
        serving(*arguments, cwd=tmp_path, **urls, drain="12") as participant,
        worker(tmp_path, urls) as process,
    ):
        await told(participant, "process.ready")
        await told(process, "process.ready")
        await record(urls, {str(uuid7()): {"way": "hang_late"}})
        await until_called(participant)
        participant.send_signal(signal.SIGTERM)
        await told(participant, "process.stopping")
        (overseer,) = overseers_of(participant.pid)
        os.kill(overseer, signal.SIGKILL)
        await told(participant, "watchdog.restarted")
        participant.stdin.write(b"\n")
        assert await ended(participant, 300) == -signal.SIGKILL


REFUSED = """
import subprocess

left = ["EAGAIN", "again"]

class Refused(subprocess.Popen):
    def __init__(self, *arguments, **options):
        if left:
            left.pop()
            raise BlockingIOError(11, "Resource temporarily unavailable")
        super().__init__(*arguments, **options)

subprocess.Popen = Refused
"""


@pytest.mark.parametrize("program", ["worker", "participant"])
async def test_a_process_that_gets_no_overseer_serves_and_starts_one_later(tmp_path, urls, program):
    (tmp_path / "sagas.py").write_text(REFUSED + SAGAS)
    (tmp_path / "services.py").write_text(REFUSED + STUCK)
    module = "sagas" if program == "worker" else "services"
    async with serving(program, module, "--port", "0", cwd=tmp_path, **urls) as process:
        lost = await told(process, "watchdog.lost")
        assert "BlockingIOError" in lost["problem"]
        await told(process, "process.ready")
        lines = await until(process, "watchdog.restarted")
        assert [each["event"] for each in lines].count("watchdog.lost") == 0, "one line is enough"
        assert len(overseers_of(process.pid)) == 1
        process.send_signal(signal.SIGTERM)
        assert await ended(process, 300) == 0


async def until(process, event):
    """Read its log until it tells that event; all lines."""
    lines: list[dict[str, object]] = []
    while not lines or lines[-1]["event"] != event:
        lines.append(await told(process, ""))
    return lines


@contextmanager
def first_process():
    """The command that makes another the first process of a PID namespace of its own."""
    command = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
    ran = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if ran.returncode:
        reason = f"no PID namespace can be made here: {ran.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield command


@pytest.mark.parametrize(
    ("program", "number"),
    [("worker", signal.SIGTERM), ("participant", signal.SIGINT), ("worker", signal.SIGHUP)],
)
async def test_the_first_process_of_a_container_drains_and_keeps_no_zombie(
    tmp_path, urls, program, number
):
    (tmp_path / "sagas.py").write_text(SAGAS)
    (tmp_path / "services.py").write_text(STUCK)
    module = "sagas" if program == "worker" else "services"
    with first_process() as command:
        arguments = (program, module, "--port", "0")
        async with serving(*arguments, cwd=tmp_path, under=command, **urls) as process:
            await told(process, "process.ready")
            (first,) = overseers_of(process.pid)
            (overseer,) = overseers_of(first)
            os.kill(overseer, signal.SIGKILL)
            await told(process, "watchdog.restarted")
            ((_, state),) = overseers_of(first).items()
            assert state != "Z"
            os.kill(first, number)
            assert (await told(process, "process.stopped"))["clean"] is True
            assert await ended(process, 300) == 0


@pytest.mark.parametrize(("way", "codes"), [("spin", (143, 64)), ("hang", (64,))])
async def test_the_first_process_of_a_container_ends_although_its_handler_never_does(
    tmp_path, urls, way, codes
):
    """A thread of its own ends it, or its overseer, whichever is first; in C only that can."""
    (tmp_path / "sagas.py").write_text(PASSED_ON)
    (tmp_path / "services.py").write_text(STUCK)
    arguments = ("participant", "services", "--port", "0")
    with first_process() as command:
        async with (
            serving(*arguments, cwd=tmp_path, under=command, **urls, drain="2") as participant,
            worker(tmp_path, urls) as process,
        ):
            await told(participant, "process.ready")
            await told(process, "process.ready")
            await record(urls, {str(uuid7()): {"way": way}})
            await until_called(participant)
            (first,) = overseers_of(participant.pid)
            os.kill(first, signal.SIGTERM)
            assert await ended(participant, 300) in codes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_the_first_process_of_a_container_ends_while_it_imports(tmp_path, urls, number):
    (tmp_path / "sagas.py").write_text(
        'print("importing", flush=True)\nopen("fifo").read()\n' + SAGAS
    )
    os.mkfifo(tmp_path / "fifo")
    with first_process() as command:
        arguments = ("worker", "sagas", "--port", "0")
        async with serving(*arguments, cwd=tmp_path, under=command, **urls) as process:
            assert await process.stdout.readline() == b"importing\n"
            (first,) = overseers_of(process.pid)
            os.kill(first, number)
            assert await ended(process, 300) == 128 + number
