"""
A read model of the engine: a projection of the journals that is one statement for each batch.

The statement reads the rows of the journal in a range of positions, and adds what it finds to one
table. Python never sees an event, because decoding each one would cost about as much as running its
saga. A row of the journal belongs to a range if its first position does: it was committed as a
whole, so the range that ends in the middle of it can have all of it.

Every lookup by a run is a subquery in the list of columns, which PostgreSQL executes with the index
of the run. As a join it could be planned as a scan of all runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from saga_engine.events.projections.projection_key import ENGINE_PREFIX
from saga_engine.postgres.statement import Statement, text


@dataclass(frozen=True, slots=True)
class ReadModel:
    """
    One read model.

    Args:
        name: of its projection, as `saga-engine projections list` shows it.
        version: of what the statement computes.
        table: its table, which nothing else writes.
        statement: adds the rows of the journal after `:after`, up to `:until`, to the table.
    """

    name: str
    version: int
    table: str
    statement: Statement

    @classmethod
    def of_table(cls, table: str, sql: str) -> "ReadModel":
        """Make version 1 of the read model with a table, in the schema of the engine."""
        return cls(ENGINE_PREFIX + table.replace("_", "-"), 1, table, text(sql))


def events_in_range(types: Iterable[str]) -> str:
    """Return SQL that selects the events of some types, with their run, time and place."""
    names = ", ".join(f"'{each}'" for each in types)
    return f"""
        SELECT j.run_id, j.recorded_at, j.position, e.place,
            e.event->>'type' AS type, e.event->'data' AS data
        FROM saga_engine.journal AS j,
            LATERAL jsonb_array_elements(j.events) WITH ORDINALITY AS e(event, place)
        WHERE j.position > CAST(:after AS bigint) AND j.position <= CAST(:until AS bigint)
            AND e.event->>'type' IN ({names})"""  # noqa: S608 - constants


def saga_of(row: str) -> str:
    """Return SQL for the saga of a run: a subquery with the run id of *row*."""
    return f"""(
        SELECT (SELECT d.name FROM saga_engine.definition AS d WHERE d.id = r.definition_id)
        FROM saga_engine.run AS r WHERE r.run_id = {row}.run_id)"""  # noqa: S608 - a constant
