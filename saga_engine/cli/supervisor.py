"""
The supervisor of `--processes`: several processes of one command, with one HTTP port for all.

It runs no code of the user and has no connection to a server, so nothing blocks its event loop. It
starts the first process alone: what is wrong with the configuration is then printed once. The end
of each process is that of `graceful_shutdown`. If the supervisor is killed, the kernel sends
SIGTERM to its processes.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from saga_engine.cli.graceful_shutdown import handled_signals
from saga_engine.cli.supervised_process import (
    ShutdownRequest,
    SupervisedCommand,
    SupervisedProcess,
)
from saga_engine.settings import Settings
from saga_engine.telemetry.endpoint import MonitoringServer
from saga_engine.telemetry.events import Emitter
from saga_engine.telemetry.logs import configure_logging
from saga_engine.telemetry.merged_metrics import MergedMetrics
from saga_engine.telemetry.nonblocking_stream import nonblocking_writer
from saga_engine.waiting import wait_for_any

LOG = logging.getLogger("saga_engine")

MAX_PROCESSES = 256
"""More than the processors of most machines; a typing error must not fill the machine."""

REAPING_DELAY = 0.2
"""
Seconds until orphans are reaped: the system shows only the first ended child, and meanwhile asyncio
reaps the supervisor's own ones.
"""

_Checks: TypeAlias = Mapping[str, str | None]


def supervise(command: SupervisedCommand, processes: int, settings: Settings) -> int:
    """
    Run processes of a command until a stop signal; the first one shuts them down.

    Args:
        command: starts one of them.
        processes: how many.
        settings: with the HTTP port and the delays between restarts.

    Returns:
        The exit code: the largest one of the processes.

    Raises:
        ConfigurationError: the HTTP port cannot be used.
    """
    metrics = MergedMetrics(processes)
    with nonblocking_writer(sys.stderr) as stream:
        emit = Emitter(configure_logging(settings, stream), metrics)
        return asyncio.run(_supervise(command, processes, settings, metrics, emit))


async def _supervise(
    command: SupervisedCommand,
    processes: int,
    settings: Settings,
    metrics: MergedMetrics,
    emit: Emitter,
) -> int:
    shutdown = ShutdownRequest()
    supervised = [
        SupervisedProcess(number, command, settings, shutdown, metrics, emit)
        for number in range(1, processes + 1)
    ]

    async def render_metrics(accept: str) -> tuple[bytes, str]:
        await _merged(each.readiness() for each in supervised)  # a report also has the metrics
        return metrics.render(accept)

    endpoint = MonitoringServer(
        settings.http_host,
        settings.http_port,
        lambda: _merged(each.readiness() for each in supervised),
        render_metrics,
        cache_ttl=settings.http_cache_ttl,
        check_liveness=lambda: _merged(each.liveness() for each in supervised),
    )
    with _stop_signals_handled(shutdown), _orphans_reaped(supervised):
        async with endpoint:
            LOG.info("http.listening %s:%s", settings.http_host, endpoint.port)
            return await _run(supervised, shutdown)


async def _run(supervised: Sequence[SupervisedProcess], shutdown: ShutdownRequest) -> int:
    """Run all processes until they have stopped; return the exit code."""
    first, *others = supervised
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(first.run())]
        await wait_for_any((first.started, shutdown.requested), None)
        running += [tasks.create_task(each.run()) for each in others]
    if shutdown.immediate.is_set():
        return 128 + shutdown.signal_number
    return max(_exit_code(each.result()) for each in running)


async def _merged(checks: Iterable[Coroutine[Any, Any, _Checks]]) -> _Checks:
    """Await the checks of all processes, each of which has names of its own."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each) for each in checks]
    return {name: problem for each in running for name, problem in each.result().items()}


def _exit_code(status: int) -> int:
    """The exit code that a shell gives for an exit status; negative: ended by that signal."""
    return 128 - status if status < 0 else status


@contextmanager
def _stop_signals_handled(shutdown: ShutdownRequest) -> Iterator[None]:
    """Let stop signals request the shutdown."""
    loop = asyncio.get_running_loop()
    handled = handled_signals()
    for number in handled:
        loop.add_signal_handler(number, shutdown.on_signal, number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


@contextmanager
def _orphans_reaped(supervised: Sequence[SupervisedProcess]) -> Iterator[None]:
    """
    As process 1 of a container, reap what a killed process leaves, such as its watchdog.

    The kernel makes process 1 their parent; each that is not reaped keeps its process id, and a
    container has a limited number of them.
    """
    if os.getpid() != 1:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(
        signal.SIGCHLD, lambda: loop.call_later(REAPING_DELAY, _reap_orphans, supervised)
    )
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)


def _reap_orphans(supervised: Sequence[SupervisedProcess]) -> None:
    own = {each.pid for each in supervised}  # asyncio reaps these
    with suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in own:
                return
            os.waitpid(ended.si_pid, 0)
