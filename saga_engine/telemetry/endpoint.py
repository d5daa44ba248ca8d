"""
The HTTP port of a process: /livez, /readyz, /startupz and /metrics, for probes and Prometheus.

It runs inside the engine's event loop, takes no signals and reads no bodies. Strangers may reach
it: every connection has one answer and a short life, requests are small, and nothing that is asked
can stop the process. However often it is asked, there is one check at a time, and within `fresh`
seconds no second check and no second text of the metrics: what is known is answered again. It knows
neither what is checked nor how metrics are written.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from types import TracebackType
from typing import Any, Self, TypeAlias

import orjson
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from saga_engine.environment import PREFIX
from saga_engine.errors import ConfigurationError
from saga_engine.telemetry.events import described
from saga_engine.telemetry.redaction import one_line, redacted

Readiness: TypeAlias = Callable[[], Awaitable[Mapping[str, str | None]]]
"""Each thing a process needs, by name, and what is wrong with it; None: nothing."""

Render: TypeAlias = Callable[[str], tuple[bytes, str]]
"""From an Accept header to the metrics and their content type."""

CONNECTION_LIFE = 15.0
"""Seconds; Prometheus gives up a scrape after 10, so nobody waits for what comes later."""
CONNECTIONS_MAX = 200
"""
Beyond that the oldest is cut, so that strangers cannot take the files the engine needs, and probes,
which take a moment, have their answer all the same: with Prometheus they use ten.
"""
READINESS_TIMEOUT = 3.0
"""Seconds until a check that does not answer is an answer: not ready."""
REQUEST_BYTES_MAX = 16_384
"""Bytes of request line and headers."""

_PATHS = ("/livez", "/readyz", "/startupz", "/metrics")
_JSON = "application/json"
_OPENMETRICS = "application/openmetrics-text"


class Endpoint:
    """
    Serves while entered; `port` is the one it listens on.

    Args:
        host: an address of this machine.
        port: 0 takes a free one.
        readiness: asked for /readyz and /startupz, never twice at the same time.
        render: called for /metrics.
        fresh: seconds for which the answer of either is given again.

    Raises:
        ConfigurationError: on entering, when it cannot listen there.
    """

    def __init__(
        self, host: str, port: int, readiness: Readiness, render: Render, *, fresh: float = 0.0
    ) -> None:
        self.port = port
        self._host = host
        self._readiness = readiness
        self._render = render
        self._fresh = fresh
        self._check: asyncio.Task[dict[str, str | None]] | None = None
        self._checked_at = 0.0
        self._rendered: dict[str, tuple[float, tuple[bytes, str]]] = {}
        self._started = False
        self._group = asyncio.TaskGroup()
        self._server: _Server

    async def __aenter__(self) -> Self:
        listening = _listen(self._host, self.port)
        self.port = listening.getsockname()[1]
        self._server = _Server(_config(self._answer))
        await self._group.__aenter__()
        self._group.create_task(self._server.serve([listening]))
        await self._server.listening.wait()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        if self._check:
            self._check.cancel()
        # The group is not told of the error: it would cut the answers and wrap it.
        await self._group.__aexit__(None, None, None)

    async def _answer(self, scope: Any, _receive: Any, send: Any) -> None:
        if scope["method"] in ("GET", "HEAD"):
            status, body, kind = await self._page(scope)
        else:
            status, body, kind = 405, _document(error="Only GET and HEAD."), _JSON
        headers = {
            "content-type": kind,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "connection": "close",
            "allow": "GET, HEAD",
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _page(self, scope: Any) -> tuple[int, bytes, str]:
        match scope["path"]:
            case "/livez":
                # Only a loop that turns gives this answer; asking more of it would have a process
                # restarted for the broker's sake.
                return 200, _document(status="ok"), _JSON
            case "/readyz":
                return await self._ready(verbose=b"verbose" in scope["query_string"])
            case "/startupz":
                if self._started:
                    return 200, _document(status="ok"), _JSON
                return await self._ready(verbose=False)
            case "/metrics":
                accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
                return 200, *self._metrics(_OPENMETRICS if _OPENMETRICS in accept else "")
            case _:
                return 404, _document(error="Not here.", paths=_PATHS), _JSON

    async def _ready(self, *, verbose: bool) -> tuple[int, bytes, str]:
        checks = await self._checked()
        problems = {name: problem for name, problem in checks.items() if problem is not None}
        self._started = self._started or not problems
        shown: dict[str, object] = {"status": "unavailable" if problems else "ok"}
        if verbose:
            shown["checks"] = {name: problem or "ok" for name, problem in checks.items()}
        elif problems:
            shown["problems"] = problems
        return 503 if problems else 200, _document(**shown), _JSON

    def _metrics(self, accept: str) -> tuple[bytes, str]:
        now = asyncio.get_running_loop().time()
        at, rendered = self._rendered.get(accept, (float("-inf"), (b"", "")))
        if now - at >= self._fresh:
            rendered = self._render(accept)
            self._rendered[accept] = (now, rendered)
        return rendered

    async def _checked(self) -> dict[str, str | None]:
        """The checks that are under way or fresh, else new ones."""
        age = asyncio.get_running_loop().time() - self._checked_at
        if self._check is None or (self._check.done() and age >= self._fresh):
            self._check = self._group.create_task(self._checks())
        return await asyncio.shield(self._check)

    async def _checks(self) -> dict[str, str | None]:
        try:
            return await self._asked()
        finally:
            self._checked_at = asyncio.get_running_loop().time()

    async def _asked(self) -> dict[str, str | None]:
        try:
            async with asyncio.timeout(READINESS_TIMEOUT):
                found = await self._readiness()
        except TimeoutError:
            return {"readiness": f"no answer within {READINESS_TIMEOUT:g} s"}
        except Exception as error:  # noqa: BLE001 - a check that breaks is an answer as well
            return {"readiness": _shown(described(error))}
        return {name: problem and _shown(problem) for name, problem in found.items()}


class _Server(uvicorn.Server):
    """uvicorn, except that signals belong to the program, and that it says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class _Connection(H11Protocol):
    """One of few, closed after its time whatever drips in: uvicorn waits for headers for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.opened_at = self.loop.time()
        if len(self.connections) > CONNECTIONS_MAX:
            min(self.connections, key=attrgetter("opened_at")).transport.abort()
        self.loop.call_later(CONNECTION_LIFE, transport.abort)


def _config(answer: Any) -> uvicorn.Config:
    return uvicorn.Config(
        answer,
        http=_Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=REQUEST_BYTES_MAX,
        timeout_graceful_shutdown=1,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {why.lower()}."
            f" Set {PREFIX}HTTP_PORT (--port) to a free port, or to 0 to have one chosen, and"
            f" {PREFIX}HTTP_HOST (--host) to an address of this machine."
        ) from None


def _shown(problem: str) -> str:
    return one_line(redacted(problem), longest=300)


def _document(**content: object) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
