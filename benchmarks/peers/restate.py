"""
Restate with TypeScript handlers: one server, one process with the handlers, and the load.

The load keeps connections to the ingress (HTTP/1.1, keep-alive), each with one invocation at a
time that returns when the saga has ended. The server has one partition and syncs its log to disk,
as it does by default: the best of the configurations that were tried on two cores.
"""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple, Self

from benchmarks.cpu_meter import CpuMeter
from benchmarks.load_generator import ROLLBACK, SUCCESS, Measurement, Workload
from benchmarks.peers.installation import INSTALL_COMMAND, restate_installation
from saga_engine.embedded.server_process import ServerProcess, free_port
from saga_engine.identifiers import uuid7

MAX_CONNECTIONS = 200
"""More only wait in the server."""

WARMUP_RUNS = 300
_START_SECONDS, _STOP_SECONDS, _POLL_SECONDS = 60.0, 10.0, 0.2
_RESULTS: Mapping[Workload, tuple[str, list[str]]] = {
    SUCCESS: ("completed", ["reserve", "charge", "confirm"]),
    ROLLBACK: ("compensated", ["reserve", "charge", "refund", "release"]),
}
"""The status and the trail that an invocation must return; a rejected step leaves no trail."""


class _Result(NamedTuple):
    latency_ms: float
    status: str
    trail: list[str]


class RestateSide:
    """Restate, as a side of a measurement."""

    def __init__(self, ingress_port: int, meter: CpuMeter) -> None:
        self._ingress_port = ingress_port
        self._meter = meter
        self._connections: list[_Connection] = []

    async def measure(
        self, runs: int, *, max_in_flight: int, workload: Workload = SUCCESS
    ) -> Measurement:
        """Perform *runs* runs, over at most *max_in_flight* connections."""
        connections = min(max_in_flight, MAX_CONNECTIONS)
        while len(self._connections) < connections:
            self._connections.append(await _Connection.open(self._ingress_port))
        remaining: Iterator[None] = repeat(None, runs)
        results: list[_Result] = []
        self._meter.start()
        started_at = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for each in self._connections[:connections]:
                group.create_task(each.perform(remaining, workload, results))
        measured = Measurement(
            runs=runs,
            seconds=time.perf_counter() - started_at,
            latencies=[each.latency_ms for each in results],
        )
        self._meter.stop(measured)
        _check(runs, workload, results)
        return measured

    def close(self) -> None:
        """Close all connections."""
        for each in self._connections:
            each.close()


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def perform(
        self, remaining: Iterator[None], workload: Workload, results: "list[_Result]"
    ) -> None:
        """Perform one run after the other while there are some."""
        for _ in remaining:
            started_at = time.perf_counter()
            result = await self._invoke(json.dumps(workload.order(uuid7())).encode())
            latency_ms = (time.perf_counter() - started_at) * 1000
            results.append(_Result(latency_ms, result["status"], result["trail"]))

    async def _invoke(self, body: bytes) -> dict[str, Any]:
        self._writer.write(
            b"POST /PlaceOrder/run HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise ConnectionError(f"Restate answered {head.decode()}")
        result: dict[str, Any] = json.loads(await self._read_body(head))
        return result

    async def _read_body(self, head: bytes) -> bytes:
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            return await self._reader.readexactly(length)
        body = b""
        while length := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(length + 2))[:-2]
        await self._reader.readexactly(2)
        return body

    def close(self) -> None:
        self._writer.close()


def _check(runs: int, workload: Workload, results: Sequence[_Result]) -> None:
    wrong = [each for each in results if (each.status, each.trail) != _RESULTS[workload]]
    if wrong:
        raise SystemExit(f"A run of Restate ended with {wrong[0]}.")
    if len(results) != runs:
        raise SystemExit(f"Restate performed {len(results)} runs instead of {runs}.")


@asynccontextmanager
async def run_restate() -> AsyncIterator[RestateSide]:
    """Run the server and the handlers, and warm them up; their data is deleted at the end."""
    installed = restate_installation()
    if not installed.is_complete:
        raise SystemExit(f"Restate is not installed. Run `{INSTALL_COMMAND}`.")
    ingress, admin, node, handlers = (free_port() for _ in range(4))
    directory = Path(tempfile.mkdtemp(prefix="saga-restate-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server_process = await ServerProcess.start(
            (installed.server, "--node-name", "one", "--base-dir", str(directory / "data")),
            log_path=directory / "server.log",
            environment={**os.environ, **_server_environment(ingress, admin, node)},
        )
        stack.push_async_callback(server_process.stop, signal.SIGTERM, _STOP_SECONDS)
        handler_process = await ServerProcess.start(
            (installed.node, str(installed.handlers)),
            log_path=directory / "handlers.log",
            environment={**os.environ, "NODE_ENV": "production", "PORT": str(handlers)},
        )
        stack.push_async_callback(handler_process.stop, signal.SIGTERM, _STOP_SECONDS)
        await _register(admin, handlers)
        pids = {"restate": [server_process.pid], "handlers": [handler_process.pid]}
        side = RestateSide(ingress, CpuMeter(pids))
        stack.callback(side.close)
        await side.measure(WARMUP_RUNS, max_in_flight=MAX_CONNECTIONS)
        yield side


def _server_environment(ingress: int, admin: int, node: int) -> Mapping[str, str]:
    return {
        "RESTATE_CLUSTER_NAME": "benchmark",
        "RESTATE_DEFAULT_NUM_PARTITIONS": "1",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}/",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_DEFAULT_JOURNAL_RETENTION": "1d",
        "RESTATE_DISABLE_TELEMETRY": "1",
        "RESTATE_LOG_FILTER": "warn",
        "DO_NOT_TRACK": "1",
    }


async def _register(admin: int, handlers: int) -> None:
    """Register the handlers, as soon as both servers answer; keep journals for a day."""
    deployment = {"uri": f"http://127.0.0.1:{handlers}", "force": True}
    await _until_answered("POST", f"http://127.0.0.1:{admin}/deployments", deployment)
    service = f"http://127.0.0.1:{admin}/services/PlaceOrder"
    await _until_answered("PATCH", service, {"journal_retention": "1d"})


async def _until_answered(method: str, url: str, body: Mapping[str, object]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            await asyncio.to_thread(_request, method, url, json.dumps(body).encode())
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"Restate did not start: {url}: {error}") from None
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


def _request(method: str, url: str, body: bytes) -> None:
    headers = {"content-type": "application/json", "accept": "application/json"}
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - http
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
        answer.read()
