"""
What only the database knows of the tables of projections, before their first event needs one.

That is whether they exist, and which names are names of one table: `orders` and `public.orders`
are, where the search_path leads to public.
"""

from collections.abc import Sequence

from saga_engine.errors import DefinitionError, SchemaMismatch
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_table import ProjectionRole, StoredProjection
from saga_engine.events.projections.shadow_tables import TableName, find_tables
from saga_engine.events.projections.table_shape import sql_name
from saga_engine.postgres.statement import Transaction, text


async def wait_for_turn(tx: Transaction) -> None:
    """
    Wait until no other process registers its projections; until the commit none begins.

    Two that begin at the same time would not see that they write the same table.
    """
    await tx.execute(_WAIT)


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


async def check_owners(
    tx: Transaction, projections: Sequence[Projection], stored: Sequence[StoredProjection]
) -> None:
    """
    Check that no other projection writes a table of *projections*.

    Args:
        tx: with the search_path of the projector.
        projections: of this process, registered.
        stored: all projections of the database.

    Raises:
        DefinitionError: another one does, of this process or of another.
    """
    declared = {each.name: each for each in projections}
    others = [
        (each.name, name)
        for each in stored
        if each.role is ProjectionRole.LIVE and each.name not in declared
        for name in each.tables
    ]
    own = [
        (each.name, TableName(table.schema, table.name))
        for each in projections
        for table in each.tables
    ]
    oids = await find_tables(tx, [name for _, name in [*others, *own]])
    owners = {oids[name]: (owner, name) for owner, name in others if name in oids}
    for projection, name in own:
        if name not in oids:
            continue
        owner, other_name = owners.setdefault(oids[name], (projection, name))
        if (owner, other_name) != (projection, name):
            raise DefinitionError(
                f"Projection {projection!r} writes table {_shown(name)}, which is the table"
                f" {_shown(other_name)} of projection {owner!r}.",
                location=declared[projection].source_location,
                fix="Give each projection tables of its own. If a projection no longer exists,"
                " delete its rows of saga_engine.projection.",
            )


def _shown(name: TableName) -> str:
    return ".".join(filter(None, name))


_WAIT = text("SELECT pg_advisory_xact_lock(hashtext('saga_engine.projection'))")

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
