"""One process of a supervisor: started, asked for reports, started again when it ends, stopped."""

import asyncio
import random
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from saga_engine.backoff import Backoff
from saga_engine.cli.process_report import (
    ANSWER_TIMEOUT,
    ProcessReport,
    ReportQuestions,
    SupervisorLink,
)
from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings
from saga_engine.shutdown import WATCHDOG_MARGIN
from saga_engine.telemetry.events import Observer, ProcessLost, ProcessStarted
from saga_engine.telemetry.merged_metrics import MergedMetrics
from saga_engine.vocabulary import Program
from saga_engine.waiting import wait_for_event

EXIT_CONFIGURATION = ConfigurationError.exit_code
"""Starting a process again does not correct what it names."""

RESTART_JITTER = 0.5
"""The share of the delay that is random, so that processes that end together do not start so."""


class ShutdownRequest:
    """Whether the processes are to stop: the first signal requests it, the second at once."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.immediate = asyncio.Event()
        self.signal_number = int(signal.SIGTERM)

    def on_signal(self, number: int) -> None:
        """Note a stop signal to the supervisor."""
        if self.requested.is_set():
            self.immediate.set()
        self.signal_number = number
        self.requested.set()


class SupervisedCommand:
    """
    The command that this process runs, to be started again as a supervised process.

    Args:
        program: the command.
        arguments: what follows it.
    """

    def __init__(self, program: Program, arguments: Sequence[str]) -> None:
        # As this process was started: with the same interpreter, its options, and its module path.
        own = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
        debug = [each for each in sys.argv[1:] if each == "--debug"]
        self._before = [sys.executable, *own, program, *debug]
        self._after = arguments

    async def start(self, link: SupervisorLink) -> asyncio.subprocess.Process:
        """
        Start it, in a session of its own: signals of a terminal reach it through the supervisor.

        Args:
            link: what the process gets of this one.

        Raises:
            OSError: the system cannot start it now.
        """
        return await asyncio.create_subprocess_exec(
            *self._before,
            *("--supervisor-link", str(link.process), str(link.descriptor)),
            *self._after,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(link.descriptor,),
            start_new_session=True,
        )


class SupervisedProcess:
    """
    Runs one process until the shutdown is requested, and another one when it ends before.

    Args:
        number: its number, from 1.
        command: starts it.
        settings: of the supervisor.
        shutdown: stops it.
        metrics: gets what each report exposes.
        emit: receives telemetry.
    """

    def __init__(
        self,
        number: int,
        command: SupervisedCommand,
        settings: Settings,
        shutdown: ShutdownRequest,
        metrics: MergedMetrics,
        emit: Observer,
    ) -> None:
        self.name = f"process {number}"
        self.started = asyncio.Event()
        """Set when a process has reported for the first time."""
        self.pid: int | None = None
        """The process id of the last one."""
        self._number = number
        self._command = command
        self._shutdown = shutdown
        self._metrics = metrics
        self._emit = emit
        self._backoff = Backoff(
            settings.process_restart_backoff,
            settings.process_restart_backoff_max,
            jitter=RESTART_JITTER,
        )
        self._kill_after = settings.shutdown_timeout + 2 * WATCHDOG_MARGIN
        self._questions: ReportQuestions | None = None
        self._has_reported = False
        self._problem = "it waits until process 1 has started"

    async def run(self) -> int:
        """
        Run processes until the shutdown is requested; request it after a configuration error.

        Before any process of this number has started, another one would end in the same way. Later
        errors do not stop the other processes, which go on.

        Returns:
            The exit status of the last process; 0 if none ran when the shutdown was requested, or
            if SIGTERM then ended one that had not started its work.
        """
        loop = asyncio.get_running_loop()
        retry = 0
        while not self._shutdown.requested.is_set():
            started_at = loop.time()
            code = await self._run_once()
            if code == EXIT_CONFIGURATION and not self.started.is_set():
                self._shutdown.requested.set()
            if self._shutdown.requested.is_set():
                return 0 if code is None else code
            if loop.time() - started_at > self._backoff.maximum:
                retry = 0
            delay = self._backoff.delay(retry, random.random())  # noqa: S311 - not a secret
            retry += 1
            self._emit(ProcessLost(process=self._number, problem=self._problem, delay_s=delay))
            await wait_for_event(self._shutdown.requested, delay)
        return 0

    async def report(self) -> ProcessReport | None:
        """Ask the process for a report; None: it does not run, is starting, or does not answer."""
        questions = self._questions
        report = await questions.ask(ANSWER_TIMEOUT) if questions else None
        if questions is self._questions:  # no other process has started meanwhile
            self._metrics.record(self._number, report.metrics if report else None)
        return report

    async def readiness(self) -> Mapping[str, str | None]:
        """Return each dependency of the process and its problem; see Readiness."""
        report = await self.report()
        if report is None:
            return {self.name: self._problem}
        return {f"{self.name}, {name}": problem for name, problem in report.readiness.items()}

    async def liveness(self) -> Mapping[str, str | None]:
        """
        Return whether the event loop of the process answers; its dependencies are not checked.

        One that is starting, or is to be started again, has no problem: a restart of the supervisor
        would not help.
        """
        questions = self._questions if self._has_reported else None
        if questions is None:
            return {self.name: None}
        is_live = await questions.ask_liveness(ANSWER_TIMEOUT)
        is_silent = not is_live and self._questions is questions
        return {self.name: self._problem if is_silent else None}

    async def _run_once(self) -> int | None:
        """Run one process to its end, and return its exit status; None: it could not be started."""
        try:
            process, questions = await self._start()
        except OSError as error:
            self._problem = f"it cannot be started: {type(error).__name__}: {error}"
            return None
        self.pid = process.pid
        self._emit(ProcessStarted(process=self._number, pid=process.pid))
        self._problem = "it is starting"
        self._questions = questions
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(self._stop_when_requested(process))
            starting = tasks.create_task(self._await_first_report(questions))
            code = await process.wait()
            stopping.cancel()
            starting.cancel()
        questions.close()
        ended_before_work = code == -signal.SIGTERM and not self._has_reported
        self._questions, self._has_reported = None, False
        self._metrics.record_end(self._number)
        self._problem = f"it {_describe_end(code)}"
        return 0 if ended_before_work and self._shutdown.requested.is_set() else code

    async def _start(self) -> tuple[asyncio.subprocess.Process, ReportQuestions]:
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as if_it_fails:
            if_it_fails.enter_context(ours)
            # Before the process, which must not run without a supervisor if this fails.
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            if_it_fails.callback(writer.close)
            process = await self._command.start(SupervisorLink(self._number, theirs.fileno()))
            if_it_fails.pop_all()
        return process, ReportQuestions(reader, writer)

    async def _await_first_report(self, questions: ReportQuestions) -> None:
        if await questions.ask(None):
            self._problem = f"it has not answered within {ANSWER_TIMEOUT:g} s"
            self._has_reported = True
            self.started.set()

    async def _stop_when_requested(self, process: asyncio.subprocess.Process) -> None:
        """
        Forward the first signal, and kill the process at the second.

        A process that has not reported may still import the user's modules. SIGTERM ends it then,
        and later shuts it down as each stop signal does.

        Its own watchdog ends it after `shutdown_timeout`; only if that cannot, as while the process
        is suspended, it is killed here.
        """
        await self._shutdown.requested.wait()
        with suppress(ProcessLookupError):  # it has just ended
            process.send_signal(
                self._shutdown.signal_number if self._has_reported else signal.SIGTERM
            )
            await wait_for_event(self._shutdown.immediate, self._kill_after)
            process.kill()


def _describe_end(code: int) -> str:
    if code < 0:
        names = {int(number): number.name for number in signal.Signals}
        return f"was ended by {names.get(-code, f'signal {-code}')}"
    return f"exited with code {code}"
