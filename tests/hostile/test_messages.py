"""
A message that cannot be read is dead-lettered once, with its reason and its bytes.

Every hostile message is sent through a real broker into each queue that the engine reads, with
control runs in between. The harness checks finally that no connection was lost, no message was
redelivered and no queue holds a message.
"""

import struct
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pamqp import commands

from saga_engine.amqp.content_frames import DEFAULT_FRAME_MAX, OVERHEAD_BYTES
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.topology import DEAD_LETTERS, REPLIES, REQUESTS
from saga_engine.settings import Settings
from saga_engine.store.json_column import dumps
from saga_engine.telemetry.events import MessageDeadLettered
from tests.hostile.bodies import REASONS
from tests.hostile.harness import PARTICIPANT_QUEUE, digest
from tests.hostile.raw_publisher import RawMessage
from tests.kit.amqp_properties import (
    CORRELATION_ID,
    EXPECTED_REASONS,
    HEADERS,
    MESSAGE_ID,
    PROPERTIES,
    REPLY_TO,
    content_header,
    header,
    longstr,
    shortstr,
)
from tests.kit.raw_amqp import BODY, HEADER, METHOD, RawAmqpClient

STORED_BODY_BYTES = Settings().max_dead_letter_body_bytes
UNREADABLE = {name: each for name, each in REASONS.items() if each[1]}
CONTROL_INTERVAL = 12
"""Hostile messages between two control runs."""


async def send_all(harness, messages):
    """Send named messages between control runs; return those that the broker refused, and why."""
    refused = {}
    for number, (name, message) in enumerate(messages.items()):
        refusal = await harness.publisher.send(message)
        if refusal:
            refused[name] = refusal
        if number % CONTROL_INTERVAL == 0:
            await harness.complete_control_runs()
    return refused


def check_dead_letters(found, expected):
    """Each was stored once; `expected` has the body and the possible reasons for each name."""
    problems = []
    by_digest: dict[Any, list[Any]] = {}
    for dead_letter in found:
        by_digest.setdefault((digest(dead_letter.body), dead_letter.body_size), []).append(
            dead_letter
        )
    for name, (body, reasons) in expected.items():
        messages = by_digest.pop((digest(body[:STORED_BODY_BYTES]), len(body)), [])
        if len(messages) != 1 or messages[0].reason not in reasons:
            problems.append((name, reasons, [(each.reason, each.detail) for each in messages]))
    assert problems == []
    assert [(each.reason, each.detail) for all_ in by_digest.values() for each in all_] == []


async def test_bodies_of_replies(harness):
    tokens = await harness.pending_reply_tokens(len(REASONS))
    messages = {
        name: harness.make_reply(token, body)
        for token, (name, (body, _)) in zip(tokens, REASONS.items(), strict=True)
    }
    assert await send_all(harness, messages) == {}
    found = await harness.wait_for_dead_letters(REPLIES, len(UNREADABLE))
    check_dead_letters(
        found, {name: (body, [reason]) for name, (body, reason) in UNREADABLE.items()}
    )
    assert all(dead_letter.run_id for dead_letter in found), "each is stored with its run"


async def test_bodies_of_requests(harness):
    messages = {
        name: RawMessage(REQUESTS, b"start", body, {}) for name, (body, _) in REASONS.items()
    }
    assert await send_all(harness, messages) == {}
    found = await harness.wait_for_dead_letters(REQUESTS, len(REASONS))
    invalid = [DeadLetterReason.NOT_AN_OBJECT, DeadLetterReason.BAD_REQUEST]
    check_dead_letters(
        found,
        {name: (body, [reason] if reason else invalid) for name, (body, reason) in REASONS.items()},
    )


async def test_bodies_of_messages_that_the_broker_dead_lettered(harness):
    messages = {
        name: RawMessage(DEAD_LETTERS, b"", body, {}) for name, (body, _) in REASONS.items()
    }
    assert await send_all(harness, messages) == {}
    found = await harness.wait_for_dead_letters(DEAD_LETTERS, len(REASONS))
    check_dead_letters(
        found,
        {name: (body, [DeadLetterReason.BROKER_OTHER]) for name, (body, _) in REASONS.items()},
    )


async def test_bodies_of_commands(harness):
    messages = commands_with_hostile_bodies(harness)
    assert await send_all(harness, messages) == {}
    await harness.service.events.wait_until(
        lambda _: len(participant_reasons(harness)) >= len(UNREADABLE)
    )
    await harness.shut_down_and_check()
    assert Counter(participant_reasons(harness)) == Counter(
        reason.value for _, reason in UNREADABLE.values() if reason
    )


@pytest.mark.rabbitmq
async def test_bodies_of_commands_are_dead_lettered_under_the_policy(harness_with_policy):
    messages = commands_with_hostile_bodies(harness_with_policy)
    assert await send_all(harness_with_policy, messages) == {}
    found = await harness_with_policy.wait_for_dead_letters(DEAD_LETTERS, len(UNREADABLE))
    check_dead_letters(
        found,
        {
            name: (body, [DeadLetterReason.BROKER_REJECTED])
            for name, (body, _) in UNREADABLE.items()
        },
    )
    for dead_letter in found:
        assert dead_letter.headers["x-death"][0]["queue"] == PARTICIPANT_QUEUE
        assert dead_letter.headers["x-death"][0]["reason"] == "rejected"
        assert dead_letter.headers["idempotency-key"].endswith("/run")
        assert "body" in dead_letter.detail, "it has the explanation that a participant cannot send"


