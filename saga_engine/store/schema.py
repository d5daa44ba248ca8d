"""
Whether this version of the code can work on the schema of a database.

Migrations first add and later remove (expand and contract), so that workers of two versions share a
database during a rollout. A database that is behind has to be migrated. A database that is ahead
says in `schema_revision` which code can still work on it.
"""

from saga_engine.postgres.statement import Transaction, text

REVISION = "0002"
"""The newest migration: what this version of the code needs."""


async def schema_problem(tx: Transaction) -> str | None:
    """Say why this version cannot work on the database, as `is at ...`; None when it can."""
    current: str = (await tx.execute(_CURRENT_REVISION)).scalar() or "none"
    if current == REVISION:
        return None
    if current == "none" or current < REVISION:
        return (
            f"is at revision {current}, this version needs {REVISION}."
            " Run `saga-engine migrate`, with this version."
        )
    min_code_revision = (await tx.execute(_MIN_CODE_REVISION, {"current": current})).scalar()
    if min_code_revision is not None and min_code_revision <= REVISION:
        return None
    return (
        f"is at revision {current}, which a newer version of saga-engine has made: it works with"
        f" code of revision {min_code_revision or current} on, and this version is of {REVISION}."
        " Deploy the newer version."
    )


_CURRENT_REVISION = text("SELECT version_num FROM saga_engine.alembic_version")
# The highest requirement of all migrations; null when the current one has not recorded any.
_MIN_CODE_REVISION = text(
    """
    SELECT max(min_code_revision) FROM saga_engine.schema_revision
    HAVING bool_or(revision = :current)"""
)
