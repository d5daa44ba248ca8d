"""
The servers and processes of the demo: embedded servers unless both URLs are set.

Everything that is started here is stopped here, also after an error.
"""

import asyncio
import importlib
import importlib.util
import os
import re
import signal
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from saga_engine.embedded.broker import DevelopmentBroker
from saga_engine.embedded.broker.interceptor import PublishAttempt, deliver
from saga_engine.embedded.postgres import PostgresServer
from saga_engine.embedded.server_process import ServerProcess, free_port
from saga_engine.environment import PREFIX
from saga_engine.errors import ConfigurationError, SagaEngineError
from saga_engine.protocol.topology import REPLIES
from saga_engine.settings import Settings

STARTUP_TIMEOUT = 30.0
"""Seconds for a process to become ready."""

STOP_TIMEOUT = 10.0
"""Seconds for a process to stop; then it is killed."""

DUPLICATED_REPLIES = 5
"""Replies that the embedded broker delivers twice."""


class DuplicateSomeReplies:
    """Delivers the first replies twice, as a broker does when an acknowledgement is lost."""

    def __init__(self) -> None:
        self._left = DUPLICATED_REPLIES

    def __call__(self, publish: PublishAttempt) -> None:
        if self._left and publish.message.exchange == REPLIES:
            self._left -= 1
            publish.route()
        deliver(publish)


@dataclass(slots=True, kw_only=True)
class DemoServers:
    """The URLs of the servers, and the processes. `log_path` collects the processes' output."""

    broker_url: str
    database_url: str
    shop_database_url: str
    log_path: Path
    embedded: bool
    processes: list[ServerProcess] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    async def start(self, *command: str, database_url: str = "") -> ServerProcess:
        """
        Start `saga-engine COMMAND` as a process and wait until it is ready.

        Args:
            command: its words.
            database_url: of the process; by default the engine's database.
        """
        port = free_port()
        process = await ServerProcess.start(
            (sys.executable, "-m", "saga_engine", *command, "--port", str(port)),
            log_path=self.log_path,
            environment=self._environment(database_url or self.database_url),
        )
        self.processes.append(process)
        self.ports.append(port)
        async with asyncio.timeout(STARTUP_TIMEOUT):
            async for _ in process.poll_while_running():
                if await asyncio.to_thread(_is_ready, port):
                    return process
        raise SagaEngineError(f"saga-engine {command[0]} did not start:\n{process.log_tail()}")

    async def sum_metrics(self, *patterns: str) -> int:
        """Return the sum of the metrics that match, over all processes that still run."""
        pages = [await asyncio.to_thread(_http_get, port, "metrics") for port in self.ports]
        return sum(
            int(float(value))
            for page in pages
            for pattern in patterns
            for value in re.findall(rf"^{pattern} (\S+)$", page, re.MULTILINE)
        )

    async def close(self) -> None:
        """Stop the processes."""
        async with asyncio.TaskGroup() as group:
            for process in self.processes:
                group.create_task(process.stop(signal.SIGTERM, STOP_TIMEOUT))

    def _environment(self, database_url: str) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SAGA_ENGINE_DATABASE_URL": database_url,
            "SAGA_ENGINE_BROKER_URL": self.broker_url,
            "SAGA_ENGINE_LOG_FORMAT": "console",
            "PLACE_ORDER_DATABASE_URL": self.shop_database_url,
            "SHOP_DATABASE_URL": self.shop_database_url,
        }


@asynccontextmanager
async def demo_servers(settings: Settings) -> AsyncIterator[DemoServers]:
    """Use the servers of the settings, or start embedded ones."""
    find_examples()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="saga-demo-"))
        log_path = Path(directory) / "log"
        log_path.touch()
        if not settings.database_url and not settings.broker_url:
            server = await stack.enter_async_context(PostgresServer())
            broker = DevelopmentBroker(interceptor=DuplicateSomeReplies())
            await stack.enter_async_context(broker)
            database = await server.create_database("engine")
            shop_database_url = await server.create_database("shop")
            servers = DemoServers(
                broker_url=broker.url,
                database_url=database,
                shop_database_url=shop_database_url,
                log_path=log_path,
                embedded=True,
            )
        else:
            _require_both_urls(settings)
            database = settings.require_database_url()
            servers = DemoServers(
                broker_url=settings.require_broker_url(),
                database_url=database,
                shop_database_url=database,
                log_path=log_path,
                embedded=False,
            )
        stack.push_async_callback(servers.close)
        yield servers


def _require_both_urls(settings: Settings) -> None:
    """Refuse one URL without the other, which is likely a mistake."""
    urls = {"DATABASE_URL": settings.database_url, "BROKER_URL": settings.broker_url}
    present, missing = sorted(urls, key=lambda name: not urls[name])
    if not urls[missing]:
        raise ConfigurationError(
            f"{PREFIX}{present} is set and {PREFIX}{missing} is not. Unset {PREFIX}{present} to"
            f" run the demo on embedded servers, or set {PREFIX}{missing} to run it on yours."
        )


def find_examples() -> None:
    """Make `examples` importable: it is in the checkout, and in the wheel in this package."""
    if importlib.util.find_spec("examples.place_order") is not None:
        return
    sys.path.append(str(Path(__file__).parents[2] / "_examples"))
    importlib.invalidate_caches()
    if importlib.util.find_spec("examples.place_order") is None:
        raise ConfigurationError("The examples are not installed. Run the demo in a checkout.")


def _is_ready(port: int) -> bool:
    return bool(_http_get(port, "readyz"))


def _http_get(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=2) as response:
            text: str = response.read().decode()
    except OSError:
        return ""
    return text
