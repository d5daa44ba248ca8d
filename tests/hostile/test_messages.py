"""
Whatever a message holds: set aside once with its reason and its bytes, among good neighbours.

Every hostile message goes through a real broker, between good ones, into each queue that is read.
The house says at the end that no connection was lost, nothing came twice and no queue holds any.
"""

import struct
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pamqp import commands

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
    MESSAGE_ID,
    PROPERTIES,
    REPLY_TO,
    content_header,
    shortstr,
)
from tests.kit.raw_amqp import BODY, HEADER, METHOD, RawAmqpClient

KEPT = Settings().max_dead_letter_body_bytes
UNREADABLE = {name: each for name, each in REASONS.items() if each[1]}
ENOUGH = 12
"""Hostile messages between two looks at the neighbours."""


async def send_all(house, letters):
    """Send named letters among good ones; the names of those the broker itself refused."""
    refused = {}
    for number, (name, letter) in enumerate(letters.items()):
        why = await house.sender.send(letter)
        if why:
            refused[name] = why
        if number % ENOUGH == 0:
            await house.neighbours()
    return refused


def check_letters(found, expected):
    """Each is there once, with its reason and its bytes; `expected` maps names to both."""
    problems = []
    by_digest: dict[Any, list[Any]] = {}
    for letter in found:
        by_digest.setdefault((digest(letter.body), letter.body_size), []).append(letter)
    for name, (body, reasons) in expected.items():
        letters = by_digest.pop((digest(body[:KEPT]), len(body)), [])
        if len(letters) != 1 or letters[0].reason not in reasons:
            problems.append((name, reasons, [(each.reason, each.detail) for each in letters]))
    assert problems == []
    assert [(each.reason, each.detail) for all_ in by_digest.values() for each in all_] == []


async def test_bodies_with_a_genuine_token(house):
    tokens = await house.tokens(len(REASONS))
    letters = {
        name: house.reply(token, body)
        for token, (name, (body, _)) in zip(tokens, REASONS.items(), strict=True)
    }
    assert await send_all(house, letters) == {}
    found = await house.settled(REPLIES, len(UNREADABLE))
    check_letters(found, {name: (body, [why]) for name, (body, why) in UNREADABLE.items()})
    assert all(letter.run_id for letter in found), "each belongs to its run"


async def test_bodies_of_requests(house):
    letters = {
        name: RawMessage(REQUESTS, b"start", body, {}) for name, (body, _) in REASONS.items()
    }
    assert await send_all(house, letters) == {}
    found = await house.settled(REQUESTS, len(REASONS))
    none = ["not_an_object", "bad_request"]
    check_letters(
        found, {name: (body, [why] if why else none) for name, (body, why) in REASONS.items()}
    )


async def test_bodies_that_the_broker_gave_up(house):
    letters = {name: RawMessage(DEAD_LETTERS, b"", body, {}) for name, (body, _) in REASONS.items()}
    assert await send_all(house, letters) == {}
    found = await house.settled(DEAD_LETTERS, len(REASONS))
    check_letters(found, {name: (body, ["broker_other"]) for name, (body, _) in REASONS.items()})


async def test_bodies_of_commands(house):
    letters = ruined_commands(house)
    assert await send_all(house, letters) == {}
    await house.service.told.until(lambda _: len(aside(house)) >= len(UNREADABLE))
    await house.end()
    assert Counter(aside(house)) == Counter(why.value for _, why in UNREADABLE.values() if why)


@pytest.mark.rabbitmq
async def test_bodies_of_commands_reach_the_dead_letters_under_the_policy(policed):
    house = policed
    assert await send_all(house, ruined_commands(house)) == {}
    found = await house.settled(DEAD_LETTERS, len(UNREADABLE))
    check_letters(
        found, {name: (body, ["broker_rejected"]) for name, (body, _) in UNREADABLE.items()}
    )
    for letter in found:
        assert letter.headers["x-death"][0]["queue"] == PARTICIPANT_QUEUE
        assert letter.headers["x-death"][0]["reason"] == "rejected"
        assert letter.headers["idempotency-key"].endswith("/run")
        assert "body" in letter.detail, "it says what a participant cannot"


def ruined_commands(house):
    found = {}
    for name, (body, _) in REASONS.items():
        sound = house.command({})
        found[name] = RawMessage(
            sound.exchange, sound.routing_key, body, sound.properties, sound.headers
        )
    return found


def aside(house):
    """Why the participant set messages aside, one word for each."""
    return [fact.reason for fact in house.service.told.of(MessageDeadLettered)]


async def test_properties_of_replies(house):
    tokens = await house.tokens(len(PROPERTIES))
    letters, expected = {}, {}
    for token, (name, (flag, encoded)) in zip(tokens, PROPERTIES.items(), strict=True):
        body = b'{"did": "%s"}' % name.encode()
        letters[name] = house.reply(token, body).with_properties(flag, encoded)
        why = "uncorrelated_reply" if flag == CORRELATION_ID else EXPECTED_REASONS.get(name)
        if why:
            expected[name] = (body, [why])
    refused = await send_all(house, letters)
    assert {name[:3] for name in refused} <= {"B41", "B42", "B43", "B44"}
    found = await house.settled(REPLIES, len(expected))
    check_letters(found, expected)


