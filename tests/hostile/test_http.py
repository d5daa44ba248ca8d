"""The HTTP port survives hostile requests, uses little memory and echoes nothing."""

import asyncio
import tracemalloc
from contextlib import AsyncExitStack, suppress

import pytest

from saga_engine.telemetry import endpoint as module
from saga_engine.telemetry.endpoint import MonitoringServer
from tests.kit.http import HOST, ProcessStub, connected, get, render_metrics, send_raw

START = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /livez HTTP/1.1\r\nHost: x\r\n"

REQUESTS = {
    "C54 an unknown method": b"BREW /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "C54 a method in a header": POST + b"X-HTTP-Method-Override: DELETE\r\n\r\n",
    "C54 TRACE": b"TRACE /livez HTTP/1.1\r\nHost: x\r\nCookie: secret=1\r\n\r\n",
    "C54 CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "C55 a page of another site": POST + b"Origin: null\r\nContent-Type: text/plain\r\n\r\n",
    "C55 an upgrade": START + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "C56 a body shorter than its length": POST + b"Content-Length: 99999999999\r\n\r\nx",
    "C56 a negative length": START + b"Content-Length: -1\r\n\r\n",
    "C56 two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "C56 a length beside chunks": (
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + START + b"\r\n"
    ),
    "C56 chunks of nonsense": START + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "C56 an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "C56 a chunk of 2^64": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
    "C56 expecting": POST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    "C57 multipart": POST + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x--",
    "C59 a path of 100 KB": b"GET /" + b"a" * 100_000,
    "C59 20,000 headers": START + b"X: y\r\n" * 20_000,
    "C59 a header of 100 KB": START + b"X: " + b"y" * 100_000,
    "C59 no path": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "C59 a path of bytes": b"GET /\xff\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "C64 a folded header": START + b"X: a\r\n b\r\n\r\n",
    "C64 a NUL in a header": START + b"X: a\x00b\r\n\r\n",
    "C64 no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "C64 two hosts": START + b"Host: evil\r\n\r\n",
    "C64 a bare line feed": b"GET /livez HTTP/1.1\nHost: x\n\n",
    "C64 an absolute address": b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\n\r\n",
    "nonsense": b"\x00\xff\x16\x03\x01" * 100 + b"\r\n\r\n",
}


@pytest.fixture
async def port():
    async with (
        asyncio.timeout(60),
        MonitoringServer(HOST, 0, ProcessStub().readiness, render_metrics) as endpoint,
    ):
        yield endpoint.port


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_hostile_request_gets_at_most_one_response(port, name, monkeypatch):
    monkeypatch.setattr(module, "CONNECTION_TIMEOUT", 0.5)
    answer = await send_raw(port, REQUESTS[name])

    assert answer.count(b"HTTP/1.1 ") <= 1, "a smuggled request is not answered"
    assert b"secret" not in answer
    assert b"Traceback" not in answer
    assert (await get(port, "/livez"))[0] == 200


@pytest.mark.parametrize("value", ["x\r\nSet-Cookie: a=b", "../etc", "<script>", "%0d%0aX: y"])
async def test_no_response_echoes_the_request(port, value):
    """C64, C68: neither a header nor a body contains text of the request."""
    request = f"GET /{value} HTTP/1.1\r\nHost: {value}\r\nX-Forwarded-For: {value}\r\n\r\n"
    answer = await send_raw(port, request.encode())

    assert b"Set-Cookie" not in answer
    assert b"<script>" not in answer


async def test_a_slow_request_is_closed_and_delays_no_other(port, monkeypatch):
    """C56: slowloris, one byte at a time."""
    monkeypatch.setattr(module, "CONNECTION_TIMEOUT", 0.3)

    async def drip():
        async with connected(port) as (reader, writer):
            with suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(b"X")
                    await writer.drain()
                    assert (await get(port, "/livez"))[0] == 200
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.01):
                            await reader.read(1)

    async with asyncio.timeout(20):
        await drip()


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_endless_body_is_not_buffered(port, monkeypatch, chunked):
    """C56: 200 MB are offered; the connection is closed after its timeout."""
    monkeypatch.setattr(module, "CONNECTION_TIMEOUT", 0.5)
    head = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 200000000"
    part = b"ffff\r\n" + b"x" * 65_535 + b"\r\n" if chunked else b"x" * 65_536
    tracemalloc.start()
    try:
        async with connected(port) as (_, writer):
            writer.write(POST + head + b"\r\n\r\n")
            with suppress(ConnectionError):
                for _ in range(3000):
                    writer.write(part)
                    await writer.drain()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 20_000_000
    assert (await get(port, "/livez"))[0] == 200


async def test_a_thousand_connections_do_not_stop_it(port, monkeypatch):
    """Connections beyond `CONNECTIONS_MAX` are closed, the others time out."""
    monkeypatch.setattr(module, "CONNECTION_TIMEOUT", 1.0)
    async with AsyncExitStack() as crowd:
        for _ in range(1000):
            with suppress(ConnectionError):
                await crowd.enter_async_context(connected(port))
        async with asyncio.timeout(20):
            while await send_raw(port, START + b"\r\n") == b"":
                pass
    assert (await get(port, "/livez"))[0] == 200