def commands_with_hostile_bodies(harness):
    messages = {}
    for name, (body, _) in REASONS.items():
        valid = harness.make_command({})
        messages[name] = RawMessage(
            valid.exchange, valid.routing_key, body, valid.properties, valid.headers
        )
    return messages


def participant_reasons(harness):
    """The reasons for which the participant dead-lettered messages."""
    return [event.reason for event in harness.service.events.matching(MessageDeadLettered)]


async def test_properties_of_replies(harness):
    tokens = await harness.pending_reply_tokens(len(PROPERTIES))
    messages, expected = {}, {}
    for token, (name, (flag, encoded)) in zip(tokens, PROPERTIES.items(), strict=True):
        body = b'{"did": "%s"}' % name.encode()
        messages[name] = harness.make_reply(token, body).with_properties(flag, encoded)
        reason = (
            DeadLetterReason.UNCORRELATED_REPLY
            if flag == CORRELATION_ID
            else EXPECTED_REASONS.get(name)
        )
        if reason:
            expected[name] = (body, [reason])
    refused = await send_all(harness, messages)
    assert {name[:3] for name in refused} <= {"B41", "B42", "B43", "B44"}
    found = await harness.wait_for_dead_letters(REPLIES, len(expected))
    check_dead_letters(found, expected)


async def test_properties_of_requests(harness):
    messages, expected = {}, {}
    for name, (flag, encoded) in PROPERTIES.items():
        # An unknown field identifies the message.
        body = b'{"run_id": "0198c0de-0000-7000-8000-000000000001", "n": "%s"}' % name.encode()
        messages[name] = RawMessage(REQUESTS, b"status", body).with_properties(flag, encoded)
        if name in EXPECTED_REASONS:
            expected[name] = (body, [EXPECTED_REASONS[name]])
    await send_all(harness, messages)
    found = await harness.wait_for_dead_letters(REQUESTS, len(expected))
    check_dead_letters(found, expected)


async def test_properties_of_messages_that_the_broker_dead_lettered(harness):
    messages = {
        name: RawMessage(DEAD_LETTERS, b"", name.encode()).with_properties(flag, encoded)
        for name, (flag, encoded) in PROPERTIES.items()
    }
    refused = await send_all(harness, messages)
    accepted = {name: each for name, each in messages.items() if name not in refused}
    found = await harness.wait_for_dead_letters(DEAD_LETTERS, len(accepted))
    check_dead_letters(
        found,
        {name: (each.body, [DeadLetterReason.BROKER_OTHER]) for name, each in accepted.items()},
    )
    for dead_letter in found:
        assert len(dumps(dead_letter.headers)) < 3 * Settings().max_header_bytes


@pytest.mark.rabbitmq
async def test_properties_of_commands_under_the_policy(harness_with_policy):
    messages, expected = {}, {}
    for name, (flag, encoded) in PROPERTIES.items():
        messages[name] = harness_with_policy.make_command({"n": name}).with_properties(
            flag, encoded
        )
        if name in EXPECTED_REASONS or flag == REPLY_TO:
            expected[name] = (messages[name].body, [DeadLetterReason.BROKER_REJECTED])
    refused = await send_all(harness_with_policy, messages)
    stored = {name: each for name, each in expected.items() if name not in refused}
    found = await harness_with_policy.wait_for_dead_letters(DEAD_LETTERS, len(stored))
    check_dead_letters(found, stored)
    handled = [each["n"] for each in harness_with_policy.participant.received if "n" in each]
    unknown = {"B31 type not UTF-8"}  # The participant replies that it does not know the command.
    assert Counter(handled) == Counter(
        messages.keys() - refused - EXPECTED_REASONS.keys() - unknown
    )
    assert all(
        dead_letter.headers["x-death"][0]["queue"] == PARTICIPANT_QUEUE for dead_letter in found
    )


def with_large_header(message, frame_bytes):
    """Add a header that makes the content header's frame this long."""
    empty = len(message.with_properties(HEADERS, header(b"z", b"S" + longstr(b""))).content)
    value = b"z" * (frame_bytes - OVERHEAD_BYTES - empty)
    return message.with_properties(HEADERS, header(b"z", b"S" + longstr(value)))


@pytest.mark.rabbitmq
async def test_a_header_as_large_as_rabbitmq_accepts_is_dead_lettered(harness_with_policy):
    """B38: RabbitMQ accepts and delivers 8 bytes more than was agreed on."""
    messages = {
        name: with_large_header(
            RawMessage(REQUESTS, b"start", b"{%s" % name.encode(), {MESSAGE_ID: shortstr(b"m")}),
            DEFAULT_FRAME_MAX + above,
        )
        for name, above in {"as agreed": 0, "one more": 1, "eight more": 8}.items()
    }
    assert await send_all(harness_with_policy, messages) == {}
    found = await harness_with_policy.wait_for_dead_letters(REQUESTS, len(messages))
    check_dead_letters(
        found,
        {name: (each.body, [DeadLetterReason.BAD_HEADERS]) for name, each in messages.items()},
    )


