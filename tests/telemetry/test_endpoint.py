"""The HTTP port answers probes and Prometheus, and no client can make it do anything else."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from saga_engine.errors import ConfigurationError, StoreUnavailable
from saga_engine.telemetry import endpoint as module
from saga_engine.telemetry.endpoint import MonitoringServer
from tests.kit.http import HOST, ProcessStub, connected, get, render_metrics, send_raw


@pytest.fixture
def process() -> ProcessStub:
    return ProcessStub()


@pytest.fixture
async def port(process: ProcessStub) -> AsyncIterator[int]:
    async with (
        asyncio.timeout(30),
        MonitoringServer(HOST, 0, process.readiness, render_metrics) as endpoint,
    ):
        yield endpoint.port


async def test_a_process_without_problems_is_ready(port):
    status, headers, body = await get(port, "/readyz")

    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"


async def test_a_process_with_a_problem_is_not_ready(port, process):
    process.checks["publishing"] = "cannot reach amqp://user:canary@host\nforged"

    status, _, body = await get(port, "/readyz")

    assert status == 503
    assert json.loads(body) == {
        "status": "unavailable",
        "problems": {"publishing": "cannot reach amqp://user:***@host\\nforged"},
    }


async def test_verbose_readiness_lists_every_check(port, process):
    process.checks["publishing"] = "blocked"

    status, _, body = await get(port, "/readyz?verbose")

    assert status == 503
    assert json.loads(body)["checks"] == {"database": "ok", "publishing": "blocked"}


@pytest.mark.parametrize(
    "error", [StoreUnavailable("PostgreSQL is unavailable."), KeyError("canary")]
)
async def test_a_check_that_raises_is_reported_without_foreign_text(port, process, error):
    process.error = error

    status, _, body = await get(port, "/readyz")

    assert status == 503
    assert type(error).__name__ in json.loads(body)["problems"]["readiness"]
    assert b"canary" not in body


async def test_a_check_that_hangs_is_called_once_and_reported(port, process, monkeypatch):
    monkeypatch.setattr(module, "READINESS_TIMEOUT", 0.05)
    process.hold = asyncio.Event()

    async with asyncio.TaskGroup() as group:
        requests = [group.create_task(get(port, "/readyz")) for _ in range(10)]

    assert {task.result()[0] for task in requests} == {503}
    assert process.max_concurrent_requests == 1


FLOOD = 150
LONG = 3600.0


async def test_concurrent_probes_share_one_check(process):
    """The check takes a while: 150 checks one after the other would take too long."""
    process.hold = asyncio.Event()
    async with (
        asyncio.timeout(60),
        MonitoringServer(HOST, 0, process.readiness, render_metrics, cache_ttl=LONG) as endpoint,
        asyncio.TaskGroup() as group,
    ):
        paths = ["/readyz", "/readyz?verbose", "/startupz"] * (FLOOD // 3)
        requests = [group.create_task(get(endpoint.port, path)) for path in paths]
        await process.readiness_requested.wait()
        process.hold.set()
    assert {task.result()[0] for task in requests} == {200}
    assert process.request_count == 1


async def test_results_are_cached_for_the_ttl(process):
    renders = []

    async def render(accept):
        renders.append(accept)
        return b"%d" % len(renders), "text/plain"

    async with MonitoringServer(HOST, 0, process.readiness, render, cache_ttl=LONG) as endpoint:
        accepts = ["", "*/*", "text/plain", "application/openmetrics-text;version=1.0.0"]
        for number in range(20):
            header = f"Accept: {accepts[number % 4]}, x/{number}\r\n"
            assert (await get(endpoint.port, "/metrics", header=header))[0] == 200
            assert (await get(endpoint.port, "/readyz"))[0] == 200
    assert len(renders) == 2, "one for each format"
    assert process.request_count == 1


async def test_liveness_calls_no_check(port, process):
    process.hold = asyncio.Event()

    assert (await get(port, "/livez"))[0] == 200


async def test_a_problem_of_a_liveness_check_is_named(process):
    async def check_liveness():
        return {"process 1": None, "process 2": "it does not answer"}

    server = MonitoringServer(
        HOST, 0, process.readiness, render_metrics, check_liveness=check_liveness
    )
    async with server as endpoint:
        status, _, body = await get(endpoint.port, "/livez")

    assert status == 503
    assert json.loads(body)["problems"] == {"process 2": "it does not answer"}


async def test_startup_stays_complete_after_the_first_success(port, process):
    process.checks["database"] = "unavailable"
    before = (await get(port, "/startupz"))[0]
    process.checks["database"] = None
    now = (await get(port, "/startupz"))[0]
    process.checks["database"] = "unavailable"
    assert (await get(port, "/readyz"))[0] == 503
    after = (await get(port, "/startupz"))[0]

    assert (before, now, after) == (503, 200, 200)


async def test_metrics_are_served_as_text_or_openmetrics(port):
    _, plain, text = await get(port, "/metrics")
    _, modern, openmetrics = await get(
        port, "/metrics", header="Accept: application/openmetrics-text;version=1.0.0\r\n"
    )

    assert plain["content-type"].startswith("text/plain; version=0.0.4")
    assert b"\n# TYPE saga_process_ready gauge\n" in text
    assert modern["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.endswith(b"# EOF\n")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/metrics"])
async def test_head_has_the_headers_of_get_and_no_body(port, path):
    status, headers, body = await get(port, path, method="HEAD")

    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
async def test_other_methods_are_rejected(port, method):
    status, headers, _ = await get(port, "/metrics", method=method)

    assert (status, headers["allow"]) == (405, "get, head")


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "/..%2f..%2fetc/passwd", "/%00", "//", "/LIVEZ"]
)
async def test_other_paths_are_not_found(port, path):
    assert (await get(port, path))[0] == 404


async def test_a_connection_serves_one_request(port):
    twice = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2

    assert (await send_raw(port, twice)).count(b"HTTP/1.1 200") == 1


async def test_an_endless_request_is_cut_after_the_timeout(port, monkeypatch):
    monkeypatch.setattr(module, "CONNECTION_TIMEOUT", 0.05)

    async with asyncio.timeout(60):
        assert await send_raw(port, b"GET /livez HTTP/1.1\r\nX: ") == b""


async def test_the_oldest_connection_is_cut_above_the_limit(port, monkeypatch):
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 3)
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

    async with connected(port) as (oldest, _), connected(port), connected(port) as (reader, writer):
        assert (await send_raw(port, request)).startswith(b"HTTP/1.1 200")
        with suppress(ConnectionError):
            assert await oldest.read() == b""
        writer.write(request)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_shutdown_does_not_wait_for_clients(process, monkeypatch):
    monkeypatch.setattr(module, "READINESS_TIMEOUT", 600)
    endpoint = MonitoringServer(HOST, 0, process.readiness, render_metrics)
    process.hold = asyncio.Event()
    async with asyncio.timeout(60), AsyncExitStack() as clients, endpoint:
        await clients.enter_async_context(connected(endpoint.port))
        _, asking = await clients.enter_async_context(connected(endpoint.port))
        asking.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        await process.readiness_requested.wait()


async def test_the_port_is_free_after_shutdown(process):
    async with MonitoringServer(HOST, 0, process.readiness, render_metrics) as endpoint:
        port = endpoint.port

    async with MonitoringServer(HOST, port, process.readiness, render_metrics) as again:
        assert again.port == port


async def test_an_error_in_the_body_is_not_wrapped(process):
    with pytest.raises(StoreUnavailable):
        async with MonitoringServer(HOST, 0, process.readiness, render_metrics):
            raise StoreUnavailable("PostgreSQL is unavailable.")


async def test_the_server_leaves_signal_handlers_of_the_program_alone(port):
    received = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, received.set)
    try:
        assert (await get(port, "/livez"))[0] == 200
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(60):
            await received.wait()
        assert (await get(port, "/livez"))[0] == 200
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_the_server_installs_no_signal_handler(process):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with MonitoringServer(HOST, 0, process.readiness, render_metrics):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_port_in_use_is_reported_with_the_setting(port, process):
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_HTTP_PORT") as raised:
        async with MonitoringServer(HOST, port, process.readiness, render_metrics):
            pass

    assert f"port {port}: address already in use." in str(raised.value)


async def test_a_foreign_address_is_reported_with_the_setting(process):
    foreign_address = "203.0.113.7"  # RFC 5737: reserved for documentation
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_HTTP_HOST"):
        async with MonitoringServer(foreign_address, 0, process.readiness, render_metrics):
            pass
