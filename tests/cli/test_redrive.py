"""A redriven message is the one that was dead-lettered, and is published once."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.cli.redrive import rebuild_message
from saga_engine.identifiers import uuid7
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.topology import REQUESTS, participant_topology
from saga_engine.store.dead_letter_queries import StoredDeadLetter
from saga_engine.store.dead_letters import DeadLetter, DeadLetterState
from saga_engine.telemetry.events import MessageDeadLettered, RunStarted
from saga_engine.vocabulary import ConnectionRole
from tests.kit.command_line import saga_engine
from tests.kit.dead_letters import WHY, make_dead_letter
from tests.kit.malformed_messages import publish_malformed


def stored(letter: DeadLetter) -> StoredDeadLetter:
    """An open dead letter with this message."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    return StoredDeadLetter(
        id=1,
        received_at=now,
        state=DeadLetterState.OPEN,
        truncated=False,
        fingerprint="",
        message=letter,
        resolved_at=None,
        resolved_by=None,
        resolved_reason=None,
    )


def headers_of(letter: DeadLetter) -> Mapping[str, object]:
    """The headers of the redriven message."""
    message = rebuild_message(stored(letter))
    assert isinstance(message, Message), message
    return message.headers


@pytest.mark.parametrize("count", [1, "x", None, True, 2**40])
def test_a_redrive_count_is_incremented_or_starts_at_1(count):
    letter = make_dead_letter(headers={"x-saga-redrive-count": count})
    assert headers_of(letter)["x-saga-redrive-count"] == (2 if count in (1, True) else 1)


def test_a_redriven_message_loses_copy_headers_of_its_sender():
    headers = {
        "CC": "saga.requests",
        "BCC": "x",
        "x-death": [],
        "x-delivery-count": 9,
        "own": "kept",
    }
    letter = make_dead_letter(headers=headers)
    assert headers_of(letter) == {"own": "kept", "x-saga-redrive-count": 1}


@pytest.mark.parametrize("mark", ["x-undecodable", "x-truncated"])
def test_a_message_with_incomplete_headers_is_not_redriven(mark):
    letter = make_dead_letter(headers={mark: True})
    assert rebuild_message(stored(letter)) == "Not all of its headers were kept."


async def test_a_redriven_dead_letter_arrives_unchanged_and_is_closed(engine):
    unknown = b'{"run_id": "%s", "saga": "greets", "input": {"name": "Ann"}}'
    await publish_malformed(engine, unknown % str(uuid7()).encode())
    (listed,) = (await engine("dead-letters", "list", "--json")).json["dead_letters"]
    assert listed["reason"] == "unknown_saga"
    ran = await engine("dead-letters", "redrive", listed["id"], "--json", *WHY)
    assert (ran.exit_code, ran.json["redriven"], ran.json["failed"]) == (0, [listed["id"]], [])
    await engine.events.wait_for_next(MessageDeadLettered)  # the saga is still unknown
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
    await recorded(make_dead_letter(body=body, body_size=len(body)))
    assert (await engine("dead-letters", "redrive", "--all", "--yes")).exit_code == 0
    (started,) = await engine.events.wait_for_next(RunStarted)
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
        make_dead_letter(**common, headers={"x-death": death}, body=b"no command"),
        make_dead_letter(**common, headers={"x-death": forged}),
    )
    ran = await saga_engine("dead-letters", "redrive", "--all", "--yes", "--json", **urls)
    assert ran.exit_code == 7
    assert [each["problem"] for each in ran.json["failed"]] == [
        "It did not come from a queue of saga-engine."
    ]
    assert len(ran.json["redriven"]) == 1


async def test_a_letter_that_cannot_be_published_fails_alone_and_stays_open(engine, recorded):
    await recorded(
        make_dead_letter(body=b"{oops"),
        make_dead_letter(body=b"{", body_size=5),
        make_dead_letter(exchange="gone"),
        make_dead_letter(exchange="saga.replies", routing_key="unbound"),
        make_dead_letter(headers={"odd": [1]}),
    )
    ran = await engine("dead-letters", "redrive", "--all", "--yes", "--json")
    assert ran.exit_code == 7
    problems = [each["problem"] for each in ran.json["failed"]]
    assert len(ran.json["redriven"]) == 1
    for words in ("1 of its 5 bytes", "did not confirm", "No queue is bound", "'odd'"):
        assert any(words in problem for problem in problems), words
    await engine.events.wait_for_next(MessageDeadLettered)
    left = (await engine("dead-letters", "list", "--json")).json["dead_letters"]
    assert len(left) == 5


async def test_a_body_of_20_megabytes_is_truncated_and_not_redriven(engine):
    size = engine.settings.model_copy(update={"max_body_bytes": 32_000_000})
    message = Message(
        exchange=REQUESTS, routing_key="start", body=b"x" * 20_000_000, message_id="m-1"
    )
    async with SupervisedConnection(
        size.require_broker_url(), role=ConnectionRole.PUBLISH, settings=size
    ) as connection:
        assert await Publisher(connection).publish([message]) == [PublishOutcome.CONFIRMED]
    await engine.events.wait_for_next(MessageDeadLettered)
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
        make_dead_letter(
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
