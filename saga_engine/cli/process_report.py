"""
What a supervised process reports to its supervisor: its readiness and metrics, and that it is live.

The two share a pair of sockets that no other process has: no port, no file, and either end is
closed when its process has ended. The supervisor sends one byte; the process answers with 4 bytes,
the size of a JSON document, and the document. To the question whether it is live it answers with
the size 0, at once and without a check, also while it makes a report.
"""

import asyncio
import ctypes
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import orjson

from saga_engine.lifecycle import AsyncResource
from saga_engine.telemetry.endpoint import READINESS_TIMEOUT, ReadinessCheck, run_checks

CHECK_TIMEOUT = READINESS_TIMEOUT - 1.0
"""Seconds for the readiness check of a process."""

ANSWER_TIMEOUT = READINESS_TIMEOUT - 0.5
"""
Seconds for a report. The supervisor's own check takes at most READINESS_TIMEOUT, and must have a
sentence for a process that does not answer.
"""

_REPORT, _LIVENESS = b"?", b"!"
_SIZE_BYTES = 4
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class SupervisorLink:
    """
    What a process needs to know of its supervisor.

    Args:
        process: the number of the process, from 1.
        descriptor: of its end of the pair of sockets.
    """

    process: int
    descriptor: int

    def stop_with_supervisor(self) -> None:
        """
        Let this process get SIGTERM when its supervisor ends, even while its event loop is blocked.

        Linux only; on other systems only `ReportAnswers` notices the end. A supervisor that has
        ended before ends this process now. Programs that this process executes do not inherit the
        socket.

        Raises:
            SystemExit: the supervisor has ended.
        """
        os.set_inheritable(self.descriptor, False)  # noqa: FBT003 - it has no other form
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        supervisor = select.poll()
        supervisor.register(self.descriptor, 0)  # POLLHUP is always reported
        if supervisor.poll(0):
            sys.exit(128 + signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """
    What a process reports.

    Args:
        readiness: each dependency, and its problem; None: it has none.
        metrics: in the text format 0.0.4 of Prometheus.
    """

    readiness: dict[str, str | None]
    metrics: str


class ReportQuestions:
    """
    The supervisor's end: asks one process for reports, and whether it is live.

    Only one question of each kind is open at a time, so an answer that is late is an answer to it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._answers: dict[bytes, asyncio.Future[bytes | None]] = {}
        self._reading = asyncio.get_running_loop().create_task(self._read_answers())

    async def ask(self, seconds: float | None) -> ProcessReport | None:
        """Return the report; None: the process has ended, or does not answer within the time."""
        document = await self._ask(_REPORT, seconds)
        return ProcessReport(**orjson.loads(document)) if document else None

    async def ask_liveness(self, seconds: float | None) -> bool:
        """Return whether the process answers within the time."""
        return await self._ask(_LIVENESS, seconds) is not None

    def close(self) -> None:
        """Close the socket; an open question has no answer."""
        self._writer.close()

    async def _ask(self, question: bytes, seconds: float | None) -> bytes | None:
        answer = self._answers.get(question)
        if answer is None or answer.done():
            answer = self._answers[question] = asyncio.get_running_loop().create_future()
            if self._reading.done():
                answer.set_result(None)
            else:
                self._writer.write(question)
        await asyncio.wait((answer,), timeout=seconds)
        return answer.result() if answer.done() else None

    async def _read_answers(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size = int.from_bytes(await self._reader.readexactly(_SIZE_BYTES), "big")
                document = await self._reader.readexactly(size)
                self._answers[_REPORT if document else _LIVENESS].set_result(document)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(None)


class ReportAnswers(AsyncResource):
    """
    The end of a supervised process: answers while the context is entered.

    Args:
        link: to the supervisor.
        check_readiness: called for each report.
        render_metrics: returns them in the text format 0.0.4.
        on_supervisor_lost: called when the supervisor has ended.
    """

    def __init__(
        self,
        link: SupervisorLink,
        check_readiness: ReadinessCheck,
        render_metrics: Callable[[], bytes],
        on_supervisor_lost: Callable[[], None],
    ) -> None:
        self._link = link
        self._check_readiness = check_readiness
        self._render_metrics = render_metrics
        self._on_supervisor_lost = on_supervisor_lost

    async def _open(self, resources: AsyncExitStack) -> None:
        connection = socket.socket(fileno=self._link.descriptor)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        resources.callback(writer.close)
        tasks = await resources.enter_async_context(asyncio.TaskGroup())
        resources.callback(tasks.create_task(self._answer(reader, writer)).cancel)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as reports:
            with suppress(OSError):
                while question := await reader.read(1):
                    if question == _LIVENESS:
                        writer.write(bytes(_SIZE_BYTES))
                    else:
                        reports.create_task(self._report(writer))
            self._on_supervisor_lost()

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        report = ProcessReport(
            await run_checks(self._check_readiness, CHECK_TIMEOUT),
            self._render_metrics().decode(),
        )
        document = orjson.dumps(report)
        writer.write(len(document).to_bytes(_SIZE_BYTES, "big") + document)
