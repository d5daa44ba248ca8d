"""Whether a database is usable: it keeps confirmed commits, stores every text, has the tables."""

from saga_engine.errors import ConfigurationError, SchemaMismatch
from saga_engine.postgres import encoding
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import schema
from saga_engine.store.schema import ENGINE_DATABASE, Lineages


async def check_database(
    tx: Transaction, address: str, lineages: Lineages = ENGINE_DATABASE
) -> None:
    """
    Check that a database does not lose confirmed commits, stores every text, and has the tables.

    Raises:
        SchemaMismatch: its schema is too old or too new for this version.
        ConfigurationError: synchronous_commit is off, so confirmed commits could be lost; or its
            encoding is not UTF8, so it cannot store every text.
    """
    names = [f"saga_engine.{lineage.version_table}" for lineage in lineages]
    row = (await tx.execute(_CHECK, {"version_tables": names})).one()
    if row.synchronous_commit == "off":
        raise ConfigurationError(
            f"synchronous_commit is off for {address}: a crash would lose commits that"
            " were confirmed. Set it to on for this role or database."
        )
    encoding.require_utf8(row.server_encoding, address)
    # The last lineage first: its command applies those that it builds on as well.
    for lineage, has_tables in reversed([*zip(lineages, row.has_tables, strict=True)]):
        if not has_tables:
            raise SchemaMismatch(
                f"The database {address} has no {lineage.name}. Run `{lineage.command}`."
            )
        if problem := await schema.schema_problem(tx, lineage):
            raise SchemaMismatch(f"The database {address} {problem}")


_CHECK = text(
    """
    SELECT current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('server_encoding') AS server_encoding,
        ARRAY(SELECT to_regclass(name) IS NOT NULL
            FROM unnest(CAST(:version_tables AS text[])) WITH ORDINALITY AS t(name, place)
            ORDER BY place) AS has_tables"""
)