@pytest.mark.rabbitmq
async def test_a_large_header_to_which_the_broker_adds_is_dead_lettered(harness_with_policy):
    """B38: with x-death, the header that the worker gets is longer than a frame may be."""
    messages = {
        f"large {number}": with_large_header(
            harness_with_policy.make_command({"n": number}), DEFAULT_FRAME_MAX
        )
        for number in range(3)
    }
    assert await send_all(harness_with_policy, messages) == {}
    found = await harness_with_policy.wait_for_dead_letters(DEAD_LETTERS, len(messages))
    check_dead_letters(
        found,
        {name: (each.body, [DeadLetterReason.BROKER_REJECTED]) for name, each in messages.items()},
    )
    for dead_letter in found:
        assert dead_letter.headers["x-death"][0]["queue"] == PARTICIPANT_QUEUE


FORGED = [name for name in PROPERTIES if name[:3] in ("B39", "B40", "B41")]


@pytest.mark.rabbitmq
async def test_a_forged_death_history_is_not_believed(harness_with_policy):
    messages = {}
    for name in FORGED:
        valid = harness_with_policy.make_command({}).with_properties(*PROPERTIES[name])
        body = b"{%s" % name.encode()
        messages[name] = RawMessage(
            valid.exchange, valid.routing_key, body, valid.properties, valid.headers
        )
    refused = await send_all(harness_with_policy, messages)
    stored = {name: each for name, each in messages.items() if name not in refused}
    found = await harness_with_policy.wait_for_dead_letters(DEAD_LETTERS, len(stored))
    check_dead_letters(
        found,
        {name: (each.body, [DeadLetterReason.BROKER_REJECTED]) for name, each in stored.items()},
    )
    for dead_letter in found:
        newest = dead_letter.headers["x-death"][0]
        assert (newest["queue"], newest["reason"], newest["count"]) == (
            PARTICIPANT_QUEUE,
            "rejected",
            1,
        )


async def test_routing_keys(harness):
    keys = {
        "B50 255 bytes": b"k" * 255,
        "B50 a wildcard": b"#",
        "B50 wildcards": b"*.*",
        "B50 as many dots as there may be": b"." * 255,
        "B50 not UTF-8": b"\xff\xfe",
        "B50 none": b"",
    }
    messages = {name: RawMessage(REQUESTS, key, name.encode()) for name, key in keys.items()}
    assert await send_all(harness, messages) == {}
    found = await harness.wait_for_dead_letters(REQUESTS, len(messages))
    check_dead_letters(
        found,
        {name: (each.body, [DeadLetterReason.BAD_REQUEST]) for name, each in messages.items()},
    )


async def test_messages_with_the_same_id_are_dead_lettered_one_by_one(harness):
    same = {MESSAGE_ID: shortstr(b"same")}
    messages = {
        f"B45 {number}": RawMessage(REQUESTS, b"start", b"[%d]" % number, same)
        for number in range(20)
    }
    assert await send_all(harness, messages) == {}
    found = await harness.wait_for_dead_letters(REQUESTS, len(messages))
    check_dead_letters(
        found,
        {name: (each.body, [DeadLetterReason.NOT_AN_OBJECT]) for name, each in messages.items()},
    )


async def test_a_sender_that_never_completes_a_message_blocks_no_run(harness):
    """B51: the header announces 200,000 bytes, and one is sent."""
    async with RawAmqpClient.connect(harness.engine.broker_url) as silent:
        silent.send_frame(METHOD, struct.pack(">HHH", 60, 40, 0) + b"\x0dsaga.requests\x05start\0")
        silent.send_frame(HEADER, content_header(0, b"", 200_000))
        silent.send_frame(BODY, b"{")
        await harness.complete_control_runs()
    await harness.shut_down_and_check()


async def test_two_thousand_malformed_messages_are_dead_lettered_and_block_no_run(harness):
    """B52: they are sent at once, and none can be read."""
    bodies = [b"%d{" % number for number in range(2000)]
    sending = [harness.publisher.write(RawMessage(REQUESTS, b"start", body)) for body in bodies]
    assert len(sending) == len(bodies)
    await harness.complete_control_runs()
    found = await harness.wait_for_dead_letters(REQUESTS, len(bodies))
    check_dead_letters(
        found, {str(body): (body, [DeadLetterReason.MALFORMED_JSON]) for body in bodies}
    )


async def test_a_hundred_idle_connections_block_no_run(harness):
    """B52: each has 10 channels and sends nothing."""
    async with AsyncExitStack() as crowd:
        for _ in range(100):
            client = await crowd.enter_async_context(
                RawAmqpClient.connect(harness.engine.broker_url)
            )
            for channel in range(2, 12):
                client.send(commands.Channel.Open(), channel)
        await harness.complete_control_runs()
    await harness.shut_down_and_check()
