"""The real command as a process, and a whole engine in this process for it to talk to."""

import asyncio
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from saga_engine.settings import Settings
from saga_engine.telemetry.events import TelemetryEvent
from tests.kit.fork_server import ForkServer
from tests.kit.greeter import GreeterParticipant, run_services, service, worker

REPOSITORY = Path(__file__).parents[2]


@dataclass
class CommandResult:
    """How a command ended."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self):
        """The one document it printed."""
        (line,) = self.out.splitlines()
        document = json.loads(line)
        assert document["schema_version"] == 1
        return document


def environment(**settings: str | None) -> dict[str, str]:
    """This process' environment, with no setting of ours but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SAGA_ENGINE")}
    given = {f"SAGA_ENGINE_{name.upper()}": value for name, value in settings.items() if value}
    return kept | given


@cache
def fork_server() -> ForkServer:
    """The process that this one's commands are forks of."""
    return ForkServer()


async def saga_engine(
    *arguments: object, stdin: str = "", cwd: Path = REPOSITORY, **settings: str
) -> CommandResult:
    """Run one command to its end."""
    typed = [*map(str, arguments)]
    code, out, err = await fork_server().run(typed, environment(**settings), cwd, stdin.encode())
    return CommandResult(code, out.decode(), err.decode())


class EventRecorder:
    """What the engine tells, and a way to wait for it."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[TelemetryEvent] = asyncio.Queue()

    def __call__(self, event: TelemetryEvent) -> None:
        self._told.put_nowait(event)

    async def wait_for(self, kind: type, count: int = 1) -> list[TelemetryEvent]:
        """The next facts of that kind."""
        found: list[TelemetryEvent] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                fact = await self._told.get()
                found += [fact] if isinstance(fact, kind) else []
        return found


class CliEngine:
    """A running engine: its facts, the participant's side, and the command pointed at it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.events = EventRecorder()
        self.greeter = GreeterParticipant()

    async def __call__(self, *arguments: object, **more: Any) -> CommandResult:
        urls: dict[str, Any] = {
            "database_url": self.settings.require_database_url(),
            "broker_url": self.settings.require_broker_url(),
        }
        return await saga_engine(*arguments, **urls | more)

    async def start_run(self, saga: str, name: str = "Ann", *more: object) -> str:
        """The id of a new run."""
        ran = await self("start", saga, "--input", json.dumps({"name": name}), *more)
        assert ran.exit_code == 0, ran.err
        return ran.out.strip()


@pytest.fixture
def settings(rabbitmq_url, migrated_url):
    """Settings of a worker that looks often."""
    return Settings(database_url=migrated_url, broker_url=rabbitmq_url, poll_interval=0.02)


@pytest.fixture
async def engine(settings):
    """An engine that runs."""
    made = CliEngine(settings)
    async with (
        worker(settings, made.events) as working,
        service(settings, made.greeter) as serving,
        run_services(working, serving),
    ):
        yield made
        made.greeter.may_finish.set()
