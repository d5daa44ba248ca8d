"""What an endpoint asks, and a client that sends whatever bytes a test wants."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

HOST = "127.0.0.1"


class Process:
    """What the endpoint asks: its state is set by the test."""

    def __init__(self) -> None:
        self.checks: dict[str, str | None] = {"database": None, "publishing": None}
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.asked = asyncio.Event()
        self.asked_at_once = 0
        self.times = 0
        self._asking = 0

    async def readiness(self) -> Mapping[str, str | None]:
        self._asking += 1
        self.times += 1
        self.asked.set()
        self.asked_at_once = max(self.asked_at_once, self._asking)
        try:
            if self.hold:
                await self.hold.wait()
            if self.error:
                raise self.error
            return self.checks
        finally:
            self._asking -= 1


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that is closed at the end, whatever the other side did to it."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(port: int, request: bytes) -> bytes:
    """Everything that is answered to some bytes; nothing when the connection is cut."""
    async with connected(port) as (reader, writer):
        writer.write(request)
        with suppress(ConnectionError):
            return await reader.read()
        return b""


async def ask(
    port: int, path: str, *, method: str = "GET", header: str = ""
) -> tuple[int, dict[str, str], bytes]:
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode()
    head, _, body = (await exchange(port, request)).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body
