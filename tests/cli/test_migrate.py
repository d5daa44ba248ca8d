from tests.kit.command_line import saga_engine


async def test_a_database_is_migrated_twice_and_checked(database_url):
    missing = await saga_engine("migrate", "--check", database_url=database_url)
    assert (missing.exit_code, "Run `saga-engine migrate`" in missing.err) == (8, True)
    for _ in range(2):
        ran = await saga_engine("migrate", database_url=database_url)
        assert (ran.exit_code, ran.err) == (0, "The database is at this version's schema.\n")
    checked = await saga_engine("migrate", "--check", database_url=database_url)
    assert checked.exit_code == 0
    assert (await saga_engine("list", database_url=database_url)).exit_code == 0


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
    assert (ran.exit_code, ran.err) == (0, "The database is at this version's schema.\n")
    worker = await saga_engine("list", database_url=database_url)
    assert worker.exit_code == 5
    assert "has no saga-engine schema. Run `saga-engine migrate`." in worker.err
    script = (await saga_engine("migrate", "--events", "--sql")).out
    assert "CREATE TABLE saga_engine.stream_event" in script
    assert "CREATE TABLE saga_engine.run" not in script
