"""
Counts the round trips between a process and PostgreSQL, on the wire.

`counted` listens on a Unix socket before a PostgreSQL and forwards all bytes. It reads only the
messages of the protocol (PostgreSQL manual, 55.7), so it counts the same with every client library.
A transaction is counted with the texts of its statements, so that those of batches can be counted
without those of polls. A statement outside a transaction block is a transaction.
"""

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

_CHUNK_BYTES = 2**16
_LENGTH_BYTES = 4
_STARTUP_CODE = 196_608  # protocol 3.0

_ASKING = b"QSFH"
"""A client waits for an answer after Query, Sync, FunctionCall and Flush."""

_EXECUTING = b"QEF"
"""Query, Execute and FunctionCall run a statement."""

_IDLE = b"I"
"""ReadyForQuery has it when the connection is in no transaction."""


@dataclass(slots=True)
class TransactionCounts:
    """How many transactions of a kind there were, and what they had, with BEGIN and COMMIT."""

    transactions: int = 0
    round_trips: int = 0
    statements: int = 0

    def __add__(self, other: "TransactionCounts") -> "TransactionCounts":
        return TransactionCounts(
            self.transactions + other.transactions,
            self.round_trips + other.round_trips,
            self.statements + other.statements,
        )


TransactionKind = tuple[str, ...]
"""The texts of the statements of a transaction, in order."""


@dataclass(slots=True)
class WireCounts:
    """The transactions of all connections, by their statements, until `take` is called."""

    by_kind: dict[TransactionKind, TransactionCounts] = field(
        default_factory=lambda: defaultdict(TransactionCounts)
    )

    def take(self) -> dict[TransactionKind, TransactionCounts]:
        """Return the counts since the last call."""
        taken = dict(self.by_kind)
        self.by_kind.clear()
        return taken


class _MessageReader:
    """Splits one direction of a connection into messages."""

    def __init__(self, *, has_startup: bool) -> None:
        self._buffer = bytearray()
        self._has_startup = has_startup

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the type and the body of each message that is complete now."""
        self._buffer += data
        position = 0
        while True:
            start = position + (0 if self._has_startup else 1)
            body = start + _LENGTH_BYTES
            end = start + int.from_bytes(self._buffer[start:body], "big")
            if body > len(self._buffer) or end > len(self._buffer):
                break
            content = bytes(self._buffer[body:end])
            if self._has_startup:
                _require_startup(content)
                self._has_startup = False
            else:
                yield self._buffer[position], content
            position = end
        del self._buffer[:position]


def _require_startup(content: bytes) -> None:
    if int.from_bytes(content[:4], "big") != _STARTUP_CODE:
        raise ValueError("Only connections without TLS are counted, and no cancel request.")


class Conversation:
    """
    One connection.

    A round trip begins with a request that the client sends while no answer is outstanding.
    Requests that are sent together are one round trip.
    """

    def __init__(self, counts: WireCounts) -> None:
        self._counts = counts
        self._from_client = _MessageReader(has_startup=True)
        self._from_server = _MessageReader(has_startup=False)
        self._outstanding = 1  # the answer to the startup message
        self._flushed = False
        self._prepared: dict[bytes, str] = {}
        self._texts: list[str] = []
        self._current = TransactionCounts(transactions=1)

    def client_sent(self, data: bytes) -> None:
        """Count what the client sent."""
        for kind, body in self._from_client.feed(data):
            if kind in _ASKING:
                self._current.round_trips += self._outstanding == 0 and not self._flushed
                self._flushed |= kind == ord("H")
                self._outstanding += kind != ord("H")
            self._current.statements += kind in _EXECUTING
            self._read_text(kind, body)

    def server_sent(self, data: bytes) -> None:
        """Count what the server answered."""
        for kind, body in self._from_server.feed(data):
            self._flushed = False
            if kind == ord("Z"):
                self._outstanding -= 1
                if body == _IDLE and self._outstanding == 0:
                    self._end_transaction()

    def _read_text(self, kind: int, body: bytes) -> None:
        match chr(kind):
            case "P":  # Parse: the name of the statement, and its text
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text.decode()
            case "B":  # Bind: the name of the portal, and that of the statement
                self._texts.append(self._prepared[body.split(b"\0", 2)[1]])
            case "Q":
                self._texts.append(body.rstrip(b"\0").decode())
            case _:
                pass  # no statement

    def _end_transaction(self) -> None:
        if self._current.round_trips:  # not the answer to the startup message
            kind = tuple(self._texts)
            self._counts.by_kind[kind] += self._current
        self._texts.clear()
        self._current = TransactionCounts(transactions=1)


@asynccontextmanager
async def counted(database_url: str) -> AsyncIterator[tuple[str, WireCounts]]:
    """Yield the URL of a database through the counter, and the counts, which rise."""
    parts = urlsplit(database_url)
    query = parse_qs(parts.query)
    socket_name = f".s.PGSQL.{query['port'][0]}"
    target = str(Path(query["host"][0], socket_name))
    counts = WireCounts()
    connections: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(task := asyncio.current_task())
        try:
            await _forward(target, reader, writer, Conversation(counts))
        finally:
            writer.close()
            connections.discard(task)

    with tempfile.TemporaryDirectory(prefix="saga-wire-", dir="/tmp") as directory:
        server = await asyncio.start_unix_server(serve, Path(directory, socket_name))
        own_query = f"host={quote(directory)}&port={query['port'][0]}"
        try:
            yield parts._replace(query=own_query).geturl(), counts
        finally:
            server.close()
            running = [each for each in connections if each]
            for each in running:
                each.cancel()
            await asyncio.wait(running) if running else None


async def _forward(
    target: str,
    client_reader: asyncio.StreamReader,
    client_writer: asyncio.StreamWriter,
    conversation: Conversation,
) -> None:
    server_reader, server_writer = await asyncio.open_unix_connection(target)

    async def to_server() -> None:
        while data := await client_reader.read(_CHUNK_BYTES):
            conversation.client_sent(data)
            server_writer.write(data)
        server_writer.close()

    async def to_client() -> None:
        while data := await server_reader.read(_CHUNK_BYTES):
            conversation.server_sent(data)
            client_writer.write(data)
        client_writer.close()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(to_server())
            group.create_task(to_client())
    except* ConnectionError:
        pass
    finally:
        server_writer.close()
