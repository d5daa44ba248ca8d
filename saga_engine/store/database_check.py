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
    version_tables = [f"saga_engine.{lineage.version_table}" for lineage in lineages]
    row = (await tx.execute(_CHECK, {"version_tables": version_tables})).one()
    if row.synchronous_commit == "off":
        raise ConfigurationError(
            f"synchronous_commit is off for {address}: a crash would lose commits that"
            " were confirmed. Set it to on for this role or database."
        )
    encoding.require_utf8(row.server_encoding, address)
    # The last lineage first: its command applies those that it builds on as well.
    for lineage, version_table in zip(reversed(lineages), reversed(version_tables), strict=True):
        if version_table in row.missing:
            raise SchemaMismatch(
                f"The database {address} has no {lineage.name}. Run `{lineage.command}`."
            )
        if problem := await schema.schema_problem(tx, lineage):
            raise SchemaMismatch(f"The database {address} {problem}")


# Arrays of text, because for others the driver would first query their types.
_CHECK = text(
    """
    SELECT current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('server_encoding') AS server_encoding,
        ARRAY(SELECT name FROM unnest(CAST(:version_tables AS text[])) AS name
            WHERE to_regclass(name) IS NULL) AS missing"""
)
