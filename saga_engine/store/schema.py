"""
Whether this version of the code can work on the schema of a database.

A schema is made by one or two lineages of migrations. The event tables are a lineage of their own,
because they also live in databases of services, which have no other table of the engine.

Migrations first add and later remove (expand and contract), so that workers of two versions share a
database during a rollout. A database that is behind has to be migrated. A database that is ahead
says in its table of revisions which code can still work on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from saga_engine.postgres.statement import Statement, Transaction, text

REVISION = "0003"
"""The newest migration of the engine's tables: what this version of the code needs."""

EVENTS_REVISION = "0006"
"""The newest migration of the event tables: what this version of the code needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """
    Migrations that follow one another, and that a database has all of or none.

    Args:
        name: what the migrations make, in messages.
        directory: where they are, below `migrations/`.
        revision: the newest one.
        version_table: alembic's table of this lineage, in the schema of the engine.
        command: applies them.
        select_current_revision: reads the revision of a database.
        select_min_code_revision: reads which code can work on revision `:current`: the highest
            requirement of all migrations; null when that one has not recorded any.
    """

    name: str
    directory: str
    revision: str
    version_table: str
    command: str
    select_current_revision: Statement
    select_min_code_revision: Statement


EVENTS = Lineage(
    name="event tables",
    directory="events",
    revision=EVENTS_REVISION,
    version_table="alembic_version_events",
    command="saga-engine migrate --events",
    select_current_revision=text("SELECT version_num FROM saga_engine.alembic_version_events"),
    select_min_code_revision=text(
        """
        SELECT max(min_code_revision) FROM saga_engine.event_schema_revision
        HAVING bool_or(revision = :current)"""
    ),
)

ENGINE = Lineage(
    name="saga-engine schema",
    directory="versions",
    revision=REVISION,
    version_table="alembic_version",
    command="saga-engine migrate",
    select_current_revision=text("SELECT version_num FROM saga_engine.alembic_version"),
    select_min_code_revision=text(
        """
        SELECT max(min_code_revision) FROM saga_engine.schema_revision
        HAVING bool_or(revision = :current)"""
    ),
)

Lineages: TypeAlias = Sequence[Lineage]
"""The lineages of a database, in the order in which they are applied."""

ENGINE_DATABASE: Lineages = (EVENTS, ENGINE)
"""The engine's own database: the journals of runs use the positions of the event tables."""

EVENT_DATABASE: Lineages = (EVENTS,)
"""A service's database that has event tables."""


async def schema_problem(tx: Transaction, lineage: Lineage) -> str | None:
    """Say why this version cannot work on the database, as `is at ...`; None when it can."""
    current: str = (await tx.execute(lineage.select_current_revision)).scalar() or "none"
    if current == lineage.revision:
        return None
    if current == "none" or current < lineage.revision:
        return (
            f"is at revision {current}, this version needs {lineage.revision}"
            f" ({lineage.name}). Run `{lineage.command}`, with this version."
        )
    min_code_revision = (
        await tx.execute(lineage.select_min_code_revision, {"current": current})
    ).scalar()
    if min_code_revision is not None and min_code_revision <= lineage.revision:
        return None
    return (
        f"is at revision {current}, which a newer version of saga-engine has made: it works with"
        f" code of revision {min_code_revision or current} on, and this version is of"
        f" {lineage.revision} ({lineage.name}). Deploy the newer version."
    )
