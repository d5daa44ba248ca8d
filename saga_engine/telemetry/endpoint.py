"""
The HTTP port of a process: /livez, /readyz, /startupz and /metrics, for probes and Prometheus.

It runs in the engine's event loop, installs no signal handlers and reads no request bodies. It may
be reachable by untrusted clients: each connection serves one small request and is closed after a
timeout, and no request can stop the process. Concurrent requests share one readiness check, and its
result and the rendered metrics are reused for `cache_ttl` seconds. The caller provides the check
and the rendering.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from operator import attrgetter
from typing import Any, TypeAlias

import orjson
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from saga_engine.environment import PREFIX
from saga_engine.errors import ConfigurationError
from saga_engine.lifecycle import AsyncResource
from saga_engine.telemetry.events import describe_error
from saga_engine.telemetry.redaction import redact_secrets, sanitize_line

ReadinessCheck: TypeAlias = Callable[[], Awaitable[Mapping[str, str | None]]]
"""Each dependency of a process, by name, and its problem; None: it has none."""

MetricsRenderer: TypeAlias = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From an Accept header to the metrics and their content type."""

CONNECTION_TIMEOUT = 15.0
"""Seconds after which a connection is closed; Prometheus gives up a scrape after 10."""
MAX_CONNECTIONS = 200
"""
Above this limit the oldest connection is cut. So clients cannot use up the file descriptors of the
engine, and probes, which take milliseconds, still get an answer. Probes and Prometheus use about
10.
"""
READINESS_TIMEOUT = 3.0
"""Seconds after which a check without a result counts as not ready."""
MAX_REQUEST_HEAD_BYTES = 16_384
"""Maximum size of request line and headers."""

_PATHS = ("/livez", "/readyz", "/startupz", "/metrics")
_JSON_TYPE = "application/json"
_OPENMETRICS_TYPE = "application/openmetrics-text"


