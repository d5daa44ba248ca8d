"""`saga-engine projector` and `consume`, and what runs any process until it is stopped."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from saga_engine.call_time_limit import SignalTimeLimit
from saga_engine.cli.graceful_shutdown import (
    exit_on_stop_signals,
    run_contained,
    run_until_signaled,
)
from saga_engine.cli.process_report import ReportAnswers, SupervisorLink
from saga_engine.cli.service_options import Host, Port, load_settings
from saga_engine.cli.watchdog_process import watchdog_process
from saga_engine.cli.worker_with_read_models import WorkerWithReadModels
from saga_engine.errors import ConfigurationError
from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.consumers.service import ConsumerService
from saga_engine.events.feeds.feed import Feed
from saga_engine.events.feeds.sink_opener import require_servers
from saga_engine.events.projections.projection import Projection
from saga_engine.events.read_models.read_models import ReadModels
from saga_engine.events.service import ProjectorService
from saga_engine.loading import load_objects
from saga_engine.participant import Participant
from saga_engine.participant.service import ParticipantService
from saga_engine.payload.guard import CallTimeLimit, UserCodeCall
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.telemetry.endpoint import MonitoringServer, ReadinessCheck
from saga_engine.telemetry.events import Emitter, ProcessStopped, UserCodeContained, UserCodeHung
from saga_engine.telemetry.logs import configure_logging
from saga_engine.telemetry.metrics import Metrics
from saga_engine.telemetry.nonblocking_stream import flush_before_exit, nonblocking_writer
from saga_engine.telemetry.throttle import Throttle
from saga_engine.vocabulary import Program
from saga_engine.worker.worker import Worker

LOG = logging.getLogger("saga_engine")

COLLECT_AFTER = 50_000
"""
Objects that a projector makes until Python looks for cycles, which 700 start by default. Almost all
objects of a batch live until its end, and looking at them takes a quarter of the processor time.
"""


def run_worker(
    modules: Sequence[str], settings: Settings, *, events: bool, link: SupervisorLink | None
) -> None:
    """
    Run a worker for the sagas of some modules until it is stopped.

    Args:
        modules: each MODULE or MODULE:SAGA.
        settings: with the URLs of both servers.
        events: whether it keeps the read models up to date.
        link: to its supervisor, if it has one.
    """
    sagas = _load_all(modules, Saga, settings)

    def create(emit: Emitter, time_limit: CallTimeLimit) -> Worker | WorkerWithReadModels:
        created = Worker(sagas, settings, emit, time_limit)
        if not events:
            return created
        return WorkerWithReadModels(created, ReadModels(settings, emit), emit)

    _run_service(settings, Program.WORKER, create, link)


def run_participants(
    modules: Sequence[str], settings: Settings, *, link: SupervisorLink | None
) -> None:
    """
    Run the participants of some modules until the process is stopped.

    Args:
        modules: each MODULE or MODULE:PARTICIPANT.
        settings: with the URL of the broker.
        link: to its supervisor, if it has one.
    """
    participants = _load_all(modules, Participant, settings)
    _run_service(
        settings,
        Program.PARTICIPANT,
        lambda emit, _: ParticipantService(participants, settings, emit),
        link,
    )


def projector(*modules: str, port: Port = None, host: Host = None) -> None:
    """
    Run the projections and feeds of some modules, until the process is stopped.

    The schemas of the events that these modules declare, also in aggregates, are registered. The
    process does not start if one of them cannot read what is stored.

    The first SIGTERM or SIGINT finishes the batches in progress and exits 0; the second exits at
    once.

    Args:
        modules: Any number of MODULE or MODULE:NAME.
    """
    exit_on_stop_signals()
    settings = load_settings(port, host)
    settings.require_database_url()
    loaded = _load_all(modules, (Projection, Feed, Aggregate), settings)
    projections = [each for each in loaded if isinstance(each, Projection)]
    feeds = [each for each in loaded if isinstance(each, Feed)]
    aggregates = [each for each in loaded if isinstance(each, Aggregate)]
    if not projections and not feeds:
        raise ConfigurationError(
            f"{', '.join(modules)} declares no Projection or Feed. To register the schemas of a"
            " module that has none: saga-engine schemas register MODULE."
        )
    require_servers(feeds, settings)
    gc.freeze()  # what the modules have made stays
    gc.set_threshold(COLLECT_AFTER)
    _run_service(
        settings,
        Program.PROJECTOR,
        lambda emit, time_limit: ProjectorService(
            projections, settings, emit, time_limit, feeds=feeds, aggregates=aggregates
        ),
    )


def consume(*modules: str, port: Port = None, host: Host = None) -> None:
    """
    Run the consumers of some modules, until the process is stopped.

    The first SIGTERM or SIGINT finishes the batches in progress and exits 0; the second exits at
    once.

    Args:
        modules: Any number of MODULE or MODULE:CONSUMER.
    """
    exit_on_stop_signals()
    settings = load_settings(port, host)
    settings.require_database_url()
    consumers = _load_all(modules, Consumer, settings)
    _run_service(
        settings,
        Program.CONSUMER,
        lambda emit, time_limit: ConsumerService(consumers, settings, emit, time_limit),
    )


def _run_service(
    settings: Settings,
    program: Program,
    create_service: Callable[
        [Emitter, CallTimeLimit],
        Worker | WorkerWithReadModels | ParticipantService | ProjectorService | ConsumerService,
    ],
    link: SupervisorLink | None = None,
) -> None:
    """
    Connect the service and run it until it is stopped.

    Its readiness and metrics are on its HTTP port, or with *link* on that of its supervisor.
    """
    metrics = Metrics()
    process = link.process if link else None

    async def run(stop: asyncio.Event) -> None:
        supervision = asyncio.get_running_loop().create_task(watchdog.supervise(emit))
        async with (
            create_service(emit, time_limit) as service,
            _http_port(settings, service.readiness, metrics)
            if link is None
            else _reports(link, service.readiness, metrics, stop),
        ):
            await service.run(stop)
        supervision.cancel()

    def on_timeout() -> None:
        if call := time_limit.call:
            emit(_stuck_event(call, settings.shutdown_timeout))
        emit(ProcessStopped(program=program, clean=False))
        flush_before_exit(stream)

    with nonblocking_writer(sys.stderr) as stream, watchdog_process(settings, process) as watchdog:
        emit = Emitter(configure_logging(settings, stream, process=process), metrics)
        time_limit = SignalTimeLimit(settings.mapping_timeout, watchdog.memory)
        with time_limit.install():
            run_contained(
                run_until_signaled(
                    run,
                    shutdown_timeout=settings.shutdown_timeout,
                    on_timeout=on_timeout,
                    on_signal=watchdog.on_shutdown,
                    exit_at_second_signal=link is None,
                ),
                ContainmentReporter(emit, settings.log_throttle_interval),
            )


@asynccontextmanager
async def _http_port(
    settings: Settings, check_readiness: ReadinessCheck, metrics: Metrics
) -> AsyncIterator[None]:
    async def render_metrics(accept: str) -> tuple[bytes, str]:
        return metrics.render(accept)

    endpoint = MonitoringServer(
        settings.http_host,
        settings.http_port,
        check_readiness,
        render_metrics,
        cache_ttl=settings.http_cache_ttl,
    )
    async with endpoint:
        LOG.info("http.listening %s:%s", settings.http_host, endpoint.port)
        yield


def _reports(
    link: SupervisorLink, check_readiness: ReadinessCheck, metrics: Metrics, stop: asyncio.Event
) -> ReportAnswers:
    return ReportAnswers(link, check_readiness, lambda: metrics.render()[0], stop.set)


class ContainmentReporter:
    """Emits what user code was prevented from doing; repetitions are only counted."""

    def __init__(self, emit: Emitter, interval: float) -> None:
        self._emit = emit
        self._throttle = Throttle(interval)

    def __call__(self, caller: UserCodeCall | ReceivedCommand | None, problem: str) -> None:
        """Emit one event for a call; None: it is not known which call it was."""
        labels = _caller_labels(caller)
        repeats = self._throttle.record(problem, labels.get("saga"), labels.get("command"))
        if repeats is not None:
            self._emit(
                UserCodeContained(problem=problem, suppressed_count=repeats or None, **labels)
            )


def _caller_labels(caller: UserCodeCall | ReceivedCommand | None) -> dict[str, str]:
    if isinstance(caller, UserCodeCall):
        labels = {"saga": caller.saga, "run_id": caller.run_id, "step": caller.step}
        return {**labels, "command": caller.command, "function": caller.function}
    if isinstance(caller, ReceivedCommand):
        command = caller.command
        labels = {"saga": command.saga, "run_id": command.run_id, "step": command.step}
        return {**labels, "command": command.name}
    return {}


def _stuck_event(call: UserCodeCall, limit: float) -> UserCodeHung:
    saga, run_id, step, direction, command, function, _ = call
    return UserCodeHung(
        saga=saga,
        run_id=run_id,
        step=step,
        direction=direction or "",
        command=command,
        function=function,
        limit_s=limit,
        recorded=False,
    )


def _load_all(
    modules: Sequence[str], kind: type[Any] | tuple[type[Any], ...], settings: Settings
) -> list[Any]:
    """Load the objects of some modules in order, each once."""
    if not modules:
        raise ConfigurationError("Name a module, for example: examples.place_order.sagas")
    timeout = settings.import_timeout
    loaded = {id(each): each for module in modules for each in load_objects(module, kind, timeout)}
    return list(loaded.values())
