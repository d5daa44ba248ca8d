"""A command that cannot use its database, or gets an invalid run id, prints one sentence."""

from uuid import uuid4

from tests.kit.command_line import saga_engine

SCHEME_PROBLEM = "must begin with postgresql+asyncpg://, and not with postgresql://"


async def test_an_unknown_run_exits_3_and_an_invalid_id_exits_2(migrated_url):
    missing = await saga_engine("show", uuid4(), database_url=migrated_url)
    assert (missing.exit_code, "There is no run" in missing.err) == (3, True)
    wrong = await saga_engine("show", "o-1", database_url=migrated_url)
    assert (wrong.exit_code, "is not a run id" in wrong.err) == (2, True)
    empty = await saga_engine("list", database_url=migrated_url)
    assert (empty.exit_code, empty.out, empty.err) == (0, "", "No runs.\n")
    limit = await saga_engine("list", "--limit", 0, database_url=migrated_url)
    assert (limit.exit_code, "--limit is 1 to 1000" in limit.err) == (2, True)
    status = await saga_engine("list", "--status", "lost", database_url=migrated_url)
    assert (status.exit_code, "running" in status.err) == (2, True)


async def test_an_unusable_database_is_one_sentence(database_url):
    none = await saga_engine("list")
    assert (none.exit_code, "SAGA_ENGINE_DATABASE_URL is not set" in none.err) == (2, True)
    empty = await saga_engine("list", database_url=database_url)
    assert (empty.exit_code, "Run `saga-engine migrate`" in empty.err) == (5, True)
    away = await saga_engine("list", database_url="postgresql+asyncpg://u:secret7@127.0.0.1:1/d")
    assert (away.exit_code, "cannot be reached" in away.err) == (5, True)
    scheme = await saga_engine("list", database_url="postgresql://u@h/d")
    assert (scheme.exit_code, SCHEME_PROBLEM in scheme.err) == (2, True)
    port = await saga_engine("list", database_url=f"{database_url}x")
    assert (port.exit_code, "The database URL cannot be read" in port.err) == (2, True)
    lost = await saga_engine("list", database_url=database_url.replace("test_", "lost_"))
    assert (lost.exit_code, "has no database of that name" in lost.err) == (5, True)
    for ran in (none, empty, away, scheme, port, lost):
        assert ran.out == ""
        assert len(ran.err.splitlines()) == 1
        assert "secret7" not in ran.err
