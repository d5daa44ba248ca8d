"""A process starts its watchdog, restarts one that is lost, and reaps it."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from saga_engine.cli.watchdog_process import watchdog_process
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from tests.kit.command_line import executed_command, exit_code_of, read_log_until
from tests.kit.hanging_code import (
    FORWARDING_SAGAS,
    HANGING_SERVICES,
    SAGAS,
    publish_starts,
    run_worker,
    wait_until_called,
)
from tests.kit.pid_namespace import first_process
from tests.kit.processes import child_states


def test_a_signal_to_a_forked_child_is_not_one_to_this_process():
    """A `multiprocessing.Pool` in a handler ends its processes with signals."""
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


def test_a_stopped_watchdog_does_not_outlive_its_process():
    with watchdog_process(Settings()):
        (watchdog,) = (each for each in child_states(os.getpid()) if is_watchdog(each))
        os.kill(watchdog, signal.SIGSTOP)
    assert not is_watchdog(watchdog)


def is_watchdog(pid):
    """Whether a watchdog has that process id."""
    with suppress(FileNotFoundError):
        return b"saga_engine.cli.watchdog" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@pytest.mark.long
async def test_a_process_restarts_its_killed_watchdog(tmp_path, urls):
    (tmp_path / "sagas.py").write_text(SAGAS)
    async with run_worker(tmp_path, urls, shutdown_timeout="86400") as process:
        await read_log_until(process, "process.ready")
        (before,) = child_states(process.pid)
        os.kill(before, signal.SIGKILL)
        line = await read_log_until(process, "watchdog.lost")
        assert (line["level"], line["problem"]) == ("warning", "It exited with code -9.")
        await read_log_until(process, "watchdog.restarted")
        ((after, state),) = child_states(process.pid).items()
        assert after != before
        assert state != "Z"
        await publish_starts(urls, {str(uuid7()): {"way": "hang"}})
        await wait_until_called(process)
        assert (await read_log_until(process, "user_code.hung"))["recorded"] is True
        assert await exit_code_of(process, 300) == -signal.SIGKILL


HANGS_LATE = (
    HANGING_SERVICES
    + """
import sys

async def hang_late():
    line = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
    while not line.done():
        try:
            await asyncio.wait([line])
        except BaseException:
            pass
    await hang()

BEHAVIOURS["hang_late"] = hang_late
"""
)


@pytest.mark.long
async def test_a_restarted_watchdog_knows_of_the_shutdown(tmp_path, urls):
    """Only a watchdog can end code that holds the interpreter lock afterwards."""
    (tmp_path / "sagas.py").write_text(FORWARDING_SAGAS)
    (tmp_path / "services.py").write_text(HANGS_LATE)
    arguments = ("participant", "services", "--port", "0")
    async with (
        executed_command(*arguments, cwd=tmp_path, **urls, shutdown_timeout="12") as participant,
        run_worker(tmp_path, urls) as process,
    ):
        await read_log_until(participant, "process.ready")
        await read_log_until(process, "process.ready")
        await publish_starts(urls, {str(uuid7()): {"way": "hang_late"}})
        await wait_until_called(participant)
        participant.send_signal(signal.SIGTERM)
        await read_log_until(participant, "process.stopping")
        (watchdog,) = child_states(participant.pid)
        os.kill(watchdog, signal.SIGKILL)
        await read_log_until(participant, "watchdog.restarted")
        participant.stdin.write(b"\n")
        assert await exit_code_of(participant, 300) == -signal.SIGKILL


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


@pytest.mark.long
@pytest.mark.parametrize("program", ["worker", "participant"])
async def test_a_process_that_cannot_start_a_watchdog_serves_and_retries(tmp_path, urls, program):
    (tmp_path / "sagas.py").write_text(REFUSED + SAGAS)
    (tmp_path / "services.py").write_text(REFUSED + HANGING_SERVICES)
    module = "sagas" if program == "worker" else "services"
    async with executed_command(program, module, "--port", "0", cwd=tmp_path, **urls) as process:
        lost = await read_log_until(process, "watchdog.lost")
        assert "BlockingIOError" in lost["problem"]
        await read_log_until(process, "process.ready")
        lines = await read_lines_until(process, "watchdog.restarted")
        assert [each["event"] for each in lines].count("watchdog.lost") == 0, "one line is enough"
        assert len(child_states(process.pid)) == 1
        process.send_signal(signal.SIGTERM)
        assert await exit_code_of(process, 300) == 0


async def read_lines_until(process, event):
    """Read the log of a process up to that event; return all lines."""
    lines: list[dict[str, object]] = []
    while not lines or lines[-1]["event"] != event:
        lines.append(await read_log_until(process, ""))
    return lines


@pytest.mark.parametrize(
    ("program", "number"),
    [
        ("worker", signal.SIGTERM),
        pytest.param("participant", signal.SIGINT, marks=pytest.mark.long),
        pytest.param("worker", signal.SIGHUP, marks=pytest.mark.long),
    ],
)
async def test_process_1_of_a_container_shuts_down_and_reaps_its_watchdog(
    tmp_path, urls, program, number
):
    (tmp_path / "sagas.py").write_text(SAGAS)
    (tmp_path / "services.py").write_text(HANGING_SERVICES)
    module = "sagas" if program == "worker" else "services"
    with first_process() as command:
        arguments = (program, module, "--port", "0")
        async with executed_command(*arguments, cwd=tmp_path, wrapper=command, **urls) as process:
            await read_log_until(process, "process.ready")
            (first,) = child_states(process.pid)
            (watchdog,) = child_states(first)
            os.kill(watchdog, signal.SIGKILL)
            await read_log_until(process, "watchdog.restarted")
            ((_, state),) = child_states(first).items()
            assert state != "Z"
            os.kill(first, number)
            assert (await read_log_until(process, "process.stopped"))["clean"] is True
            assert await exit_code_of(process, 300) == 0


@pytest.mark.long
@pytest.mark.parametrize(("way", "codes"), [("spin", (143, 64)), ("hang", (64,))])
async def test_process_1_of_a_container_ends_although_its_handler_does_not(
    tmp_path, urls, way, codes
):
    """Its own thread or its watchdog ends it; code in C only the watchdog."""
    (tmp_path / "sagas.py").write_text(FORWARDING_SAGAS)
    (tmp_path / "services.py").write_text(HANGING_SERVICES)
    arguments = ("participant", "services", "--port", "0")
    with first_process() as command:
        async with (
            executed_command(
                *arguments, cwd=tmp_path, wrapper=command, **urls, shutdown_timeout="2"
            ) as participant,
            run_worker(tmp_path, urls) as process,
        ):
            await read_log_until(participant, "process.ready")
            await read_log_until(process, "process.ready")
            await publish_starts(urls, {str(uuid7()): {"way": way}})
            await wait_until_called(participant)
            (first,) = child_states(participant.pid)
            os.kill(first, signal.SIGTERM)
            assert await exit_code_of(participant, 300) in codes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_process_1_of_a_container_ends_while_it_imports(tmp_path, urls, number):
    (tmp_path / "sagas.py").write_text(
        'print("importing", flush=True)\nopen("fifo").read()\n' + SAGAS
    )
    os.mkfifo(tmp_path / "fifo")
    with first_process() as command:
        arguments = ("worker", "sagas", "--port", "0")
        async with executed_command(*arguments, cwd=tmp_path, wrapper=command, **urls) as process:
            assert await process.stdout.readline() == b"importing\n"
            (first,) = child_states(process.pid)
            os.kill(first, number)
            assert await exit_code_of(process, 300) == 128 + number
