"""The real `saga-engine` command: run to its end, or as a process that serves; and its log."""

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from saga_engine.settings import Settings
from tests.kit.events import EventRecorder
from tests.kit.fork_server import COMMAND, ForkServer
from tests.kit.greeter import GreeterParticipant

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The exit code and the output of a command."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document it printed."""
        (line,) = self.out.splitlines()
        document = json.loads(line)
        assert document["schema_version"] == 1
        return document


def environment(**settings: str | None) -> dict[str, str]:
    """The environment of this process, with these settings of the engine and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SAGA_ENGINE")}
    variables = {f"SAGA_ENGINE_{name.upper()}": value for name, value in settings.items() if value}
    return kept | variables


@cache
def fork_server() -> ForkServer:
    """The fork server of this process."""
    return ForkServer()


async def saga_engine(
    *arguments: object, stdin: str = "", cwd: Path = REPOSITORY, **settings: str
) -> CommandResult:
    """Run one command to its end; that it reports a bug of its own fails every test."""
    words = [*map(str, arguments)]
    code, out, err = await fork_server().run(words, environment(**settings), cwd, stdin.encode())
    assert b"This is a bug in saga-engine" not in err, err
    return CommandResult(code, out.decode(), err.decode())


@asynccontextmanager
async def running_command(
    *arguments: str, cwd: Path = REPOSITORY, **settings: Any
) -> AsyncIterator[Any]:
    """Start a command as a process, and kill it if it still runs; see `fork_server`."""
    variables = environment(log_format="json", **settings)
    async with _ended_with_the_test(await fork_server().start([*arguments], variables, cwd)) as it:
        yield it


@asynccontextmanager
async def executed_command(
    *arguments: str, cwd: Path = REPOSITORY, wrapper: Sequence[str] = (), **settings: Any
) -> AsyncIterator[Any]:
    """Execute the program of the command, after *wrapper*, and kill it if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(*wrapper, str(COMMAND), *arguments),
        env=environment(log_format="json", **settings),
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_restore_signals,
    )
    async with _ended_with_the_test(process):
        yield process


@asynccontextmanager
async def _ended_with_the_test(process: Any) -> AsyncIterator[Any]:
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _restore_signals() -> None:
    """Let the command handle SIGHUP and SIGINT, even if the tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


async def read_log_until(process: Any, event: str) -> Any:
    """Read the log of a process up to the first line whose event starts so; return that line."""
    lines = []
    async with asyncio.timeout(60):
        while line := await process.stderr.readline():
            lines.append(json.loads(line))
            if lines[-1]["event"].startswith(event):
                return lines[-1]
    raise AssertionError(lines)


async def exit_code_of(process: Any, seconds: float = 25) -> int | None:
    """Wait until a process has exited."""
    async with asyncio.timeout(seconds):
        code: int | None = await process.wait()
    return code


async def http_get(url: str) -> tuple[int, str]:
    """The status and the body of a page."""

    def get() -> tuple[int, str]:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()

    return await asyncio.to_thread(get)


class CliEngine:
    """A running engine: its events, its participant, and the command with its URLs."""

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
        """Start a run; return its id."""
        ran = await self("start", saga, "--input", json.dumps({"name": name}), *more)
        assert ran.exit_code == 0, ran.err
        return ran.out.strip()
