import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.identifiers import uuid7
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.topology import REQUESTS, participant_topology
from saga_engine.store import dead_letter_actions, dead_letter_queries, dead_letters
from saga_engine.store.database import Database
from saga_engine.store.dead_letter_queries import DeadLetterFilter
from saga_engine.store.dead_letters import DeadLetter, DeadLetterState
from saga_engine.telemetry.events import MessageDeadLettered, RunStarted
from saga_engine.vocabulary import ConnectionRole
from tests.kit.command_line import saga_engine

WHY = ("--reason", "known bug", "--operator", "ann")


async def publish_malformed(engine, *bodies, exchange=REQUESTS, key="start"):
    """Publish malformed messages and wait until they are dead-lettered."""
    url, settings = engine.settings.require_broker_url(), engine.settings
    messages = [
        Message(
            exchange=exchange,
            routing_key=key,
            body=body,
            message_id=f"m-{number}",
            type=key,
            correlation_id="c-1",
        )
        for number, body in enumerate(bodies)
    ]
    async with SupervisedConnection(
        url, role=ConnectionRole.PUBLISH, settings=settings
    ) as connection:
        outcomes = await Publisher(connection).publish(messages)
    assert outcomes == [PublishOutcome.CONFIRMED] * len(bodies)
    await engine.events.wait_for(MessageDeadLettered, len(bodies))


@pytest.fixture
async def recorded(settings):
    """Record dead letters directly; no engine runs."""

    async def record(*letters):
        async with (
            Database(settings.require_database_url(), settings) as database,
            database.transaction() as tx,
        ):
            await dead_letters.record(tx, letters, settings.max_dead_letter_body_bytes)

    return record


def letter(**changes):
    made: dict[str, Any] = {
        "queue": "saga.requests",
        "reason": DeadLetterReason.BAD_REQUEST,
        "detail": "It is not a request.",
        "body": b"{}",
        "body_size": 2,
        "exchange": REQUESTS,
        "routing_key": "start",
        "type": "start",
    }
    return DeadLetter(**(made | changes))


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


async def test_a_redriven_dead_letter_arrives_unchanged_and_is_closed(engine):
    unknown = b'{"run_id": "%s", "saga": "greets", "input": {"name": "Ann"}}'
    await publish_malformed(engine, unknown % str(uuid7()).encode())
    (listed,) = (await engine("dead-letters", "list", "--json")).json["dead_letters"]
    assert listed["reason"] == "unknown_saga"
    ran = await engine("dead-letters", "redrive", listed["id"], "--json", *WHY)
    assert (ran.exit_code, ran.json["redriven"], ran.json["failed"]) == (0, [listed["id"]], [])
    await engine.events.wait_for(MessageDeadLettered)  # the saga is still unknown
    (again,) = (await engine("dead-letters", "list", "--json")).json["dead_letters"]
    shown = (await engine("dead-letters", "show", again["id"], "--json")).json
    assert (shown["headers"], shown["correlation_id"]) == ({"x-saga-redrive-count": 1}, "c-1")
    old = (await engine("dead-letters", "show", listed["id"], "--json")).json
    assert (old["state"], old["resolved_by"], old["body"]) == ("redriven", "ann", shown["body"])
    second = await engine("dead-letters", "redrive", listed["id"])
    assert (second.exit_code, "is redriven by ann" in second.err) == (4, True)


async def test_a_redriven_start_that_is_valid_now_starts_its_run(engine, recorded):
    run_id = str(uuid7()).encode()
    body = b'{"run_id": "%s", "saga": "greet", "input": {"name": "Ann"}}' % run_id
    await recorded(letter(body=body, body_size=len(body)))
    assert (await engine("dead-letters", "redrive", "--all", "--yes")).exit_code == 0
    (started,) = await engine.events.wait_for(RunStarted)
    assert started.run_id == run_id.decode()


