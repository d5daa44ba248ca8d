"""
Run the saga-engine of the current directory, and count its PostgreSQL statements on request.

`benchmarks.compare` runs this file in another checkout, so it imports nothing of the engine. If
STATEMENTS_REPORT is set, it writes one JSON object to that file when it exits: the numbers of
commits, statements and round trips, and the latter two per transaction.
"""

import atexit
import json
import os
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

COUNTERS: Counter[str] = Counter()
EXECUTE_METHOD = "_PreparedStatement__do_execute"
"""The method of asyncpg that executes every prepared statement."""


def install_counters() -> None:
    """Count the calls of the driver that wait for an answer of PostgreSQL."""
    from asyncpg.connection import Connection  # noqa: PLC0415 - only on request
    from asyncpg.prepared_stmt import PreparedStatement  # noqa: PLC0415 - the same

    execute, fetch = Connection.execute, getattr(PreparedStatement, EXECUTE_METHOD)

    async def counting_execute(self: Any, query: str, *arguments: Any, **options: Any) -> Any:
        COUNTERS["round_trips"] += 1
        COUNTERS["commits"] += query.startswith("COMMIT")
        return await execute(self, query, *arguments, **options)

    async def counting_fetch(self: Any, *arguments: Any, **options: Any) -> Any:
        COUNTERS["round_trips"] += 1
        COUNTERS["statements"] += 1
        return await fetch(self, *arguments, **options)

    Connection.execute = counting_execute
    setattr(PreparedStatement, EXECUTE_METHOD, counting_fetch)
    atexit.register(write_report)


def write_report() -> None:
    """Write the counts to the report."""
    committed = COUNTERS["commits"] or 1
    figures = {
        **COUNTERS,
        "statements_per_transaction": round(COUNTERS["statements"] / committed, 2),
        "round_trips_per_transaction": round(COUNTERS["round_trips"] / committed, 2),
    }
    Path(os.environ["STATEMENTS_REPORT"]).write_text(json.dumps(figures))


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as `python -m` has it
    sys.argv[0] = "saga-engine"
    if os.environ.get("STATEMENTS_REPORT"):
        install_counters()
    runpy.run_module("saga_engine", run_name="__main__")
