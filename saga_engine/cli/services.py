"""`saga-engine worker` and `participant`: processes that serve until they are told to stop."""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.process import end_at_once, serve, until_told
from saga_engine.cli.watchdog_process import overseen
from saga_engine.errors import ConfigurationError
from saga_engine.loading import load
from saga_engine.participant import Participant
from saga_engine.participant.service import Service
from saga_engine.payload.guard import Call, Watch
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.telemetry.endpoint import Endpoint
from saga_engine.telemetry.events import CodeContained, CodeStuck, ProcessStopped, Tell
from saga_engine.telemetry.logs import configure
from saga_engine.telemetry.metrics import Metrics
from saga_engine.telemetry.nonblocking_stream import leave, unhurried
from saga_engine.telemetry.throttle import Repeats
from saga_engine.worker.time_limit import Alarm
from saga_engine.worker.worker import Worker

LOG = logging.getLogger("saga_engine")

Port = Annotated[
    int | None, Parameter(help="Port of /livez, /readyz and /metrics; 0 picks a free one.")
]
Host = Annotated[str | None, Parameter(help="Address of the same.")]


def worker(*modules: str, port: Port = None, host: Host = None) -> None:
    """
    Run sagas until told to stop.

    The first SIGTERM or SIGINT finishes what is in hand and exits 0; the second exits at once.

    Args:
        modules: MODULE or MODULE:SAGA, any number of them.
    """
    end_at_once()
    settings = _settings(port, host)
    settings.require_database()
    settings.require_broker()
    sagas = _all(modules, Saga, settings)
    _serve(settings, "worker", lambda tell, watch: Worker(sagas, settings, tell, watch))


def participant(*modules: str, port: Port = None, host: Host = None) -> None:
    """
    Perform commands until told to stop.

    The first SIGTERM or SIGINT finishes what is in hand and exits 0; the second exits at once.

    Args:
        modules: MODULE or MODULE:PARTICIPANT, any number of them.
    """
    end_at_once()
    settings = _settings(port, host)
    settings.require_broker()
    participants = _all(modules, Participant, settings)
    _serve(settings, "participant", lambda tell, _: Service(participants, settings, tell))


def _serve(
    settings: Settings, program: str, make: Callable[[Tell, Watch], Worker | Service]
) -> None:
    """Connect it, answer on its HTTP port and run it, until told to stop."""
    metrics = Metrics()

    async def run(stop: asyncio.Event) -> None:
        overseeing = asyncio.get_running_loop().create_task(oversight.keep(tell))
        async with make(tell, alarm) as served:
            endpoint = Endpoint(
                *(settings.http_host, settings.http_port, served.readiness, metrics.render),
                fresh=settings.http_fresh,
            )
            async with endpoint:
                LOG.info("http.listening %s:%s", settings.http_host, endpoint.port)
                await served.run(stop)
        overseeing.cancel()

    def overdue() -> None:
        if call := alarm.call:
            tell(_stuck(call, settings.drain))
        tell(ProcessStopped(program=program, clean=False))
        leave(stream)

    with unhurried(sys.stderr) as stream, overseen(settings) as oversight:
        tell = Tell(configure(settings, stream), metrics)
        alarm = Alarm(settings.mapping_timeout, oversight.memory)
        with alarm.set():
            serve(
                until_told(run, drain=settings.drain, overdue=overdue, began=oversight.begin),
                Contained(tell, settings.log_repeat),
            )


class Contained:
    """Tells of what code of users was prevented from doing; the same again is counted."""

    def __init__(self, tell: Tell, interval: float) -> None:
        self._tell = tell
        self._repeats = Repeats(interval)

    def __call__(self, caller: Call | ReceivedCommand | None, problem: str) -> None:
        """Tell of a call, or of None where it is not known which one it was."""
        names = _names(caller)
        again = self._repeats.of(problem, names.get("saga"), names.get("command"))
        if again is not None:
            self._tell(CodeContained(problem=problem, repeats=again or None, **names))


def _names(caller: Call | ReceivedCommand | None) -> dict[str, str]:
    if isinstance(caller, Call):
        of = {"saga": caller.saga, "run_id": caller.run_id, "step": caller.step}
        return {**of, "command": caller.command, "function": caller.function}
    if isinstance(caller, ReceivedCommand):
        command = caller.command
        of = {"saga": command.saga, "run_id": str(command.run_id), "step": command.step}
        return {**of, "command": command.name}
    return {}


def _stuck(call: Call, seconds: float) -> CodeStuck:
    saga, run_id, step, direction, command, function, _ = call
    return CodeStuck(
        saga=saga,
        run_id=run_id,
        step=step,
        direction=direction or "",
        command=command,
        function=function,
        limit_s=seconds,
        recorded=False,
    )


def _settings(port: int | None, host: str | None) -> Settings:
    given: dict[str, Any] = {"http_port": port, "http_host": host}
    return Settings.load(**{name: value for name, value in given.items() if value is not None})


def _all(modules: tuple[str, ...], kind: type[Any], settings: Settings) -> list[Any]:
    """Load them in order; what two of the modules share counts once."""
    if not modules:
        raise ConfigurationError("Name a module, for example: examples.place_order.sagas")
    timeout = settings.import_timeout
    found = {id(each): each for module in modules for each in load(module, kind, timeout)}
    return list(found.values())
