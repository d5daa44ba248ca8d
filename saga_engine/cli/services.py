"""`saga-engine worker` and `participant`: processes that serve until they are told to stop."""

import asyncio
from typing import Annotated, Any

from cyclopts import Parameter

from saga_engine.cli.process import until_told
from saga_engine.errors import ConfigurationError
from saga_engine.loading import load
from saga_engine.participant import Participant
from saga_engine.participant.service import Service
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.telemetry.facts import Tell
from saga_engine.worker.worker import Worker

Port = Annotated[
    int | None, Parameter(help="Port of /livez, /readyz and /metrics; 0 picks a free one.")
]
Host = Annotated[str | None, Parameter(help="Address of the same.")]


async def worker(*modules: str, port: Port = None, host: Host = None) -> None:
    """
    Run sagas until told to stop.

    The first SIGTERM or SIGINT finishes what is in hand and exits 0; the second exits at once.

    Args:
        modules: MODULE or MODULE:SAGA, any number of them.
    """
    settings = _settings(port, host)
    settings.require_database()
    settings.require_broker()
    sagas = _all(modules, Saga)
    tell = Tell()

    async def run(stop: asyncio.Event) -> None:
        async with Worker(sagas, settings, tell) as working:
            await working.run(stop)

    await until_told(run)


async def participant(*modules: str, port: Port = None, host: Host = None) -> None:
    """
    Perform commands until told to stop.

    The first SIGTERM or SIGINT finishes what is in hand and exits 0; the second exits at once.

    Args:
        modules: MODULE or MODULE:PARTICIPANT, any number of them.
    """
    settings = _settings(port, host)
    settings.require_broker()
    participants = _all(modules, Participant)
    tell = Tell()

    async def run(stop: asyncio.Event) -> None:
        async with Service(participants, settings, tell) as serving:
            await serving.run(stop)

    await until_told(run)


def _settings(port: int | None, host: str | None) -> Settings:
    given: dict[str, Any] = {"http_port": port, "http_host": host}
    return Settings.load(**{name: value for name, value in given.items() if value is not None})


def _all(modules: tuple[str, ...], kind: type[Any]) -> list[Any]:
    """Load them in order; what two of the modules share counts once."""
    if not modules:
        raise ConfigurationError("Name a module, for example: examples.place_order.sagas")
    found = {id(each): each for module in modules for each in load(module, kind)}
    return list(found.values())
