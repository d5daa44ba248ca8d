"""
A private server that speaks the protocol of Kafka.

It is noida-db from PyPI, one program of 11 MB without Java. Topics with their configuration,
idempotent producers, groups and size limits behave as in Kafka; replication and logins do not
exist. Every connection is through its port, or through a proxy with `addressed`.

It has everything in memory, and writes all of it into one file about once a second and once more
when it gets SIGTERM. SIGKILL therefore takes the last second, and SIGTERM takes what it confirms
between that writing and its end: of 10,400 records that it had confirmed to a plain producer of
confluent-kafka, it had 10,000 after a restart. Kafka has written a record to the page cache before
it confirms it, and loses none by either signal. A test that ends a server and starts it again
therefore uses `CrashingKafka`, which cuts all connections before: nothing is confirmed after that.
"""

import asyncio
import os
import signal
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from saga_engine.embedded.server_process import ServerProcess, free_port
from saga_engine.errors import BrokerUnavailable, ConfigurationError
from tests.kit.proxy import TcpProxy

INSTALL_COMMAND = "make programs"

_HOST = b"127.0.0.1"
_STOP_TIMEOUT = 20.0


def kafka_program() -> Path | None:
    """Where the server is; None if it is not installed."""
    found = find_spec("noida_db")
    program = Path(str(found.origin)).with_name("noida-db") if found else None
    return program if program and program.exists() else None


class KafkaServer:
    """One server, for an `async with`; its data is in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: ServerProcess

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def servers(self) -> str:
        """What clients connect to."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def start(self) -> None:
        """Start the program, with the data that it had; return when it accepts connections."""
        program = kafka_program()
        if program is None:
            raise ConfigurationError(f"noida-db is not installed. Run `{INSTALL_COMMAND}`.")
        program.chmod(0o755)
        directory = ("--data-dir", str(self._directory / "data"))
        port = ("--kafka-port", str(self._port))
        self._process = await ServerProcess.start(
            (program, "start", "--host", "127.0.0.1", "--only", "kafka", *port, *directory),
            log_path=self._directory / "log",
            environment={"HOME": str(self._directory), "PATH": os.environ["PATH"]},
        )
        async for _ in self._process.poll_while_running():
            if await _accepts(self._port):
                return
        raise BrokerUnavailable(f"It did not start: {self._process.log_tail()}")

    @property
    def data(self) -> Path:
        """The file that has everything when the server has ended."""
        return self._directory / "data" / "kafka.json"

    async def terminate(self) -> None:
        """SIGTERM: it writes what it has, and loses what it still confirms until it has ended."""
        await self._process.stop(signal.SIGTERM, _STOP_TIMEOUT)

    async def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        await self._process.wait()

    def addressed(self, url: str, host: bytes = _HOST) -> Callable[[bytes], bytes]:
        """
        Return what a proxy at *url* does to the answers: they name the proxy as the server.

        A client connects to the addresses in the answers, and not to where it was sent first.
        """
        port = urlsplit(url).port or 0
        own = _HOST + struct.pack(">i", self._port)
        return lambda data: data.replace(own, host + struct.pack(">i", port))


class CrashingKafka:
    """
    A server that clients reach through a proxy, so that it can crash as Kafka does.

    Args:
        server: it runs.
        proxy: before it.
    """

    def __init__(self, server: KafkaServer, proxy: TcpProxy) -> None:
        self._server = server
        self._proxy = proxy
        proxy.from_server.rewrite = server.addressed(proxy.url)

    @property
    def servers(self) -> str:
        """What clients connect to."""
        return self._proxy.url.removeprefix("tcp://")

    async def crash(self) -> None:
        """
        End it as SIGKILL ends a server of Kafka: connections are cut, what is confirmed is kept.

        Requests that are on their way are stored or not, and not answered.
        """
        await self._proxy.refuse()
        await self._server.terminate()

    async def start(self) -> None:
        """Start it again, with the data that it had."""
        await self._server.start()
        await self._proxy.accept()

    async def restart(self) -> None:
        """Crash it, and start it again."""
        await self.crash()
        await self.start()

    @asynccontextmanager
    async def losing(self) -> AsyncIterator[None]:
        """Lose everything that is confirmed in the block, as after an unclean election."""
        await self.crash()
        kept = self._server.data.read_bytes()
        await self.start()
        yield
        await self.crash()
        self._server.data.write_bytes(kept)
        await self.start()


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
