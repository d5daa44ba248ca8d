"""
What honest runs notice of 1,000 of the worst legal messages in the request queue.

    python -m benchmarks.hostile [--kind objects] [--messages 1000]

Honest runs begin, then the messages are sent, then another honest run is asked for, which has its
turn after them. One JSON line a kind: how late the worker's event loop came round, the memory it
took, how long the honest runs took, and what should be 0.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from benchmarks.flood import KINDS, body, bulk
from benchmarks.load import Load
from benchmarks.processes import Urls, participants, running, servers
from saga_engine.identifiers import uuid7
from saga_engine.postgres.statement import text
from saga_engine.protocol.command import fresh_message_id
from saga_engine.protocol.message import Message
from saga_engine.protocol.topology import REQUESTS
from saga_engine.settings import Settings
from saga_engine.store.database import Database

HONEST, PORTION = 20, 40
"""Honest runs under way, and messages in one write."""


async def measure(urls: Urls, kind: str, messages: int) -> dict[str, object]:
    """Measure one kind."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report")
        async with (
            participants(urls, barrier=False),
            running("-m", "benchmarks.probed", str(report), environment=urls.environment),
            Load(urls, card="ok", ends="completed") as load,
        ):
            await load.run(100, at_once=20)
            await load.start(HONEST)
            await _flood(load, kind, messages)
            [late] = await load.start(1)
            async with Database(urls.database, Settings()) as database:
                seconds = await _seconds(load, [late], database, messages)
        with report.open() as written:  # noqa: ASYNC230 - everything is over
            return {"case": f"hostile-{kind}", **seconds, **json.load(written)}


async def _flood(load: Load, kind: str, messages: int) -> None:
    for first in range(0, messages, PORTION):
        portion = [
            Message(REQUESTS, "start", body(str(uuid7()), kind), fresh_message_id(), "start")
            for _ in range(min(PORTION, messages - first))
        ]
        await load.publish(portion)


async def _seconds(
    load: Load, late: Sequence[UUID], database: Database, messages: int
) -> dict[str, float]:
    """
    Until the runs under way, and the one that came after the flood, have ended.

    That one has its turn when all messages before it are decided: taken from the queue they are
    sooner, a prefetch at a time.
    """
    begun = now = time.perf_counter()
    found, turn = {}, 0.0
    while load.begun:
        with suppress(TimeoutError):
            await load.end(0.05)
        now = time.perf_counter()
        turn = turn or (now if await _decided(database) >= messages else 0.0)
        if "honest_s" not in found and not load.begun.keys() - set(late):
            found["honest_s"] = round(now - begun, 2)
    found["late_s"] = round(now - begun, 2)
    found["late_after_its_turn_s"] = round(now - (turn or now), 2)
    return found


async def _decided(database: Database) -> int:
    """How many starts of the flood have begun, or wait for their place in PostgreSQL."""
    async with database.transaction() as tx:
        decided: int = (await tx.execute(_DECIDED, {"saga": bulk.name})).scalar_one()
    return decided


_DECIDED = text(
    """
    SELECT (SELECT count(*) FROM saga_engine.run AS r
            JOIN saga_engine.definition AS d ON d.id = r.definition_id WHERE d.name = :saga)
        + (SELECT count(*) FROM saga_engine.inbox AS i WHERE i.kind = 'start' AND i.saga = :saga)"""
)


async def main() -> None:
    """Measure the kinds that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile")
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--messages", type=int, default=1000)
    arguments = parser.parse_args()
    for kind in arguments.kind or KINDS:
        async with servers() as urls:
            print(json.dumps(await measure(urls, kind, arguments.messages)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
