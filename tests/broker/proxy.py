"""A TCP proxy before a broker: it cuts, holds, and puts words into the broker's mouth."""

import asyncio
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pamqp.frame


class Proxy:
    """Forwards connections to `target`; `url` leads through it."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._clients: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self.url = ""

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        credentials = self._target.netloc.rpartition("@")[0]
        self.url = self._target._replace(netloc=f"{credentials}@127.0.0.1:{port}").geturl()
        return server

    def cut(self) -> None:
        """Reset every connection."""
        for client in list(self._clients):
            client.transport.abort()

    def hold(self) -> None:
        """Forward nothing that the broker says, from now on."""
        self._passing.clear()

    def release(self) -> None:
        self._passing.set()

    def say(self, frame: pamqp.frame.FrameTypes) -> None:
        """Send a frame of the broker's on every connection; each must be idle."""
        for client in self._clients:
            client.write(pamqp.frame.marshal(frame, 0))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        from_broker, to_broker = await asyncio.open_connection(
            self._target.hostname, self._target.port
        )
        with suppress(ConnectionError):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(reader, to_broker))
                tasks.create_task(self._forward(from_broker, writer, self._passing))
        self._clients.discard(writer)

    async def _forward(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        passing: asyncio.Event | None = None,
    ) -> None:
        try:
            while data := await source.read(65_536):
                if passing:
                    await passing.wait()
                sink.write(data)
                await sink.drain()
        finally:
            sink.transport.abort()


@asynccontextmanager
async def proxied(target: str):
    """A proxy for the time of a test."""
    proxy = Proxy(target)
    server = await proxy.start()
    try:
        yield proxy
    finally:
        proxy.release()
        server.close()
        proxy.cut()
