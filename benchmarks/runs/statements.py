"""
The case `statements`: round trips to PostgreSQL, statements and WAL.

A batch is a transaction of the worker that gets a transaction id, as each one does that writes.
Round trips are counted on the wire (`benchmarks.wire_counter`), so it does not matter how the
worker makes them. Transactions with the statements that an idle worker executes, its polls, do not
count. The participants use no database.

WAL is measured with full_page_writes off: full-page images depend on when the last checkpoint was.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from benchmarks.figures import Report, figure_of
from benchmarks.processes import ServerUrls
from benchmarks.runs.sides import IN_FLIGHT, EngineSide, run_engine_side
from benchmarks.servers import SharedServers, connect
from benchmarks.wire_counter import TransactionKind, WireCounts, counted

STEPS = 3
IDLE_SECONDS = 3.0
"""How long an idle worker is observed; its polls are ten a second."""

SETTLE_SECONDS = 0.5
"""After the last result the worker still acknowledges and deletes rows of the outbox."""

QUIET_DUTIES = {"SAGA_ENGINE_MAINTENANCE_INTERVAL": "3600"}
"""Its statements come once a minute, so they would be in some measurements and not in others."""

_TRANSACTION_IDS = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
_WAL_BYTES = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseCosts:
    """What a number of runs cost, without the polls of the worker."""

    runs: int
    batches: int
    round_trips: int
    statements: int
    wal_bytes: int

    @property
    def round_trips_per_batch(self) -> float:
        """Round trips of the worker for each batch."""
        return self.round_trips / self.batches

    @property
    def statements_per_batch(self) -> float:
        """Statements of the worker for each batch."""
        return self.statements / self.batches

    @property
    def wal_bytes_per_step(self) -> float:
        """Bytes of WAL for each step."""
        return self.wal_bytes / self.runs / STEPS


class DatabaseCostMeter:
    """Measures what runs of one side cost its worker's database."""

    def __init__(self, side: EngineSide, wire: WireCounts, connection: asyncpg.Connection) -> None:
        self._side = side
        self._wire = wire
        self._connection = connection
        self._polls: set[TransactionKind] = set()

    async def measure(self, runs: int, max_in_flight: int) -> DatabaseCosts:
        """Perform *runs* runs, and return what they cost."""
        await self._observe_polls()
        ids_before, wal_before = await self._server_counts()
        await self._side.measure(runs, max_in_flight=max_in_flight)
        await asyncio.sleep(SETTLE_SECONDS)
        ids_after, wal_after = await self._server_counts()
        kinds = {kind: each for kind, each in self._wire.take().items() if kind not in self._polls}
        return DatabaseCosts(
            runs=runs,
            batches=ids_after - ids_before,
            round_trips=sum(each.round_trips for each in kinds.values()),
            statements=sum(each.statements for each in kinds.values()),
            wal_bytes=wal_after - wal_before,
        )

    async def _observe_polls(self) -> None:
        self._wire.take()
        await asyncio.sleep(IDLE_SECONDS)
        self._polls |= set(self._wire.take())

    async def _server_counts(self) -> tuple[int, int]:
        """Read the next transaction id and the bytes of WAL; this uses neither."""
        transaction_id = await self._connection.fetchval(_TRANSACTION_IDS)
        return transaction_id, await self._connection.fetchval(_WAL_BYTES)


@asynccontextmanager
async def run_cost_meter(urls: ServerUrls) -> AsyncIterator[DatabaseCostMeter]:
    """Run a worker whose connections to PostgreSQL are counted, and participants."""
    async with AsyncExitStack() as stack:
        counted_url, wire = await stack.enter_async_context(counted(urls.database_url))
        environment = {**QUIET_DUTIES, "SAGA_ENGINE_DATABASE_URL": counted_url}
        engine = run_engine_side(urls, worker_environment=environment)
        side = await stack.enter_async_context(engine)
        connection = await connect(urls.database_url)
        stack.push_async_callback(connection.close)
        yield DatabaseCostMeter(side, wire, connection)


async def measure_statements(
    servers: SharedServers, report: Report, *, runs: int, rounds: int
) -> None:
    """Measure at full load, and one run at a time."""
    await servers.set_parameter("full_page_writes", "off")
    async with servers.isolated_urls() as urls, run_cost_meter(urls) as meter:
        at_full_load = [await meter.measure(runs, IN_FLIGHT) for _ in range(rounds)]
        one_at_a_time = await meter.measure(max(20, runs // 20), 1)
    await servers.set_parameter("full_page_writes", "on")
    for name, costs in (("full-load", at_full_load[-1]), ("one-at-a-time", one_at_a_time)):
        report.print(
            case="statements",
            segment=name,
            runs=costs.runs,
            batches_per_run=round(costs.batches / costs.runs, 2),
            statements_per_batch=round(costs.statements_per_batch, 2),
            round_trips_per_batch=round(costs.round_trips_per_batch, 2),
            round_trips_per_run=round(costs.round_trips / costs.runs, 2),
            wal_bytes_per_step=round(costs.wal_bytes_per_step),
        )
    round_trips = figure_of([each.round_trips_per_batch for each in at_full_load])
    report.add("statements", "round_trips", round_trips)
    wal_bytes = figure_of([each.wal_bytes_per_step for each in at_full_load])
    report.add("statements", "wal_bytes", wal_bytes)
