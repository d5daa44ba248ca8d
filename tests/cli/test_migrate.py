from saga_engine.store.schema import EVENTS_REVISION, REVISION
from tests.kit.command_line import saga_engine
from tests.kit.schemas import migrate_to


async def test_a_database_is_migrated_twice_and_checked(database_url):
    missing = await saga_engine("migrate", "--check", database_url=database_url)
    assert (missing.exit_code, "Run `saga-engine migrate`" in missing.err) == (8, True)
    for text in ("Created the {}, at", "Nothing to do: the database has the {}, at"):
        ran = await saga_engine("migrate", database_url=database_url)
        lines = [
            f"{text.format(name)} revision {revision}.\n"
            for name, revision in (
                ("event tables", EVENTS_REVISION),
                ("saga-engine schema", REVISION),
            )
        ]
        assert (ran.exit_code, ran.out, ran.err) == (0, "", "".join(lines))
    checked = await saga_engine("migrate", "--check", database_url=database_url)
    assert checked.exit_code == 0
    assert (await saga_engine("list", database_url=database_url)).exit_code == 0


async def test_an_upgrade_names_the_revision_before_and_after(database_url):
    await migrate_to(database_url, "0001")
    ran = await saga_engine("migrate", database_url=database_url)
    assert ran.exit_code == 0
    assert ran.err.endswith(f"Upgraded the saga-engine schema from revision 0001 to {REVISION}.\n")


async def test_the_sql_is_printed_without_a_database():
    ran = await saga_engine("migrate", "--sql")
    assert ran.exit_code == 0
    assert "CREATE TABLE saga_engine.run" in ran.out


async def test_an_unusable_database_is_one_sentence(database_url):
    for url, code, words in (
        ("", 2, "SAGA_ENGINE_DATABASE_URL is not set"),
        ("postgresql+asyncpg://saga@127.0.0.1:1/saga", 5, "cannot be reached"),
        ("postgresql+asyncpg://h:port/d", 2, "cannot be read"),
        (database_url.replace("test_", "lost_"), 5, "has no database of that name"),
    ):
        ran = await saga_engine("migrate", database_url=url)
        assert (ran.exit_code, ran.out, len(ran.err.splitlines())) == (code, "", 1)
        assert words in ran.err


async def test_a_service_migrates_only_the_event_tables(database_url):
    missing = await saga_engine("migrate", "--events", "--check", database_url=database_url)
    assert missing.exit_code == 8
    assert "Run `saga-engine migrate --events`" in missing.err
    ran = await saga_engine("migrate", "--events", database_url=database_url)
    assert ran.exit_code == 0
    assert ran.err == f"Created the event tables, at revision {EVENTS_REVISION}.\n"
    worker = await saga_engine("list", database_url=database_url)
    assert worker.exit_code == 5
    assert "has no saga-engine schema. Run `saga-engine migrate`." in worker.err
    script = (await saga_engine("migrate", "--events", "--sql")).out
    assert "CREATE TABLE saga_engine.stream_event" in script
    assert "CREATE TABLE saga_engine.run" not in script
