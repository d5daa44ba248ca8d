"""
The tables of a version that is not live: `<name>~<version>`, beside the live ones.

They are made from the declaration, so their columns may be others than those of the live tables.
Indexes and constraints that are declared with a name get the same suffix: an index's name is unique
in its schema. PostgreSQL derives the other names from that of the table.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Constraint, Index, MetaData, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql import quoted_name

from saga_engine.errors import Conflict
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_key import ProjectionKey
from saga_engine.events.projections.projection_version import ProjectionVersion
from saga_engine.postgres.sqlalchemy_errors import sqlstate_of
from saga_engine.postgres.statement import Rows, Transaction, text
from saga_engine.store.database import SqlAlchemyTransaction

MAX_NAME_BYTES = 63
"""Of a table or an index, in PostgreSQL."""

MAX_DECLARED_NAME_BYTES = MAX_NAME_BYTES - len("~99999")

BY_HAND = (
    "Stop the projectors, empty its tables, delete its rows of saga_engine.projection and start"
    " them again: the tables are filled from the first event."
)
"""What to do about a projection that cannot be rebuilt."""

_DEPENDENT_OBJECTS = "2BP01"


class TableName(NamedTuple):
    """A table as it is declared."""

    schema: str | None
    name: str


def suffix(version: int) -> str:
    """What is added to the names of a version that is not live."""
    return f"~{version}"


def shadow_copies(tables: Sequence[Table], version: int) -> Mapping[Table, Table]:
    """
    Copy the declarations of tables under the names of a version that is not live.

    Returns:
        The copy of each table. References between them lead to copies.
    """
    metadata = MetaData(naming_convention=tables[0].metadata.naming_convention if tables else None)
    copies = {each: each.to_metadata(metadata) for each in tables}
    for copy in copies.values():
        for key in copy.foreign_keys:
            if key.target_fullname in metadata.tables:
                _ = key.column  # resolved by name now, before the names change
    for copy in copies.values():
        for part in _parts(copy):
            if isinstance(part.name, str):
                part.name = quoted_name(f"{part.name}{suffix(version)}", None)
        copy.name = f"{copy.name}{suffix(version)}"
    return copies


def _parts(table: Table) -> Sequence[Constraint | Index]:
    """What may have a name of its own, next to that of the table."""
    return [*table.constraints, *table.indexes]


def rebuild_problem(projection: Projection) -> str | None:
    """Why a projection cannot be rebuilt beside its live tables, as a sentence; None: it can."""
    for handler in projection.handlers.values():
        if handler.is_sql:
            return (
                f"Its function {handler.call.function} executes SQL of its own, which names the"
                " live tables."
            )
    problems = (_table_problem(each, projection.tables) for each in projection.tables)
    return next(filter(None, problems), None)


def _table_problem(table: Table, tables: Sequence[Table]) -> str | None:
    options = table.dialect_options["postgresql"]
    if options.get("partition_by") or options.get("inherits"):
        return f"{table.fullname} is partitioned or inherits, and its partitions are not declared."
    part_names = [each.name for each in _parts(table) if isinstance(each.name, str)]
    for name in (table.name, *part_names):
        if len(name.encode()) > MAX_DECLARED_NAME_BYTES:
            return (
                f"The name {name!r} is too long: {MAX_DECLARED_NAME_BYTES} bytes leave room for the"
                " version."
            )
    own = {each.fullname for each in tables}
    for key in table.foreign_keys:
        target = key.target_fullname.rpartition(".")[0]
        if target not in own:
            return f"{table.fullname} refers to {target}, which is not one of its tables."
    return None


async def create_missing(
    tx: SqlAlchemyTransaction, projection: ProjectionVersion, copies: Mapping[Table, Table]
) -> None:
    """Create the tables of a rebuild that has none yet; they get the owners of the live ones."""
    key = _key(projection)
    if (await tx.execute(_LOCK_MISSING, key)).first() is None:
        return
    for copy in copies.values():
        await tx.execute(CreateTable(copy))
        for index in copy.indexes:
            await tx.execute(CreateIndex(index))
    names = [TableName(each.schema, each.name) for each in copies]
    live = await find_tables(tx, names)
    shadows = await find_tables(tx, names, suffix(projection.version))
    pairs = [(shadows[name], live[name]) for name in names if name in live]
    parameters = {"shadows": [each for each, _ in pairs], "live": [each for _, each in pairs]}
    await execute_each(tx, await tx.execute(_GIVE_OWNER, parameters))
    await tx.execute(_CREATED, key)


async def drop(
    tx: SqlAlchemyTransaction, projection: ProjectionKey, names: Sequence[TableName]
) -> None:
    """
    Drop the tables of a version that is not live, as far as they exist.

    Raises:
        Conflict: views or other objects depend on them.
    """
    found = await find_tables(tx, names, suffix(projection.version))
    try:
        await execute_each(tx, await tx.execute(_DROP, {"tables": [*found.values()]}))
    except DBAPIError as error:
        if sqlstate_of(error) != _DEPENDENT_OBJECTS:
            raise
        dropped = ", ".join(f"{each.name}{suffix(projection.version)}" for each in found)
        raise Conflict(
            f"Version {projection.version} of projection {projection.name!r} cannot be removed:"
            f" other objects, such as views, depend on its tables {dropped}. Drop those first."
        ) from None


async def find_tables(
    tx: Transaction, names: Sequence[TableName], ending: str = ""
) -> Mapping[TableName, int]:
    """Find the tables with the declared names and an ending: the `oid` of each that exists."""
    parameters = {
        "schemas": [each.schema for each in names],
        "names": [each.name for each in names],
        "ending": ending,
    }
    return {TableName(row.schema, row.name): row.oid for row in await tx.execute(_FIND, parameters)}


async def execute_each(tx: SqlAlchemyTransaction, statements: Rows) -> None:
    """Execute statements that PostgreSQL has composed, the first column of each row."""
    for statement in [*statements.scalars()]:
        await tx.connection.exec_driver_sql(statement)


def _key(projection: ProjectionKey) -> Mapping[str, object]:
    return {"name": projection.name, "version": projection.version}


_LOCK_MISSING = text(
    """
    SELECT FROM saga_engine.projection
    WHERE name = :name AND version = :version AND role = 'rebuild' AND NOT has_tables
    FOR UPDATE"""
)
_CREATED = text(
    """
    UPDATE saga_engine.projection SET has_tables = true
    WHERE name = :name AND version = :version"""
)
_GIVE_OWNER = text(
    """
    SELECT format('ALTER TABLE %s OWNER TO %I', shadow.oid::regclass, owner.rolname)
    FROM unnest(CAST(:shadows AS oid[]), CAST(:live AS oid[])) AS t(shadow, live)
    JOIN pg_class AS shadow ON shadow.oid = t.shadow
    JOIN pg_class AS live ON live.oid = t.live AND live.relowner <> shadow.relowner
    JOIN pg_roles AS owner ON owner.oid = live.relowner"""
)
_DROP = text(
    """
    SELECT 'DROP TABLE ' || string_agg(oid::regclass::text, ', ')
    FROM unnest(CAST(:tables AS oid[])) AS t(oid) HAVING count(*) > 0"""
)
_FIND = text(
    """
    SELECT t.schema, t.name, found.oid
    FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])) AS t(schema, name)
    CROSS JOIN LATERAL (SELECT CAST(to_regclass(concat_ws('.', quote_ident(t.schema),
        quote_ident(t.name || CAST(:ending AS text)))) AS oid) AS oid) AS found
    WHERE found.oid IS NOT NULL"""
)
