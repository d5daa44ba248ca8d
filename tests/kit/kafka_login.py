"""A login and TLS before a Kafka server that has neither."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.kit.kafka import KafkaServer

_AUTHENTICATE = 36  # the key of SaslAuthenticate requests
_AUTHENTICATION_FAILED = 58
_PROBLEM = b"Invalid username or password"


class KafkaLogin:
    """
    Forwards the connections of one user to a server; `servers` leads through it.

    It checks what SASL/PLAIN sends, and forwards everything else. With *tls*, connections are
    encrypted, and its certificate is for `localhost`.
    """

    def __init__(
        self, server: KafkaServer, user: str, password: str, tls: ssl.SSLContext | None = None
    ) -> None:
        self._server = server
        self._login = f"\0{user}\0{password}".encode()
        self._tls = tls
        self._port = 0

    @property
    def servers(self) -> str:
        """What clients connect to."""
        return f"localhost:{self._port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["KafkaLogin"]:
        """Accept connections while the block runs."""
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self._port = listening.sockets[0].getsockname()[1]
        self._addressed = self._server.addressed(f"tcp://localhost:{self._port}", b"localhost")
        async with listening:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._server.servers.partition(":")
        from_server, to_server = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as tasks:
                answers = tasks.create_task(self._forward_answers(from_server, writer))
                await self._forward_requests(reader, to_server, writer)
                answers.cancel()
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            to_server.close()

    async def _forward_requests(
        self,
        reader: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> None:
        while True:
            request = await _read_frame(reader)
            key, version, correlation_id = struct.unpack_from(">hhi", request)
            if key == _AUTHENTICATE and self._login not in request:
                await _write_frame(writer, _refusal(correlation_id, version))
                return
            await _write_frame(to_server, request)

    async def _forward_answers(
        self, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            await _write_frame(writer, self._addressed(await _read_frame(from_server)))


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


async def _write_frame(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)
    await writer.drain()


def _refusal(correlation_id: int, version: int) -> bytes:
    """Write the answer to SaslAuthenticate, version 0 or 1."""
    error = struct.pack(">ihh", correlation_id, _AUTHENTICATION_FAILED, len(_PROBLEM)) + _PROBLEM
    return error + struct.pack(">i", 0) + (struct.pack(">q", 0) if version else b"")
