"""Whether a database can be used: it keeps what it confirms, holds every text, has our tables."""

from saga_engine.errors import ConfigurationError, SchemaMismatch
from saga_engine.postgres import encoding
from saga_engine.postgres.statement import Transaction, text
from saga_engine.store import schema


async def check(tx: Transaction, where: str) -> None:
    """
    Make sure that a database keeps what it has confirmed, and has our tables.

    Raises:
        SchemaMismatch: it has not been migrated to this version, or so far that this version
            cannot work with it any more.
        ConfigurationError: synchronous_commit is off, so confirmed commits could be lost; or
            its encoding is not UTF8, so it cannot hold every text.
    """
    row = (await tx.execute(_CHECK)).one()
    if row.synchronous_commit == "off":
        raise ConfigurationError(
            f"synchronous_commit is off for {where}: a crash would lose commits that"
            " were confirmed. Set it to on for this role or database."
        )
    encoding.refuse(row.server_encoding, where)
    if not row.migrated:
        raise SchemaMismatch(
            f"The database {where} has no saga-engine schema. Run `saga-engine migrate`."
        )
    if problem := await schema.problem(tx):
        raise SchemaMismatch(f"The database {where} {problem}")


_CHECK = text(
    """
    SELECT current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('server_encoding') AS server_encoding,
        to_regclass('saga_engine.alembic_version') IS NOT NULL AS migrated"""
)
