"""
Whether this version of the code and the tables it finds can work together.

Schemas grow first and shrink later (expand and contract), so that workers of two versions can run
on one database while a deployment rolls. A database that is behind has to be migrated; one that is
ahead says itself, in `schema_revision`, which code may still work on it.
"""

from saga_engine.postgres.statement import Transaction, text

REVISION = "0002"
"""The newest migration: what this version of the code needs."""


async def problem(tx: Transaction) -> str | None:
    """Say what keeps this version from working on the database, as `is at ...`; None: nothing."""
    found: str = (await tx.execute(_FOUND)).scalar() or "none"
    if found == REVISION:
        return None
    if found == "none" or found < REVISION:
        return (
            f"is at revision {found}, this version needs {REVISION}."
            " Run `saga-engine migrate`, with this version."
        )
    oldest_code = (await tx.execute(_OLDEST_CODE, {"found": found})).scalar()
    if oldest_code is not None and oldest_code <= REVISION:
        return None
    return (
        f"is at revision {found}, which a newer version of saga-engine has made: it works with code"
        f" of revision {oldest_code or found} on, and this version is of {REVISION}."
        " Deploy the newer version."
    )


_FOUND = text("SELECT version_num FROM saga_engine.alembic_version")
# Of all migrations so far, the one that asks most; none, when the last has not said what it asks.
_OLDEST_CODE = text(
    """
    SELECT max(oldest_code) FROM saga_engine.schema_revision
    HAVING bool_or(revision = :found)"""
)
