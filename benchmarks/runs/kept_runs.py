"""
The case `kept-runs`: throughput with a database that keeps many finished runs.

Some hundred real runs are performed, and copied by SQL until there are as many as wanted: every row
of every partitioned table of the engine that belongs to a run, with a new id of the same time, and
positions of the log below those of the real ones. So the copies are in the partitions and indexes
as runs that finished earlier are. Then the engine runs on that database and on an empty one, in
turns. Copies use at most half of the free disk.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import asyncpg

from benchmarks.figures import Report
from benchmarks.runs.sides import Segment, run_engine_side, runs_per_s, take_turns
from benchmarks.servers import SharedServers, connect

TEMPLATE_RUNS = 600
"""Real runs that are copied: those of a warm-up and some more, both ends included."""

COPIED_RUNS = 200_000
"""Copied in one transaction, so that a disk that fills is noticed early."""

MAX_POSITIONS = 100
"""Positions of the log for each copied run; a run has about ten events."""

STATEMENT_SECONDS = 3600

_PARTITIONED_TABLES = """
    SELECT c.relname AS name,
        (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
    FROM pg_class AS c
    WHERE c.relnamespace = 'saga_engine'::regnamespace AND c.relkind = 'p'
        AND EXISTS (SELECT FROM pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attname = 'run_id' AND NOT a.attisdropped)
    ORDER BY c.relname DESC"""

# The first 13 digits of an id are its time and version; the rest is random, with a valid variant.
_NEW_IDS = """
    CREATE TEMPORARY TABLE copied ON COMMIT DROP AS
    SELECT r.run_id AS old_id, (substr(r.run_id::text, 1, 15)
            || substr(gen_random_uuid()::text, 16, 3) || substr(gen_random_uuid()::text, 19))::uuid
            AS new_id
    FROM (SELECT run_id, row_number() OVER (ORDER BY run_id) AS number
            FROM saga_engine.run WHERE run_id = ANY ($1)) AS r,
        generate_series(1, $2::integer) AS copy
    ORDER BY r.number, copy"""

_FINISHED = "SELECT array_agg(run_id) FROM saga_engine.run WHERE finished_at IS NOT NULL"

_SIZE = """
    SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
    WHERE inhparent = ANY (SELECT oid FROM pg_class
        WHERE relnamespace = 'saga_engine'::regnamespace)"""


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: Sequence[str]

    def copy_statement(self, first_position: int) -> str:
        """Return the statement that copies the rows of runs in `copied`."""
        values = {name: f"t.{name}" for name in self.columns}
        values["run_id"] = "copied.new_id"
        if "position" in values:  # the order of positions is that of the ids
            values["position"] = f"{first_position} + row_number() OVER ()"
        names, selected = ", ".join(self.columns), ", ".join(values.values())
        return f"""
            INSERT INTO saga_engine.{self.name} ({names}) SELECT {selected}
            FROM copied JOIN saga_engine.{self.name} AS t ON t.run_id = copied.old_id"""  # noqa: S608


async def measure_kept_runs(
    servers: SharedServers, report: Report, *, runs: int, rounds: int, kept_runs: int
) -> None:
    """Measure the success path with *kept_runs* finished runs against an empty database."""
    async with servers.isolated_urls() as full_urls:
        async with run_engine_side(full_urls) as side:
            await side.measure(TEMPLATE_RUNS, max_in_flight=50)
        await servers.set_parameter("fsync", "off")  # the copies are not what is measured
        kept, gigabytes = await _keep(full_urls.database_url, kept_runs)
        await servers.set_parameter("fsync", "on")
        os.sync()
        async with (
            servers.isolated_urls() as empty_urls,
            run_engine_side(full_urls) as full,
            run_engine_side(empty_urls) as empty,
        ):
            segments = [
                Segment(name="empty", side=empty, runs=runs),
                Segment(name="kept", side=full, runs=runs),
            ]
            measured = await take_turns(segments, rounds)
    measured.print_to(report, "kept-runs")
    remark = f"{kept:,} runs, {gigabytes:.1f} GB"
    ratio = measured.ratio("kept", "empty", runs_per_s)
    report.add("kept-runs", "kept_runs", ratio, remark=remark)


async def _keep(database_url: str, wanted: int) -> tuple[int, float]:
    """Copy runs within half of the free disk; return how many there are, and their gigabytes."""
    free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    connection = await connect(database_url)
    try:
        copier = await RunCopier.open(connection, wanted)
        size = 0
        while copier.runs < wanted and size < free_bytes / 2:
            await copier.copy(min(COPIED_RUNS, wanted - copier.runs))
            size = await connection.fetchval(_SIZE)
            print(f"{copier.runs:,} runs, {size / 1e9:.1f} GB", file=sys.stderr, flush=True)
        await copier.tidy()
        return copier.runs, await connection.fetchval(_SIZE) / 1e9
    finally:
        await connection.close()


class RunCopier:
    """
    Copies the finished runs of a database, at most up to *wanted* runs.

    `runs` is how many runs there are.
    """

    def __init__(
        self,
        connection: asyncpg.Connection,
        tables: Sequence[_Table],
        templates: Sequence[object],
        wanted: int,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._templates = templates
        self._wanted = wanted
        self.runs = len(templates)

    @classmethod
    async def open(cls, connection: asyncpg.Connection, wanted: int) -> Self:
        """Read which tables there are, and which runs are copied."""
        rows = await connection.fetch(_PARTITIONED_TABLES)
        tables = [_Table(each["name"], each["columns"]) for each in rows]
        return cls(connection, tables, await connection.fetchval(_FINISHED), wanted)

    async def copy(self, runs: int) -> None:
        """
        Copy about *runs* runs, in one transaction.

        Raises:
            SystemExit: a table got fewer rows than runs.
        """
        copies = max(1, runs // len(self._templates))
        made = copies * len(self._templates)
        first_position = (self.runs - self._wanted - made) * MAX_POSITIONS
        async with self._connection.transaction():
            await self._connection.execute(
                _NEW_IDS, self._templates, copies, timeout=STATEMENT_SECONDS
            )
            await self._connection.execute("ANALYZE copied")
            for table in self._tables:
                statement = table.copy_statement(first_position)
                status = await self._connection.execute(statement, timeout=STATEMENT_SECONDS)
                if int(status.split()[-1]) < made:
                    raise SystemExit(f"Copying {made} runs: {table.name}: {status}")
        self.runs += made

    async def tidy(self) -> None:
        """Leave the tables as autovacuum leaves them, and nothing to write for a checkpoint."""
        for each in self._tables:
            statement = f"VACUUM (ANALYZE) saga_engine.{each.name}"
            await self._connection.execute(statement, timeout=STATEMENT_SECONDS)
        await self._connection.execute("CHECKPOINT", timeout=STATEMENT_SECONDS)