async def test_a_letter_dead_lettered_by_the_broker_goes_to_its_original_queue(engine, recorded):
    urls = {
        "database_url": engine.settings.require_database_url(),
        "broker_url": engine.settings.require_broker_url(),
    }
    death = [{"queue": "saga.participant.greeter", "reason": "delivery_limit"}]
    forged = [{"queue": "payroll", "reason": "rejected"}]
    common = {"queue": "saga.dead-letters", "exchange": "saga.dead-letters", "routing_key": "x"}
    await recorded(
        letter(**common, headers={"x-death": death}, body=b"no command"),
        letter(**common, headers={"x-death": forged}),
    )
    ran = await saga_engine("dead-letters", "redrive", "--all", "--yes", "--json", **urls)
    assert ran.exit_code == 7
    assert [each["problem"] for each in ran.json["failed"]] == [
        "It did not come from a queue of saga-engine."
    ]
    assert len(ran.json["redriven"]) == 1


async def test_a_letter_that_cannot_be_published_fails_alone_and_stays_open(engine, recorded):
    await recorded(
        letter(body=b"{oops"),
        letter(body=b"{", body_size=5),
        letter(exchange="gone"),
        letter(exchange="saga.replies", routing_key="unbound"),
        letter(headers={"odd": [1]}),
    )
    ran = await engine("dead-letters", "redrive", "--all", "--yes", "--json")
    assert ran.exit_code == 7
    problems = [each["problem"] for each in ran.json["failed"]]
    assert len(ran.json["redriven"]) == 1
    for words in ("1 of its 5 bytes", "did not confirm", "No queue is bound", "'odd'"):
        assert any(words in problem for problem in problems), words
    await engine.events.wait_for(MessageDeadLettered)
    left = (await engine("dead-letters", "list", "--json")).json["dead_letters"]
    assert len(left) == 5


async def test_many_are_discarded_only_after_confirmation(settings, recorded):
    url = settings.require_database_url()
    await recorded(
        *[letter()] * 3, letter(queue="saga.replies", reason=DeadLetterReason.BAD_OUTCOME)
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
    await recorded(letter(reason=DeadLetterReason.UNAUTHORIZED_SENDER), letter())
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
    await recorded(letter())
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


async def test_a_body_of_20_megabytes_is_truncated_and_not_redriven(engine):
    size = engine.settings.model_copy(update={"max_body_bytes": 32_000_000})
    message = Message(
        exchange=REQUESTS, routing_key="start", body=b"x" * 20_000_000, message_id="m-1"
    )
    async with SupervisedConnection(
        size.require_broker_url(), role=ConnectionRole.PUBLISH, settings=size
    ) as connection:
        assert await Publisher(connection).publish([message]) == [PublishOutcome.CONFIRMED]
    await engine.events.wait_for(MessageDeadLettered)
    (listed,) = (await engine("dead-letters", "list", "--json")).json["dead_letters"]
    assert (listed["reason"], listed["body_size"], listed["truncated"]) == (
        "too_large",
        20_000_000,
        True,
    )
    ran = await engine("dead-letters", "redrive", listed["id"])
    assert (ran.exit_code, "of its 20000000 bytes were kept" in ran.err) == (7, True)


async def test_the_original_queue_of_a_dead_letter_gets_its_bytes(engine, recorded):
    death = [{"queue": "saga.participant.other", "reason": "rejected"}]
    await recorded(
        letter(
            queue="saga.dead-letters",
            exchange="saga.dead-letters",
            headers={"x-death": death, "kept": "unchanged"},
            body=b"bytes",
            body_size=5,
            message_id="m-1",
            correlation_id="c-1",
            properties={"reply_to": "saga.replies"},
        )
    )
    settings = engine.settings
    async with (
        SupervisedConnection(
            settings.require_broker_url(),
            role=ConnectionRole.CONSUME,
            settings=settings,
            topology=participant_topology("other", ["other.do"]),
        ) as connection,
        Consumer(connection, ["saga.participant.other"]) as consumer,
    ):
        assert (
            await engine("dead-letters", "redrive", "--queue", "saga.dead-letters", "--yes")
        ).exit_code == 0
        (arrived,) = await consumer.take(1)
    assert (arrived.body, arrived.type, arrived.correlation_id, arrived.reply_to) == (
        b"bytes",
        "start",
        "c-1",
        "saga.replies",
    )
    assert arrived.headers == {"kept": "unchanged", "x-saga-redrive-count": 1}


async def test_purge_deletes_old_closed_dead_letters_and_is_recorded(settings, recorded):
    await recorded(*[letter(body=b"x" * 9)] * 5)
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
