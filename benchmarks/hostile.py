"""
The effect on normal runs of 1,000 of the most expensive valid messages in the request queue.

    python -m benchmarks.hostile [--kind objects] [--messages 1000]

Normal runs are started, then the expensive messages are published, then one more normal run is
started, which is queued behind them. Each kind prints one JSON line: the lag of the worker's event
loop, its memory, how long the normal runs took, and counters that should be 0.
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

from benchmarks.costly_messages import INPUT_KINDS, costly_input, start_body
from benchmarks.load_generator import LoadGenerator
from benchmarks.processes import ServerUrls, run_participants, run_process, start_servers
from saga_engine.identifiers import uuid7
from saga_engine.postgres.statement import text
from saga_engine.protocol.command import new_message_id
from saga_engine.protocol.message import Message
from saga_engine.protocol.topology import REQUESTS
from saga_engine.settings import Settings
from saga_engine.store.database import Database

NORMAL_RUNS, BATCH_SIZE = 20, 40
"""Normal runs in flight, and messages in one publish."""


async def measure(urls: ServerUrls, kind: str, messages: int) -> dict[str, object]:
    """Measure one kind."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report")
        async with (
            run_participants(urls, barrier=False),
            run_process(
                "-m", "benchmarks.instrumented_worker", str(report), environment=urls.environment
            ),
            LoadGenerator(urls) as load,
        ):
            await load.run(100, max_in_flight=20)
            await load.start_runs(NORMAL_RUNS)
            await _publish_messages(load, kind, messages)
            [last_run_id] = await load.start_runs(1)
            async with Database(urls.database_url, Settings()) as database:
                seconds = await _wait_seconds(load, [last_run_id], database, messages)
        with report.open() as written:  # noqa: ASYNC230 - the measurement is over
            return {"case": f"hostile-{kind}", **seconds, **json.load(written)}


async def _publish_messages(load: LoadGenerator, kind: str, messages: int) -> None:
    for first in range(0, messages, BATCH_SIZE):
        batch = [
            Message(
                exchange=REQUESTS,
                routing_key="start",
                body=start_body(str(uuid7()), kind),
                message_id=new_message_id(),
                type="start",
            )
            for _ in range(min(BATCH_SIZE, messages - first))
        ]
        await load.publish(batch)


async def _wait_seconds(
    load: LoadGenerator, last_run_ids: Sequence[UUID], database: Database, messages: int
) -> dict[str, float]:
    """
    Return the seconds until the normal runs, and the run queued behind the messages, have finished.

    `last_run_after_backlog_s` counts from when all messages before the last run were decided. They
    leave the queue earlier, one prefetch at a time.
    """
    started_at = now = time.perf_counter()
    figures, decided_at = {}, 0.0
    while load.started_at:
        with suppress(TimeoutError):
            await load.wait_for_results(0.05)
        now = time.perf_counter()
        decided_at = decided_at or (now if await _decided_starts(database) >= messages else 0.0)
        if "normal_runs_s" not in figures and not load.started_at.keys() - set(last_run_ids):
            figures["normal_runs_s"] = round(now - started_at, 2)
    figures["last_run_s"] = round(now - started_at, 2)
    figures["last_run_after_backlog_s"] = round(now - (decided_at or now), 2)
    return figures


async def _decided_starts(database: Database) -> int:
    """Return how many of the expensive starts are runs, or wait in PostgreSQL for a slot."""
    async with database.transaction() as tx:
        decided: int = (
            await tx.execute(_DECIDED_STARTS_SQL, {"saga": costly_input.name})
        ).scalar_one()
    return decided


_DECIDED_STARTS_SQL = text(
    """
    SELECT (SELECT count(*) FROM saga_engine.run AS r
            JOIN saga_engine.definition AS d ON d.id = r.definition_id WHERE d.name = :saga)
        + (SELECT count(*) FROM saga_engine.pending_request AS p
           WHERE p.kind = 'start' AND p.saga = :saga)"""
)


async def main() -> None:
    """Measure the kinds named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile")
    parser.add_argument("--kind", action="append", choices=list(INPUT_KINDS))
    parser.add_argument("--messages", type=int, default=1000)
    arguments = parser.parse_args()
    for kind in arguments.kind or INPUT_KINDS:
        async with start_servers() as urls:
            print(json.dumps(await measure(urls, kind, arguments.messages)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
