"""A stub of a process for the HTTP port, and a client that sends any bytes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from prometheus_client import CollectorRegistry

from saga_engine.telemetry.metrics import Metrics

HOST = "127.0.0.1"


async def render_metrics(accept: str) -> tuple[bytes, str]:
    """The metrics of a process in which nothing has happened."""
    return Metrics(CollectorRegistry()).render(accept)


class ProcessStub:
    """The readiness of a process, set by the test."""

    def __init__(self) -> None:
        self.checks: dict[str, str | None] = {"database": None, "publishing": None}
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.readiness_requested = asyncio.Event()
        self.max_concurrent_requests = 0
        self.request_count = 0
        self._concurrent_requests = 0

    async def readiness(self) -> Mapping[str, str | None]:
        self._concurrent_requests += 1
        self.request_count += 1
        self.readiness_requested.set()
        self.max_concurrent_requests = max(self.max_concurrent_requests, self._concurrent_requests)
        try:
            if self.hold:
                await self.hold.wait()
            if self.error:
                raise self.error
            return self.checks
        finally:
            self._concurrent_requests -= 1


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that is closed after the block, even if the server has cut it."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def send_raw(port: int, request: bytes) -> bytes:
    """Send bytes, and return the whole response; empty if the connection is cut."""
    async with connected(port) as (reader, writer):
        writer.write(request)
        with suppress(ConnectionError):
            return await reader.read()
        return b""


async def get(
    port: int, path: str, *, method: str = "GET", header: str = ""
) -> tuple[int, dict[str, str], bytes]:
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode()
    head, _, body = (await send_raw(port, request)).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body
