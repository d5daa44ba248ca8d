"""
Exchange the tables of two versions: the other ones get the names and the rights of the live ones.

Readers that name the tables wait for the locks, and find the other ones. What refers to a table by
its identity would stay with the old one, so an exchange is refused while there is such an object.
"""

from collections.abc import Mapping, Sequence

from saga_engine.errors import Conflict
from saga_engine.events.projections.projection_table import StoredProjection
from saga_engine.events.projections.shadow_tables import (
    MAX_DECLARED_NAME_BYTES,
    execute_each,
    find_tables,
    suffix,
)
from saga_engine.postgres.statement import text
from saga_engine.store.database import SqlAlchemyTransaction


async def exchange_tables(
    tx: SqlAlchemyTransaction,
    live: StoredProjection,
    other: StoredProjection,
    lock_timeout: float,
) -> None:
    """
    Exchange the tables of two versions, both locked, in their transaction.

    Args:
        tx: the transaction.
        live: the version that is live.
        other: the version that becomes live.
        lock_timeout: seconds to wait for the locks of all tables together.

    Raises:
        Conflict: tables are missing, or other objects depend on the live ones.
        StoreLockTimeout: other transactions use the tables.
    """
    live_tables = await find_tables(tx, live.tables)
    other_tables = await find_tables(tx, other.tables, suffix(other.version))
    if missing := [each.name for each in other.tables if each not in other_tables]:
        raise Conflict(
            f"Version {other.version} of projection {other.name!r} lacks the tables"
            f" {', '.join(f'{each}{suffix(other.version)}' for each in missing)}. Rebuild it."
        )
    live_oids, other_oids = [*live_tables.values()], [*other_tables.values()]
    await _lock(tx, other_oids, live_oids, lock_timeout)
    await _refuse_obstacles(tx, live, other, live_oids, other_oids)
    pairs = [(live_tables[each], oid) for each, oid in other_tables.items() if each in live_tables]
    parameters = {"live": [each for each, _ in pairs], "other": [each for _, each in pairs]}
    await execute_each(tx, await tx.execute(_REVOKE, parameters))
    await execute_each(tx, await tx.execute(_GRANT, parameters))
    away = {"tables": live_oids, "suffix": suffix(live.version)}
    await execute_each(tx, await tx.execute(_ADD_SUFFIX, away))
    there = {"tables": other_oids, "suffix": suffix(other.version)}
    await execute_each(tx, await tx.execute(_REMOVE_SUFFIX, there))


async def _lock(
    tx: SqlAlchemyTransaction, other: Sequence[int], live: Sequence[int], seconds: float
) -> None:
    """Lock all tables; the live ones last, because others read them."""
    # PostgreSQL limits the time of each lock, so that all together take no longer.
    milliseconds = int(seconds * 1000 / max(1, len(other) + len(live)))
    await tx.execute(_LOCK_TIMEOUT, {"timeout": f"{max(1, milliseconds)}ms"})
    await execute_each(tx, await tx.execute(_LOCK, {"tables": [*other, *live]}))


async def _refuse_obstacles(
    tx: SqlAlchemyTransaction,
    live: StoredProjection,
    other: StoredProjection,
    live_tables: Sequence[int],
    other_tables: Sequence[int],
) -> None:
    """Raise Conflict if an object depends on the live tables that would stay with them."""
    tables: Mapping[str, object] = {"live": live_tables, "other": other_tables}
    found = [*(await tx.execute(_OBSTACLES, tables)).scalars()]
    if found:
        raise Conflict(
            f"Projection {live.name!r} cannot be switched: {'; '.join(found)}. They would stay with"
            " the old tables. Remove them, switch, and create them again."
        )
    parameters = {
        **tables,
        "suffix": suffix(other.version),
        "longest": MAX_DECLARED_NAME_BYTES,
        "same_code": live.code_version == other.code_version,
    }
    found = [*(await tx.execute(_INDEX_OBSTACLES, parameters)).scalars()]
    if found:
        raise Conflict(f"Projection {live.name!r} cannot be switched: {'; '.join(found)}.")


_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', :timeout, true)")
_LOCK = text(
    """
    SELECT format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE',
        string_agg(oid::regclass::text, ', ' ORDER BY place))
    FROM unnest(CAST(:tables AS oid[])) WITH ORDINALITY AS t(oid, place) HAVING count(*) > 0"""
)
_OBSTACLES = text(
    """
    WITH live AS (SELECT oid FROM unnest(CAST(:live AS oid[])) AS t(oid))
    SELECT DISTINCT format('%s %s reads %s', CASE view.relkind WHEN 'm' THEN 'materialized view'
        WHEN 'v' THEN 'view' ELSE 'a rule of' END, view.oid::regclass, live.oid::regclass)
    FROM live JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = live.oid
        AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite AS rule ON rule.oid = d.objid
    JOIN pg_class AS view ON view.oid = rule.ev_class
    UNION ALL
    SELECT DISTINCT format('function %s uses %s', d.objid::regprocedure, live.oid::regclass)
    FROM live JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = live.oid
        AND d.classid = 'pg_proc'::regclass
    UNION ALL
    SELECT format('foreign key %I of %s refers to %s', c.conname, c.conrelid::regclass,
        live.oid::regclass)
    FROM live JOIN pg_constraint AS c ON c.contype = 'f' AND c.confrelid = live.oid
    WHERE c.conrelid NOT IN (SELECT oid FROM live)
    UNION ALL
    SELECT format('trigger %I of %s', g.tgname, live.oid::regclass)
    FROM live JOIN pg_trigger AS g ON g.tgrelid = live.oid AND NOT g.tgisinternal
    UNION ALL
    SELECT format('row level security of %s', live.oid::regclass)
    FROM live JOIN pg_class AS c ON c.oid = live.oid AND c.relrowsecurity
    UNION ALL
    SELECT format('policy %I of %s', p.polname, live.oid::regclass)
    FROM live JOIN pg_policy AS p ON p.polrelid = live.oid
    UNION ALL
    SELECT format('publication %I of %s', p.pubname, live.oid::regclass)
    FROM live JOIN pg_publication_rel AS r ON r.prrelid = live.oid
    JOIN pg_publication AS p ON p.oid = r.prpubid
    UNION ALL
    SELECT format('%s inherits from %s', i.inhrelid::regclass, i.inhparent::regclass)
    FROM live JOIN pg_inherits AS i ON live.oid IN (i.inhrelid, i.inhparent)
    ORDER BY 1"""
)