class MonitoringServer(AsyncResource):
    """
    Serves while the context is entered; `port` is the port it listens on.

    Args:
        host: an address of this machine.
        port: 0 chooses a free one.
        check_readiness: called for /readyz and /startupz, never concurrently.
        render_metrics: called for /metrics.
        cache_ttl: seconds for which the result of either is reused.
        check_liveness: called for /livez; by default a running event loop is all that counts.

    Raises:
        ConfigurationError: on entering, if it cannot listen on this address and port.
    """

    def __init__(
        self,
        host: str,
        port: int,
        check_readiness: ReadinessCheck,
        render_metrics: MetricsRenderer,
        *,
        cache_ttl: float = 0.0,
        check_liveness: ReadinessCheck | None = None,
    ) -> None:
        self.port = port
        self._host = host
        self._check_readiness = check_readiness
        self._check_liveness = check_liveness
        self._render_metrics = render_metrics
        self._cache_ttl = cache_ttl
        self._check_task: asyncio.Task[dict[str, str | None]] | None = None
        self._checked_at = 0.0
        self._rendered_metrics: dict[str, tuple[float, tuple[bytes, str]]] = {}
        self._startup_complete = False
        self._tasks = asyncio.TaskGroup()

    async def _open(self, resources: AsyncExitStack) -> None:
        listener = _listening_socket(self._host, self.port)
        self.port = listener.getsockname()[1]
        server = _UvicornServer(_uvicorn_config(self._respond))
        await resources.enter_async_context(self._tasks)
        resources.callback(self._request_exit, server)
        self._tasks.create_task(server.serve([listener]))
        await server.listening.wait()

    def _request_exit(self, server: "_UvicornServer") -> None:
        server.should_exit = True
        if self._check_task:
            self._check_task.cancel()

    async def _respond(self, scope: Any, _receive: Any, send: Any) -> None:
        if scope["method"] in ("GET", "HEAD"):
            status, body, content_type = await self._route(scope)
        else:
            status, body, content_type = 405, _json_body(error="Only GET and HEAD."), _JSON_TYPE
        headers = {
            "content-type": content_type,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "connection": "close",
            "allow": "GET, HEAD",
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _route(self, scope: Any) -> tuple[int, bytes, str]:
        match scope["path"]:
            case "/livez":
                # A running event loop is all that counts: a check of the broker here would restart
                # processes during an outage of the broker.
                return await self._liveness_response()
            case "/readyz":
                return await self._readiness_response(verbose=b"verbose" in scope["query_string"])
            case "/startupz":
                if self._startup_complete:
                    return 200, _json_body(status="ok"), _JSON_TYPE
                return await self._readiness_response(verbose=False)
            case "/metrics":
                accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
                return 200, *await self._cached_metrics(
                    _OPENMETRICS_TYPE if _OPENMETRICS_TYPE in accept else ""
                )
            case _:
                return 404, _json_body(error="Not found.", paths=_PATHS), _JSON_TYPE

    async def _liveness_response(self) -> tuple[int, bytes, str]:
        checks = await self._check_liveness() if self._check_liveness else {}
        problems = {name: problem for name, problem in checks.items() if problem}
        if problems:
            return 503, _json_body(status="unavailable", problems=problems), _JSON_TYPE
        return 200, _json_body(status="ok"), _JSON_TYPE

    async def _readiness_response(self, *, verbose: bool) -> tuple[int, bytes, str]:
        checks = await self._cached_checks()
        problems = {name: problem for name, problem in checks.items() if problem is not None}
        self._startup_complete = self._startup_complete or not problems
        document: dict[str, object] = {"status": "unavailable" if problems else "ok"}
        if verbose:
            document["checks"] = {name: problem or "ok" for name, problem in checks.items()}
        elif problems:
            document["problems"] = problems
        return 503 if problems else 200, _json_body(**document), _JSON_TYPE

    async def _cached_metrics(self, accept: str) -> tuple[bytes, str]:
        now = asyncio.get_running_loop().time()
        rendered_at, rendered = self._rendered_metrics.get(accept, (float("-inf"), (b"", "")))
        if now - rendered_at >= self._cache_ttl:
            rendered = await self._render_metrics(accept)
            self._rendered_metrics[accept] = (now, rendered)
        return rendered

    async def _cached_checks(self) -> dict[str, str | None]:
        """The result of the running or a recent check, else of a new one."""
        age = asyncio.get_running_loop().time() - self._checked_at
        if self._check_task is None or (self._check_task.done() and age >= self._cache_ttl):
            self._check_task = self._tasks.create_task(self._run_checks())
        return await asyncio.shield(self._check_task)

    async def _run_checks(self) -> dict[str, str | None]:
        try:
            return await run_checks(self._check_readiness, READINESS_TIMEOUT)
        finally:
            self._checked_at = asyncio.get_running_loop().time()


async def run_checks(check_readiness: ReadinessCheck, seconds: float) -> dict[str, str | None]:
    """Check the readiness within a time; a check that fails or hangs is a result too."""
    try:
        async with asyncio.timeout(seconds):
            checks = await check_readiness()
    except TimeoutError:
        return {"readiness": f"no answer within {seconds:g} s"}
    except Exception as error:  # noqa: BLE001 - see above
        return {"readiness": _sanitized_problem(describe_error(error))}
    return {name: problem and _sanitized_problem(problem) for name, problem in checks.items()}


class _UvicornServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the program, and reports when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class _LimitedConnection(H11Protocol):
    """One of a limited number, closed after a timeout: uvicorn waits for headers without limit."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.opened_at = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            min(self.connections, key=attrgetter("opened_at")).transport.abort()
        self.loop.call_later(CONNECTION_TIMEOUT, transport.abort)


def _uvicorn_config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_LimitedConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_REQUEST_HEAD_BYTES,
        timeout_graceful_shutdown=1,
    )


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        reason = (
            os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
        )
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {reason.lower()}."
            f" Set {PREFIX}HTTP_PORT (--port) to a free port, or to 0 to have one chosen, and"
            f" {PREFIX}HTTP_HOST (--host) to an address of this machine."
        ) from None


def _sanitized_problem(problem: str) -> str:
    return sanitize_line(redact_secrets(problem), max_length=300)


def _json_body(**content: object) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
