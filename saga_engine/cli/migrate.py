"""`saga-engine migrate`: the database's schema."""

from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.output import print_line, print_stderr
from saga_engine.settings import Settings
from saga_engine.store.migrate import outdated_reason, upgrade, upgrade_sql

EXIT_PROBLEMS_FOUND = 8


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
        print_line(upgrade_sql())
        return 0
    settings = Settings.load()
    url = settings.require_database_url()
    if check:
        problem = await outdated_reason(url)
        print_stderr(problem or "The database is at this version's schema.")
        return EXIT_PROBLEMS_FOUND if problem else 0
    await upgrade(
        url,
        lock_timeout=settings.migrate_lock_timeout,
        retry_window=settings.migrate_lock_retry_timeout,
    )
    print_stderr("The database is at this version's schema.")
    return 0
