"""One process of a supervisor is live, is started again, and never runs twice."""

import asyncio
import signal
import sys
from contextlib import asynccontextmanager

import pytest

from saga_engine.cli.supervised_process import (
    ShutdownRequest,
    SupervisedCommand,
    SupervisedProcess,
)
from saga_engine.settings import Settings
from saga_engine.telemetry.events import ProcessLost, ProcessStarted
from saga_engine.telemetry.merged_metrics import MergedMetrics
from saga_engine.vocabulary import Program
from tests.kit.events import EventRecorder

ONCE_READY = """
import asyncio, sys
from saga_engine.cli.process_report import ReportAnswers, SupervisorLink

checks = 0

async def readiness():
    global checks
    checks += 1
    if checks > 1:
        await asyncio.Event().wait()
    return {}

async def main():
    stop = asyncio.Event()
    async with ReportAnswers(SupervisorLink(1, int(sys.argv[1])), readiness, bytes, stop.set):
        await stop.wait()

asyncio.run(main())
"""
"""A process whose dependencies do not answer after the first report."""

SLOW_TO_START = "import time; time.sleep(600)"


class Script(SupervisedCommand):
    """Starts a script in the place of a command of the engine."""

    def __init__(self, source):
        super().__init__(Program.WORKER, [])
        self._source = source
        self.starts = 0

    async def start(self, link):
        self.starts += 1
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", self._source, str(link.descriptor)),
            pass_fds=(link.descriptor,),
        )


def supervised(command, shutdown, emit):
    """What runs the processes of a command until the shutdown."""
    settings = Settings(process_restart_backoff=0.001)
    return SupervisedProcess(1, command, settings, shutdown, MergedMetrics(1), emit)


@asynccontextmanager
async def running(command, emit):
    """Run the processes of a command, and kill the last one."""
    shutdown = ShutdownRequest()
    process = supervised(command, shutdown, emit)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(process.run())
        yield process
        shutdown.requested.set()
        shutdown.immediate.set()


async def test_a_process_is_live_while_its_dependencies_do_not_answer():
    async with (
        running(Script(ONCE_READY), EventRecorder()) as process,
        asyncio.TaskGroup() as tasks,
    ):
        await process.started.wait()
        report = tasks.create_task(process.report())
        liveness = tasks.create_task(process.liveness())
        assert await liveness == {"process 1": None}
        assert not report.done()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_that_still_starts_at_the_shutdown_has_ended_cleanly(number):
    shutdown, emitted = ShutdownRequest(), EventRecorder()
    process = supervised(Script(SLOW_TO_START), shutdown, emitted)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        exit_status = tasks.create_task(process.run())
        await emitted.wait_for(ProcessStarted)
        shutdown.on_signal(number)
    assert exit_status.result() == 0


async def test_no_process_is_started_that_could_not_be_asked(monkeypatch):
    command, emitted = Script(ONCE_READY), EventRecorder()

    async def fail_once(**_):
        monkeypatch.undo()
        raise OSError("no more sockets")

    monkeypatch.setattr(asyncio, "open_unix_connection", fail_once)
    async with running(command, emitted) as process:
        await process.started.wait()
    (lost,) = emitted.matching(ProcessLost)
    assert lost.problem == "it cannot be started: OSError: no more sockets"
    assert command.starts == 1
