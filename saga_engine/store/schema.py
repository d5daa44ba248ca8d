"""
Whether this version of the code and the tables it finds can work together.

Schemas grow first and shrink later (expand and contract), so that workers of two versions can run
on one database while a deployment rolls. A database that is behind has to be migrated; one that is
ahead says itself, in `schema_revision`, which code may still work on it.
"""

from saga_engine.postgres.statement import Transaction, text

REVISION = "0002"
"""The newest migration: what this version of the code needs."""


async def schema_problem(tx: Transaction) -> str | None:
    """Say what keeps this version from working on the database, as `is at ...`; None: nothing."""
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
        f"is at revision {current}, which a newer version of saga-engine has made: it works"
        " with code"
        f" of revision {min_code_revision or current} on, and this version is of {REVISION}."
        " Deploy the newer version."
    )


_CURRENT_REVISION = text("SELECT version_num FROM saga_engine.alembic_version")
# Of all migrations so far, the one that asks most; none, when the last has not said what it asks.
_MIN_CODE_REVISION = text(
    """
    SELECT max(min_code_revision) FROM saga_engine.schema_revision
    HAVING bool_or(revision = :current)"""
)