async def test_properties_of_requests(house):
    letters, expected = {}, {}
    for name, (flag, encoded) in PROPERTIES.items():
        # A field nobody knows makes it tell from the others.
        body = b'{"run_id": "0198c0de-0000-7000-8000-000000000001", "n": "%s"}' % name.encode()
        letters[name] = RawMessage(REQUESTS, b"status", body).with_properties(flag, encoded)
        if name in EXPECTED_REASONS:
            expected[name] = (body, [EXPECTED_REASONS[name]])
    await send_all(house, letters)
    found = await house.settled(REQUESTS, len(expected))
    check_letters(found, expected)


async def test_properties_of_what_the_broker_gave_up(house):
    letters = {
        name: RawMessage(DEAD_LETTERS, b"", name.encode()).with_properties(flag, encoded)
        for name, (flag, encoded) in PROPERTIES.items()
    }
    refused = await send_all(house, letters)
    taken = {name: letter for name, letter in letters.items() if name not in refused}
    found = await house.settled(DEAD_LETTERS, len(taken))
    check_letters(found, {name: (letter.body, ["broker_other"]) for name, letter in taken.items()})
    for letter in found:
        assert len(dumps(letter.headers)) < 3 * Settings().max_header_bytes


@pytest.mark.rabbitmq
async def test_properties_of_commands_under_the_policy(policed):
    house = policed
    letters, expected = {}, {}
    for name, (flag, encoded) in PROPERTIES.items():
        letters[name] = house.command({"n": name}).with_properties(flag, encoded)
        if name in EXPECTED_REASONS or flag == REPLY_TO:
            expected[name] = (letters[name].body, ["broker_rejected"])
    refused = await send_all(house, letters)
    wanted = {name: each for name, each in expected.items() if name not in refused}
    found = await house.settled(DEAD_LETTERS, len(wanted))
    check_letters(found, wanted)
    performed = [each["n"] for each in house.kit.received if "n" in each]
    unknown = {"B31 type not UTF-8"}  # no command of this participant; that is what it replies
    assert Counter(performed) == Counter(
        letters.keys() - refused - EXPECTED_REASONS.keys() - unknown
    )
    assert all(letter.headers["x-death"][0]["queue"] == PARTICIPANT_QUEUE for letter in found)


FORGED = [name for name in PROPERTIES if name[:3] in ("B39", "B40", "B41")]


@pytest.mark.rabbitmq
async def test_a_forged_history_hides_nothing_and_sends_nothing_elsewhere(policed):
    house = policed
    letters = {}
    for name in FORGED:
        sound = house.command({}).with_properties(*PROPERTIES[name])
        body = b"{%s" % name.encode()
        letters[name] = RawMessage(
            sound.exchange, sound.routing_key, body, sound.properties, sound.headers
        )
    refused = await send_all(house, letters)
    wanted = {name: each for name, each in letters.items() if name not in refused}
    found = await house.settled(DEAD_LETTERS, len(wanted))
    check_letters(found, {name: (each.body, ["broker_rejected"]) for name, each in wanted.items()})
    for letter in found:
        newest = letter.headers["x-death"][0]
        assert (newest["queue"], newest["reason"], newest["count"]) == (
            PARTICIPANT_QUEUE,
            "rejected",
            1,
        )


async def test_routing_keys(house):
    keys = {
        "B50 255 bytes": b"k" * 255,
        "B50 a wildcard": b"#",
        "B50 wildcards": b"*.*",
        "B50 as many dots as there may be": b"." * 255,
        "B50 not UTF-8": b"\xff\xfe",
        "B50 none": b"",
    }
    letters = {name: RawMessage(REQUESTS, key, name.encode()) for name, key in keys.items()}
    assert await send_all(house, letters) == {}
    found = await house.settled(REQUESTS, len(letters))
    check_letters(found, {name: (each.body, ["bad_request"]) for name, each in letters.items()})


async def test_one_message_id_for_everything(house):
    same = {MESSAGE_ID: shortstr(b"same")}
    letters = {
        f"B45 {number}": RawMessage(REQUESTS, b"start", b"[%d]" % number, same)
        for number in range(20)
    }
    assert await send_all(house, letters) == {}
    found = await house.settled(REQUESTS, len(letters))
    check_letters(found, {name: (each.body, ["not_an_object"]) for name, each in letters.items()})


async def test_a_sender_that_never_ends_its_message_holds_up_nobody(house):
    """B51: the header says 200,000 bytes, and a few are sent."""
    async with RawAmqpClient.connect(house.engine.broker_url) as silent:
        silent.send_frame(METHOD, struct.pack(">HHH", 60, 40, 0) + b"\x0dsaga.requests\x05start\0")
        silent.send_frame(HEADER, content_header(0, b"", 200_000))
        silent.send_frame(BODY, b"{")
        await house.neighbours()
    await house.end()


async def test_many_small_messages_are_all_set_aside_and_hold_up_nobody(house):
    """B52: 2,000 at once, of which none can be read."""
    bodies = [b"%d{" % number for number in range(2000)]
    sending = [house.sender.write(RawMessage(REQUESTS, b"start", body)) for body in bodies]
    assert len(sending) == len(bodies)
    await house.neighbours()
    found = await house.settled(REQUESTS, len(bodies))
    check_letters(found, {str(body): (body, ["malformed_json"]) for body in bodies})


async def test_a_quiet_crowd_of_connections_holds_up_nobody(house):
    """B52: 100 connections with 10 channels each, none of which says any more."""
    async with AsyncExitStack() as crowd:
        for _ in range(100):
            client = await crowd.enter_async_context(RawAmqpClient.connect(house.engine.broker_url))
            for channel in range(2, 12):
                client.send(commands.Channel.Open(), channel)
        await house.neighbours()
    await house.end()
