"""Whether a database is usable: it keeps confirmed commits, stores every text, has the tables."""

from saga_engine.errors import ConfigurationError, SchemaMismatch
from saga_engine.postgres import encoding
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import schema


async def check_database(tx: Transaction, address: str) -> None:
    """
    Check that a database does not lose confirmed commits, stores every text, and has the tables.

    Raises:
        SchemaMismatch: its schema is too old or too new for this version.
        ConfigurationError: synchronous_commit is off, so confirmed commits could be lost; or its
            encoding is not UTF8, so it cannot store every text.
    """
    row = (await tx.execute(_CHECK)).one()
    if row.synchronous_commit == "off":
        raise ConfigurationError(
            f"synchronous_commit is off for {address}: a crash would lose commits that"
            " were confirmed. Set it to on for this role or database."
        )
    encoding.require_utf8(row.server_encoding, address)
    if not row.migrated:
        raise SchemaMismatch(
            f"The database {address} has no saga-engine schema. Run `saga-engine migrate`."
        )
    if problem := await schema.schema_problem(tx):
        raise SchemaMismatch(f"The database {address} {problem}")


_CHECK = text(
    """
    SELECT current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('server_encoding') AS server_encoding,
        to_regclass('saga_engine.alembic_version') IS NOT NULL AS migrated"""
)
