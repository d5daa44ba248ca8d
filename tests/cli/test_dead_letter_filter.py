"""Dead letters are chosen by id or by criteria, and many are changed only after confirmation."""

import asyncio

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from tests.kit.command_line import saga_engine
from tests.kit.dead_letters import WHY, make_dead_letter


async def test_many_are_discarded_only_after_confirmation(settings, recorded):
    url = settings.require_database_url()
    await recorded(
        *[make_dead_letter()] * 3,
        make_dead_letter(queue="saga.replies", reason=DeadLetterReason.BAD_OUTCOME),
    )
    counted = await saga_engine(
        "dead-letters", "discard", "--all", "--dry-run", *WHY, database_url=url
    )
    assert (counted.exit_code, counted.out) == (0, "4 dead letters\n")
    asked = await saga_engine("dead-letters", "discard", "--all", *WHY, database_url=url)
    assert (asked.exit_code, "Discard 4 dead letters? Add --yes" in asked.err) == (2, True)
    some = await saga_engine(
        *("dead-letters", "discard", "--reason-code", "bad_request", "--yes", *WHY),
        database_url=url,
    )
    assert (some.exit_code, some.out) == (0, "3 discarded, 0 failed\n")
    listed = await saga_engine("dead-letters", "list", "--json", database_url=url)
    assert [each["queue"] for each in listed.json["dead_letters"]] == ["saga.replies"]
    done = await saga_engine(
        *("dead-letters", "list", "--state", "discarded", "--limit", 2, "--json"), database_url=url
    )
    assert [each["resolved_reason"] for each in done.json["dead_letters"]] == ["known bug"] * 2
    rest = await saga_engine(
        *("dead-letters", "list", "--state", "all", "--after", done.json["next"], "--json"),
        database_url=url,
    )
    assert len(rest.json["dead_letters"]) == 1


async def test_messages_of_unauthorized_senders_are_redriven_only_if_selected(engine, recorded):
    url, broker_url = engine.settings.require_database_url(), engine.settings.require_broker_url()
    await recorded(
        make_dead_letter(reason=DeadLetterReason.UNAUTHORIZED_SENDER), make_dead_letter()
    )
    again = ("dead-letters", "redrive", "--yes", "--json")
    settings = {"database_url": url, "broker_url": broker_url}
    for choice in (("--all",), ("--queue", "saga.requests")):
        ran = await saga_engine(*again, *choice, "--dry-run", **settings)
        assert ran.json["count"] == 1
        assert "Excluded: 1 of unauthorized_sender" in ran.err
    ran = await saga_engine(*again, "--all", **settings)
    assert (ran.exit_code, len(ran.json["redriven"])) == (0, 1)
    ran = await saga_engine(*again, "--reason-code", "unauthorized_sender", **settings)
    assert (ran.exit_code, len(ran.json["redriven"])) == (0, 1)


async def test_a_dry_run_prints_a_document_with_json(settings, recorded):
    await recorded(make_dead_letter())
    url, broker_url = settings.require_database_url(), settings.require_broker_url()
    for command in (("redrive", "--all"), ("discard", "--all", *WHY), ("purge", *WHY)):
        ran = await saga_engine(
            *("dead-letters", *command, "--dry-run", "--json"),
            database_url=url,
            broker_url=broker_url,
        )
        number = 0 if command[0] == "purge" else 1
        assert (ran.exit_code, ran.json["count"]) == (0, number)
        text = await saga_engine(
            "dead-letters", *command, "--dry-run", database_url=url, broker_url=broker_url
        )
        assert text.out == f"{number} dead letters\n"


async def test_an_invalid_selection_is_one_sentence(settings):
    urls = {
        "database_url": settings.require_database_url(),
        "broker_url": settings.require_broker_url(),
    }
    cases = (
        (("redrive",), 2, "Name dead letters by id"),
        (("redrive", 1, "--all"), 2, "Name dead letters by id"),
        (("redrive", 7), 3, "There is no dead letter 7"),
        (("discard", 7), 2, "--reason"),
        (("show", 7), 3, "There is no dead letter 7"),
        (("show", "x"), 2, "x"),
        (("list", "--state", "lost"), 2, "discarded"),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(saga_engine("dead-letters", *a, **urls)) for a, _, _ in cases]
    for task, (_, code, words) in zip(tasks, cases, strict=True):
        ran = task.result()
        assert (ran.exit_code, words in ran.err, len(ran.err.splitlines())) == (code, True, 1), ran
