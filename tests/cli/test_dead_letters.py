from sqlalchemy import text

from saga_engine.store import dead_letter_actions, dead_letter_queries
from saga_engine.store.database import Database
from saga_engine.store.dead_letter_queries import DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetterState
from tests.kit.command_line import saga_engine
from tests.kit.dead_letters import WHY, make_dead_letter
from tests.kit.malformed_messages import publish_malformed


async def test_a_malformed_message_is_listed_and_shown_with_its_bytes(engine):
    await publish_malformed(engine, b"{oops")
    (listed,) = (await engine("dead-letters", "list", "--json")).json["dead_letters"]
    assert (listed["queue"], listed["reason"]) == ("saga.requests", "malformed_json")
    shown = (await engine("dead-letters", "show", listed["id"], "--json")).json
    assert (shown["body"], shown["body_encoding"], shown["correlation_id"]) == (
        "{oops",
        "utf-8",
        "c-1",
    )
    plain = await engine("dead-letters", "list")
    assert "malformed_json" in plain.out
    assert "{oops" not in plain.out


async def test_purge_deletes_old_closed_dead_letters_and_is_recorded(settings, recorded):
    await recorded(*[make_dead_letter(body=b"x" * 9)] * 5)
    async with Database(settings.require_database_url(), settings) as database:
        async with database.transaction() as tx:
            open_ids = await dead_letter_queries.find_ids(
                tx, DeadLetterFilter(state=DeadLetterState.OPEN), limit=9
            )
            await dead_letter_actions.mark_discarded(
                tx, open_ids[:3], operator="ann", reason="known bug"
            )
        url = {"database_url": settings.require_database_url()}
        counted = await saga_engine("dead-letters", "purge", *WHY, "--dry-run", **url)
        assert counted.out == "0 dead letters\n", "none is old enough"
        asked = await saga_engine("dead-letters", "purge", *WHY, "--older-than", "0", **url)
        assert asked.exit_code == 2
        done = await saga_engine(
            "dead-letters", "purge", *WHY, "--older-than", "0", "--yes", "--json", **url
        )
        assert done.json == {"purged": 3, "schema_version": 1}
        async with database.transaction() as tx:
            assert (
                await dead_letter_queries.find_ids(tx, DeadLetterFilter(), limit=9) == open_ids[3:]
            )
            query = text(
                "SELECT operator, target, outcome FROM saga_engine.audit WHERE action = 'purge'"
            )
            assert [tuple(row) for row in await tx.execute(query)] == [
                ("ann", "3 dead letters of saga.requests (bad_request), ids 1 to 3", "accepted")
            ]
