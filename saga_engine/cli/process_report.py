"""
What a supervised process reports to its supervisor: its readiness and its metrics.

The two share a pair of sockets that no other process has: no port, no file, and either end is
closed when its process has ended. The supervisor sends one byte; the process answers with 4 bytes,
the size of a JSON document, and the document.
"""

import asyncio
import ctypes
import os
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

_QUESTION = b"?"
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

        Linux only; on other systems only `ReportAnswers` notices the end. Programs that this
        process executes do not inherit the socket.
        """
        os.set_inheritable(self.descriptor, False)  # noqa: FBT003 - it has no other form
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


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
    The supervisor's end: asks one process for reports.

    Only one question is open at a time, so an answer that is late is an answer to it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._answer: asyncio.Task[ProcessReport | None] | None = None

    async def ask(self, seconds: float | None) -> ProcessReport | None:
        """Return the report; None: the process has ended, or does not answer within the time."""
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_task(self._ask())
        await asyncio.wait((self._answer,), timeout=seconds)
        return self._answer.result() if self._answer.done() else None

    def close(self) -> None:
        """Close the socket; an open question has no answer."""
        self._writer.close()

    async def _ask(self) -> ProcessReport | None:
        with suppress(OSError, asyncio.IncompleteReadError):
            self._writer.write(_QUESTION)
            size = int.from_bytes(await self._reader.readexactly(_SIZE_BYTES), "big")
            return ProcessReport(**orjson.loads(await self._reader.readexactly(size)))
        return None


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
        with suppress(OSError):
            while await reader.read(len(_QUESTION)):
                report = ProcessReport(
                    await run_checks(self._check_readiness, CHECK_TIMEOUT),
                    self._render_metrics().decode(),
                )
                document = orjson.dumps(report)
                writer.write(len(document).to_bytes(_SIZE_BYTES, "big") + document)
                await writer.drain()
        self._on_supervisor_lost()
