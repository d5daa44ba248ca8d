"""The load of Restate reads its answers, and refuses a run that ended otherwise."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from benchmarks.cpu_meter import CpuMeter
from benchmarks.load_generator import ROLLBACK, SUCCESS
from benchmarks.peers.restate import RestateSide

COMPLETED = {"status": "completed", "trail": ["reserve", "charge", "confirm"]}
COMPENSATED = {"status": "compensated", "trail": ["reserve", "charge", "refund", "release"]}


def with_length(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def in_chunks(body):
    parts = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:5], body[5:]))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"


@asynccontextmanager
async def ingress(answer):
    """A server that gives the same answer to each request; a side that uses it."""

    async def serve(reader, writer):
        while head := await read_head(reader):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            cards.append(json.loads(await reader.readexactly(length))["card"])
            writer.write(answer)
        writer.close()

    cards: list[str] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    side = RestateSide(server.sockets[0].getsockname()[1], CpuMeter({}))
    try:
        yield side, cards
    finally:
        side.close()
        server.close()
        await server.wait_closed()


async def read_head(reader):
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


@pytest.mark.parametrize("framing", [with_length, in_chunks])
async def test_each_run_is_one_invocation_whose_result_is_read(framing):
    async with ingress(framing(json.dumps(COMPLETED).encode())) as (side, cards):
        measured = await side.measure(7, max_in_flight=3, workload=SUCCESS)
    assert len(measured.latencies) == measured.runs == len(cards) == 7


@pytest.mark.parametrize(("result", "workload"), [(COMPENSATED, SUCCESS), (COMPLETED, ROLLBACK)])
async def test_a_run_that_ended_otherwise_ends_the_benchmark(result, workload):
    async with ingress(with_length(json.dumps(result).encode())) as (side, _):
        with pytest.raises(SystemExit, match="ended with"):
            await side.measure(1, max_in_flight=1, workload=workload)