# With the same code, an index of a live table that the other one lacks was made by hand: without it
# readers would be slow. With other code it may have gone from the declaration.
_INDEX_OBSTACLES = text(
    """
    WITH live AS (
        SELECT c.relname, i.indexrelid, i.indrelid
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
        WHERE i.indrelid = ANY(CAST(:live AS oid[]))),
    other AS (
        SELECT replace(c.relname, CAST(:suffix AS text), '') AS relname
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
        WHERE i.indrelid = ANY(CAST(:other AS oid[])))
    SELECT format('the name of index %I is too long, rename it to at most %s bytes', relname,
        CAST(:longest AS integer))
    FROM live WHERE octet_length(relname) > CAST(:longest AS integer)
    UNION ALL
    SELECT format('index %I of %s is not declared: create it as %I on %I, or drop it', relname,
        indrelid::regclass, relname || CAST(:suffix AS text),
        (SELECT relname FROM pg_class WHERE oid = indrelid) || CAST(:suffix AS text))
    FROM live WHERE CAST(:same_code AS boolean)
        AND relname NOT IN (SELECT relname FROM other)
        AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = indexrelid)
    ORDER BY 1"""
)

# Only the owner may have more rights than before: by default privileges, for example.
_REVOKE = text(
    """
    SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', c.oid::regclass,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE CAST(a.grantee AS regrole)::text END)
    FROM unnest(CAST(:other AS oid[])) AS t(oid) JOIN pg_class AS c ON c.oid = t.oid,
        aclexplode(c.relacl) AS a
    WHERE a.grantee <> c.relowner"""
)
_GRANT = text(
    """
    WITH pair AS (
        SELECT live, other FROM unnest(CAST(:live AS oid[]), CAST(:other AS oid[]))
            AS t(live, other)),
    granted AS (
        SELECT pair.other, NULL AS column_name, a.*
        FROM pair JOIN pg_class AS c ON c.oid = pair.live, aclexplode(c.relacl) AS a
        WHERE a.grantee <> c.relowner
        UNION ALL
        SELECT pair.other, live.attname, a.*
        FROM pair
        JOIN pg_attribute AS live ON live.attrelid = pair.live AND NOT live.attisdropped
        JOIN pg_attribute AS other ON other.attrelid = pair.other
            AND other.attname = live.attname AND NOT other.attisdropped,
            aclexplode(live.attacl) AS a)
    SELECT format('GRANT %s%s ON %s TO %s%s', privilege_type,
        CASE WHEN column_name IS NOT NULL THEN format(' (%I)', column_name) END,
        other::regclass, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE CAST(grantee AS regrole)::text END,
        CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
    FROM granted"""
)
_ADD_SUFFIX = text(
    """
    WITH renamed AS (
        SELECT oid, 'TABLE' AS kind FROM unnest(CAST(:tables AS oid[])) AS t(oid)
        UNION ALL
        SELECT indexrelid, 'INDEX' FROM pg_index WHERE indrelid = ANY(CAST(:tables AS oid[])))
    SELECT format('ALTER %s %s RENAME TO %I', kind, c.oid::regclass,
        c.relname || CAST(:suffix AS text))
    FROM renamed JOIN pg_class AS c ON c.oid = renamed.oid"""
)

# An index has the constraint renamed that it belongs to. Other constraints have the suffix if their
# names were derived from that of the table; they come first, as long as it has that name.
_REMOVE_SUFFIX = text(
    """
    WITH named AS (
        SELECT 1 AS place, 'TABLE ' || c.conrelid::regclass || ' RENAME CONSTRAINT '
            || quote_ident(c.conname) AS change, c.conname AS name
        FROM pg_constraint AS c
        WHERE c.conrelid = ANY(CAST(:tables AS oid[])) AND c.contype NOT IN ('p', 'u', 'x')
        UNION ALL
        SELECT 2, 'INDEX ' || i.indexrelid::regclass || ' RENAME', c.relname
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
        WHERE i.indrelid = ANY(CAST(:tables AS oid[]))
        UNION ALL
        SELECT 3, 'TABLE ' || t.oid::regclass || ' RENAME', c.relname
        FROM unnest(CAST(:tables AS oid[])) AS t(oid) JOIN pg_class AS c ON c.oid = t.oid)
    SELECT format('ALTER %s TO %I', change, replace(name, CAST(:suffix AS text), ''))
    FROM named WHERE strpos(name, CAST(:suffix AS text)) > 0 ORDER BY place"""
)
