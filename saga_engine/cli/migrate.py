"""`saga-engine migrate`: the database's schema."""

from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.output import line, say
from saga_engine.settings import Settings
from saga_engine.store.migrate import behind, sql, upgrade

PROBLEMS = 8


async def migrate(
    *,
    check: Annotated[
        bool, Parameter(help="Change nothing; exit 8 when something is missing.")
    ] = False,
    as_sql: Annotated[
        bool,
        Parameter(name="--sql", help="Print what it would do to an empty database."),
    ] = False,
) -> int:
    """Bring the database to this version's schema; several may do it at once."""
    if as_sql:
        line(sql())
        return 0
    settings = Settings.load()
    url = settings.require_database()
    if check:
        missing = await behind(url)
        say(missing or "The database is at this version's schema.")
        return PROBLEMS if missing else 0
    await upgrade(
        url, lock_timeout=settings.migrate_lock_timeout, patience=settings.migrate_patience
    )
    say("The database is at this version's schema.")
    return 0
