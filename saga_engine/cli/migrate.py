"""`saga-engine migrate`: create or upgrade the database schema."""

from typing import Annotated

from cyclopts import Parameter

from saga_engine.cli.exit_status import EXIT_PROBLEMS_FOUND
from saga_engine.cli.output import print_line, print_stderr
from saga_engine.settings import Settings
from saga_engine.store.migrate import Upgraded, outdated_reason, upgrade, upgrade_sql
from saga_engine.store.schema import ENGINE_DATABASE, EVENT_DATABASE


async def migrate(
    *,
    check: Annotated[
        bool, Parameter(help="Change nothing; exit 8 if the schema is outdated.")
    ] = False,
    as_sql: Annotated[
        bool,
        Parameter(name="--sql", help="Print the SQL for an empty database."),
    ] = False,
    events: Annotated[
        bool,
        Parameter(help="Only the event tables, for the database of a service."),
    ] = False,
) -> int:
    """Create or upgrade the database schema; several processes may run it at once."""
    lineages = EVENT_DATABASE if events else ENGINE_DATABASE
    if as_sql:
        print_line(upgrade_sql(lineages))
        return 0
    settings = Settings.load()
    url = settings.require_database_url()
    if check:
        problem = await outdated_reason(url, lineages)
        print_stderr(problem or "The database is at this version's schema.")
        return EXIT_PROBLEMS_FOUND if problem else 0
    upgraded = await upgrade(
        url,
        lineages,
        lock_timeout=settings.migrate_lock_timeout,
        retry_window=settings.migrate_lock_retry_timeout,
    )
    for each in upgraded:
        print_stderr(_what_was_done(each))
    return 0


def _what_was_done(upgraded: Upgraded) -> str:
    name, before, after = upgraded.lineage.name, upgraded.before, upgraded.after
    if before == after:
        return f"Nothing to do: the database has the {name}, at revision {after}."
    if before is None:
        return f"Created the {name}, at revision {after}."
    return f"Upgraded the {name} from revision {before} to {after}."
