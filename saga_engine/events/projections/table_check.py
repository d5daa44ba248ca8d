"""Whether the database has the tables of projections, before their first event needs one."""

from collections.abc import Sequence

from saga_engine.errors import SchemaMismatch
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.table_shape import sql_name
from saga_engine.postgres.statement import Transaction, text


async def check_tables(tx: Transaction, projections: Sequence[Projection]) -> None:
    """
    Check that each declared table and its columns exist.

    Raises:
        SchemaMismatch: one is missing.
    """
    declared = [
        (projection.name, table.fullname, sql_name(table), column.name)
        for projection in projections
        for table in projection.tables
        for column in table.columns
    ]
    names = [name for _, _, name, _ in declared]
    columns = [column for *_, column in declared]
    found = (await tx.execute(_FIND, {"table": names, "column": columns})).first()
    if found is None:
        return
    projection, table, *_ = next(each for each in declared if each[2] == found.table)
    missing = f"has no column {found.column}" if found.exists else "does not exist"
    raise SchemaMismatch(
        f"Table {table} of projection {projection!r} {missing} in the database. Create it as the"
        " projection declares it, in a schema of the search_path, then start again."
    )


_FIND = text(
    """
    SELECT d.name AS table, d.column_name AS column, to_regclass(d.name) IS NOT NULL AS exists
    FROM unnest(CAST(:table AS text[]), CAST(:column AS text[])) WITH ORDINALITY
        AS d(name, column_name, number)
    WHERE NOT EXISTS (
        SELECT FROM pg_attribute AS a
        WHERE a.attrelid = to_regclass(d.name) AND a.attname = d.column_name
            AND a.attnum > 0 AND NOT a.attisdropped)
    ORDER BY d.number LIMIT 1"""
)
