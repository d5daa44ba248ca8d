"""A webhook receives each event, signed and in the order of its stream, through its faults."""

import asyncio
import socket

import pytest

from saga_engine.errors import ConfigurationError
from saga_engine.events.feeds import feed_actions
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedState
from saga_engine.events.readers.operator_audit import Operator
from saga_engine.telemetry.events import FeedEventDeadLettered, FeedEventsPassed, FeedStopped
from tests.kit.certificates import CertificateAuthority
from tests.kit.event_database import connected
from tests.kit.feeds import every_event, wait_for_feed
from tests.kit.programs import wait_until_true
from tests.kit.projections import append_one, append_orders, cancelled, placed
from tests.kit.webhook_receiver import (
    ACCEPT,
    SECRET,
    answer_endlessly,
    answer_garbage,
    reset,
    respond,
    running_receiver,
    send_endless_headers,
    stay_silent,
)
from tests.kit.webhooks import (
    HOOKS,
    LOCAL,
    VARIABLE,
    running_webhook,
    stored_webhook,
    wait_for_waiting,
    waiting,
    webhook_feed,
)

OPERATOR = Operator("mara", "tested")


def refuse_stream(stream, behaviour):
    """Accept all but the events of one stream."""
    return lambda delivery: behaviour if delivery.stream == stream else ACCEPT


def refuse_first(behaviour, times=1):
    """Misbehave for the first requests, then accept."""
    left = [times]

    def behave(_):
        left[0] -= 1
        return behaviour if left[0] >= 0 else ACCEPT

    return behave


@pytest.mark.parametrize("batch_size", [3, pytest.param(500, marks=pytest.mark.long)])
async def test_every_event_is_received_in_the_order_of_its_stream(
    events, event_url, receiver, webhook_database, batch_size
):
    await append_orders(events, 6)
    async with running_webhook(event_url, webhook_feed(receiver.url), feed_batch_size=batch_size):
        await append_orders(events, 3, seed=1)
        await wait_for_feed(webhook_database, await events.position())
    expected = await every_event(events)
    receiver.check(expected)
    assert len(receiver.requests) == len(expected)


async def test_a_feed_sends_what_it_selects(events, event_url, receiver, webhook_database):
    for stream in ("order-1", "account-1"):
        await append_one(events, stream, placed(), cancelled())
    feed = webhook_feed(receiver.url, streams=["order-*"], types=["order-placed"])
    async with running_webhook(event_url, feed):
        await wait_for_feed(webhook_database, await events.position())
    assert [each.stream for each in receiver.accepted] == ["order-1"]


async def test_while_an_event_is_refused_its_stream_waits_and_others_go_on(
    events, event_url, receiver, webhook_database
):
    receiver.behave = refuse_stream("order-1", respond(500))
    await append_one(events, "order-1", placed(), cancelled(), placed())
    await append_one(events, "order-2", placed(), cancelled())
    async with running_webhook(event_url, webhook_feed(receiver.url)):
        await wait_for_feed(webhook_database, await events.position())
        await append_one(events, "order-1", cancelled())
        last = await append_one(events, "order-3", placed())
        await wait_for_feed(webhook_database, last)
        (stream,) = await waiting(webhook_database)
        assert (stream.stream, stream.next_version) == ("order-1", 1)
        assert "answered 500: the receiver failed. Its log says why" in stream.problem
        assert {each.stream for each in receiver.accepted} == {"order-2", "order-3"}
        assert {each.id for each in receiver.requests if each.stream == "order-1"} == {
            str(stream.event_id)
        }
        receiver.behave = lambda _: ACCEPT
        await wait_for_waiting(webhook_database, 0)
        await append_one(events, "order-1", placed())
        await wait_for_feed(webhook_database, await events.position())
    receiver.check(await every_event(events))


@pytest.mark.parametrize("limit", [{"event_batch_size": 1}, {"event_batch_bytes": 1_024}])
@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_a_waiting_stream_is_delivered_whole_when_a_page_has_one_event(
    events, event_url, receiver, webhook_database, limit, action
):
    receiver.behave = refuse_stream("order-1", respond(400))
    await append_one(events, "order-1", *[placed("ada" * 500) for _ in range(4)])
    async with running_webhook(
        event_url, webhook_feed(receiver.url), webhook_retry_timeout=0.05, **limit
    ) as running:
        await wait_for_feed(webhook_database, await events.position())
        (dead,) = await running.emitted.wait_for(FeedEventDeadLettered)
        receiver.behave = lambda _: ACCEPT
        async with webhook_database.transaction() as tx:
            if action == "retry":
                await feed_actions.retry(tx, HOOKS, OPERATOR)
            else:
                await feed_actions.discard(tx, HOOKS, dead.position, OPERATOR)
        await wait_for_waiting(webhook_database, 0)
    receiver.check((await every_event(events))[action == "discard" :])


async def test_an_event_counts_as_published_when_it_is_delivered(
    events, event_url, receiver, webhook_database
):
    receiver.behave = refuse_stream("order-1", respond(500))
    await append_one(events, "order-1", placed(), cancelled())
    await append_one(events, "order-2", placed())
    async with running_webhook(event_url, webhook_feed(receiver.url)) as running:
        passed = running.emitted
        await wait_for_feed(webhook_database, await events.position())
        assert await passed.wait_for(FeedEventsPassed) == [
            FeedEventsPassed(feed="orders", sink=Sink.WEBHOOK, published=1, skipped=0)
        ]
        receiver.behave = lambda _: ACCEPT
        await wait_for_waiting(webhook_database, 0)
        assert sum(each.published for each in passed.matching(FeedEventsPassed)) == 3


async def test_a_later_event_of_a_waiting_stream_can_be_refused_too(
    events, event_url, receiver, webhook_database
):
    await append_one(events, "order-1", placed(), cancelled(), placed())
    receiver.behave = lambda each: (
        respond(500)
        if each.event.get_type() == "order-cancelled" or not receiver.accepted
        else ACCEPT
    )
    receiver.behave = refuse_first(respond(500))
    async with running_webhook(event_url, webhook_feed(receiver.url)):
        await wait_for_feed(webhook_database, await events.position())
        receiver.behave = lambda each: (
            respond(422) if each.event.get_type() == "order-cancelled" else ACCEPT
        )

        async def second_refused():
            return any(each.next_version == 2 for each in await waiting(webhook_database))

        await wait_until_true(second_refused, interval=0.01)
        receiver.behave = lambda _: ACCEPT
        await wait_for_waiting(webhook_database, 0)
    receiver.check(await every_event(events))


@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_an_event_that_is_refused_for_too_long_is_a_dead_letter(
    events, event_url, receiver, webhook_database, action
):
    receiver.behave = refuse_stream("order-1", respond(400))
    await append_one(events, "order-1", placed(), cancelled())
    await append_one(events, "order-2", placed())
    async with running_webhook(
        event_url, webhook_feed(receiver.url), webhook_retry_timeout=0.2
    ) as running:
        (dead,) = await running.emitted.wait_for(FeedEventDeadLettered)
        (stream,) = await waiting(webhook_database)
        assert (stream.retry_at, stream.next_position) == (None, dead.position)
        assert "did not accept the signature" in dead.problem
        assert (await stored_webhook(webhook_database)).state is FeedState.ACTIVE
        assert {each.stream for each in receiver.accepted} == {"order-2"}
        receiver.behave = lambda _: ACCEPT
        async with webhook_database.transaction() as tx:
            if action == "retry":
                assert await feed_actions.retry(tx, HOOKS, OPERATOR) == dead.position
            else:
                await feed_actions.discard(tx, HOOKS, dead.position, OPERATOR)
        await wait_for_waiting(webhook_database, 0)
    expected = await every_event(events)
    receiver.check(expected if action == "retry" else expected[1:])


async def test_a_redirect_is_not_followed_and_the_feed_waits(
    events, event_url, receiver, webhook_authority, webhook_database
):
    with running_receiver(webhook_authority.issue("elsewhere")) as elsewhere:
        receiver.behave = lambda _: respond(307, location=elsewhere.url)
        await append_one(events, "order-1", placed())
        async with running_webhook(event_url, webhook_feed(receiver.url)) as running:
            await receiver.wait_for_requests(2)
            assert (await stored_webhook(webhook_database)).position == 0
            assert await waiting(webhook_database) == []
            problem = await running.problem()
            receiver.behave = lambda _: ACCEPT
            await wait_for_feed(webhook_database, await events.position())
        assert elsewhere.requests == []
    assert "answered 307, a redirect, which is never followed. Declare the URL" in problem
    receiver.check(await every_event(events))


async def test_a_receiver_that_wants_no_more_events_stops_the_feed(
    events, event_url, receiver, webhook_database
):
    receiver.behave = lambda _: respond(410)
    await append_one(events, "order-1", placed(), cancelled())
    async with running_webhook(event_url, webhook_feed(receiver.url)) as running:
        (stopped,) = await running.emitted.wait_for(FeedStopped)
        assert "answered 410: the receiver wants no more events" in stopped.problem
        assert "saga-engine feeds retry orders --sink webhook" in stopped.problem
        assert len(receiver.requests) == 1
        receiver.behave = lambda _: ACCEPT
        async with webhook_database.transaction() as tx:
            await feed_actions.retry(tx, HOOKS, OPERATOR)
        await wait_for_feed(webhook_database, await events.position())
    receiver.check(await every_event(events))


async def test_a_receiver_that_is_overloaded_is_left_alone_as_long_as_it_asks(
    events, event_url, receiver, webhook_database
):
    receiver.behave = refuse_first(respond(429, retry_after="1"))
    await append_orders(events, 3)
    async with running_webhook(
        event_url, webhook_feed(receiver.url), webhook_concurrency=1, webhook_retry_delay_max=60.0
    ) as running:
        await receiver.wait_for_requests(1)
        await receiver.wait_for(1)
        times = [int(each.headers["webhook-timestamp"]) for each in receiver.requests]
        assert times[1] > times[0]
        await wait_for_feed(webhook_database, await events.position())
        assert running.publisher.problem is None
    receiver.check(await every_event(events))


FAULTS = {
    "a reset": (reset, "ended the connection without an answer"),
    "silence": (stay_silent, "did not answer within 0.3 s (webhook_timeout)"),
    "garbage": (answer_garbage, "ended the connection without an answer"),
    "endless headers": (send_endless_headers, "ended the connection without an answer"),
    "an endless error": (answer_endlessly(500), "answered 500"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_through_a_fault_of_the_receiver_every_event_arrives(
    events, event_url, receiver, webhook_database, fault
):
    behaviour, words = FAULTS[fault]
    receiver.behave = refuse_stream("order-1", behaviour)
    await append_one(events, "order-1", placed(), cancelled())
    await append_one(events, "order-2", placed())
    async with running_webhook(event_url, webhook_feed(receiver.url), webhook_timeout=0.3):
        await wait_for_feed(webhook_database, await events.position())
        (stream,) = await waiting(webhook_database)
        assert words in stream.problem
        receiver.behave = lambda _: ACCEPT
        await wait_for_waiting(webhook_database, 0)
    receiver.check(await every_event(events))


async def test_a_connection_whose_handshake_takes_too_long_is_closed(
    events, event_url, webhook_database, monkeypatch
):
    monkeypatch.setenv(VARIABLE, SECRET)
    closed = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # to the end
        closed.set()
        writer.close()

    await append_one(events, "order-1", placed())
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
        async with running_webhook(event_url, webhook_feed(url), webhook_timeout=0.2):
            async with asyncio.timeout(30):
                await closed.wait()


async def test_an_endless_answer_of_success_is_cut_off_and_counts(
    events, event_url, receiver, webhook_database
):
    receiver.behave = lambda _: answer_endlessly(200)
    await append_one(events, "order-1", placed())
    async with running_webhook(
        event_url, webhook_feed(receiver.url), webhook_max_response_bytes=100_000
    ):
        await wait_for_feed(webhook_database, await events.position())
        assert await waiting(webhook_database) == []
        assert len(receiver.requests) == 1
        assert receiver.cut_off.wait(timeout=10)


async def test_a_receiver_that_is_down_is_waited_for(
    events, event_url, receiver, webhook_authority, webhook_database
):
    with running_receiver(webhook_authority.issue("gone")) as gone:
        url = gone.url
    await append_orders(events, 2)
    async with running_webhook(event_url, webhook_feed(url)) as running:
        assert "is unreachable: no connection was made" in await running.problem()
        assert await waiting(webhook_database) == []
    assert (await stored_webhook(webhook_database)).position == 0
    async with running_webhook(event_url, webhook_feed(receiver.url)):
        await wait_for_feed(webhook_database, await events.position())
    receiver.check(await every_event(events))


@pytest.mark.parametrize(
    "case",
    [
        ({"webhook_private_networks": ""}, None, "which resolves to "),
        ({}, "https://169.254.169.254/latest", "169.254.169.254, and that is not a public address"),
        (
            {"webhook_private_networks": "169.254.0.0/16"},
            "https://169.254.169.254/",
            "not a public",
        ),
        ({}, "https://0x7f.1:22/", "has port 22"),
        ({}, "http://localhost:8000/", "webhook_local_http"),
        ({}, "https://no-such-host.invalid/", "cannot be resolved"),
    ],
)
async def test_nothing_is_sent_to_an_address_that_is_not_allowed(
    events, event_url, receiver, webhook_database, case
):
    settings, url, words = case
    await append_one(events, "order-1", placed())
    feed = webhook_feed(url or receiver.url)
    async with running_webhook(event_url, feed, **settings) as running:
        assert words in await running.problem()
    assert receiver.requests == []
    assert (await stored_webhook(webhook_database)).position == 0


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    events, event_url, receiver, webhook_database, monkeypatch
):
    """DNS rebinding: a name server gives another address when it is asked again."""
    look_ups = []
    look_up = socket.getaddrinfo

    def rebinding(host, *arguments, **options):
        if host in ("localhost", b"localhost"):
            look_ups.append(host)
            host = "127.0.0.1" if len(look_ups) == 1 else "169.254.169.254"
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    await append_one(events, "order-1", placed())
    async with running_webhook(event_url, webhook_feed(receiver.url)):
        await wait_for_feed(webhook_database, await events.position())
    assert len(look_ups) == 1
    assert receiver.accepted[0].headers["host"] == receiver.url.split("/")[2]


@pytest.mark.parametrize(
    "case", [("elsewhere.example", "our authority"), ("localhost", "another authority")]
)
async def test_a_certificate_that_is_not_valid_is_refused(
    events, event_url, receiver, webhook_authority, tmp_path, case
):
    host, issuer = case
    ours = issuer == "our authority"
    authority = webhook_authority if ours else CertificateAuthority(tmp_path, "other")
    await append_one(events, "order-1", placed())
    with running_receiver(authority.issue("wrong", hosts=(host,))) as wrong:
        async with running_webhook(event_url, webhook_feed(wrong.url)) as running:
            problem = await running.problem()
            assert "shows a certificate that is not valid" in problem
            assert "SSL_CERT_FILE" in problem
        assert wrong.requests == []


async def test_a_receiver_with_another_secret_refuses_and_no_secret_is_shown(
    events, event_url, receiver, webhook_database
):
    receiver.secret = "whsec_" + "b3RoZXIgc2VjcmV0IG9mIHRoZSByZWNlaXZlcg=="
    await append_one(events, "order-1", placed())
    async with running_webhook(event_url, webhook_feed(receiver.url)) as running:
        await wait_for_waiting(webhook_database, 1)
        (stream,) = await waiting(webhook_database)
        assert "answered 401: it did not accept the signature" in stream.problem
        assert "Give the receiver the secret of the feed" in stream.problem
        receiver.secret = SECRET
        await wait_for_waiting(webhook_database, 0)
    receiver.check(await every_event(events))
    assert SECRET.removeprefix("whsec_") not in f"{running.emitted}{receiver.requests[0].headers}"


@pytest.mark.parametrize("secret", ["old", "new"])
async def test_while_a_secret_is_replaced_receivers_with_either_verify(
    events, event_url, receiver, webhook_database, monkeypatch, secret
):
    new = "whsec_" + "bmV3IHNlY3JldCBvZiB0aGUgcmVjZWl2ZXI="
    monkeypatch.setenv(VARIABLE, f"{new} {SECRET}")
    receiver.secret = new if secret == "new" else SECRET
    await append_one(events, "order-1", placed())
    async with running_webhook(event_url, webhook_feed(receiver.url)):
        await wait_for_feed(webhook_database, await events.position())
    receiver.check(await every_event(events))


@pytest.mark.parametrize(
    ("value", "problem"), [("", "is not set"), ("4711", "does not begin with whsec_")]
)
async def test_a_missing_or_wrong_secret_is_named_and_not_shown(
    event_url, receiver, monkeypatch, value, problem
):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigurationError, match=problem) as raised:
        async with running_webhook(event_url, webhook_feed(receiver.url)):
            pass
    assert VARIABLE in str(raised.value)
    assert "4711" not in str(raised.value)


async def test_a_rewound_feed_sends_events_again_with_their_ids(
    events, event_url, receiver, webhook_database
):
    receiver.behave = refuse_stream("order-2", respond(500))
    first = await append_one(events, "order-1", placed())
    await append_one(events, "order-2", placed(), cancelled())
    last = await append_one(events, "order-1", cancelled())
    async with running_webhook(event_url, webhook_feed(receiver.url)):
        await wait_for_feed(webhook_database, last)
        await wait_for_waiting(webhook_database, 1)
        receiver.behave = lambda _: ACCEPT
        async with webhook_database.transaction() as tx:
            await feed_actions.rewind(tx, HOOKS, first, OPERATOR)
        await receiver.wait_for(4)
        await wait_for_feed(webhook_database, last)
        await wait_for_waiting(webhook_database, 0)
    expected = await every_event(events)
    receiver.check(expected)
    assert [each.id for each in receiver.accepted].count(str(expected[-1].id)) >= 2


async def test_no_more_streams_wait_than_a_setting_says(
    events, event_url, receiver, webhook_database
):
    receiver.behave = lambda _: respond(500)
    for stream in range(6):
        await append_one(events, f"order-{stream}", placed())
    async with running_webhook(
        event_url, webhook_feed(receiver.url), webhook_max_waiting_streams=2, webhook_concurrency=1
    ) as running:
        await wait_for_waiting(webhook_database, 2)

        async def noticed():
            return "2 streams wait already" in (running.publisher.problem or "")

        await wait_until_true(noticed, interval=0.01)
        assert len(await waiting(webhook_database)) == 2
        receiver.behave = lambda _: ACCEPT
        await wait_for_feed(webhook_database, await events.position())
        await wait_for_waiting(webhook_database, 0)
    receiver.check(await every_event(events))


async def test_another_process_goes_on_with_the_waiting_streams(
    events, event_url, receiver, webhook_database
):
    receiver.behave = refuse_stream("order-1", respond(500))
    await append_one(events, "order-1", placed(), cancelled())
    async with running_webhook(event_url, webhook_feed(receiver.url)):
        await wait_for_feed(webhook_database, await events.position())
    await append_one(events, "order-1", placed())
    receiver.behave = lambda _: ACCEPT
    async with running_webhook(event_url, webhook_feed(receiver.url)):
        await wait_for_feed(webhook_database, await events.position())
        await wait_for_waiting(webhook_database, 0)
    receiver.check(await every_event(events))


INSERT = """
INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
VALUES ('order-1', 1, 'order-placed', 1, $1, $2)"""


@pytest.mark.parametrize(
    "case",
    [
        ("1e400", "{}", "cannot be sent this event"),
        ("{}", f'{{"actor": "{"x" * 20_000}"}}', "its attributes have"),
    ],
)
async def test_the_feed_stops_at_an_event_that_cannot_be_a_request(
    events, event_url, receiver, webhook_database, case
):
    data, metadata, words = case
    async with connected(event_url) as connection:
        await connection.execute(INSERT, data, metadata)
    async with running_webhook(event_url, webhook_feed(receiver.url)) as running:
        (stopped,) = await running.emitted.wait_for(FeedStopped)
    assert words in stopped.problem
    assert receiver.requests == []


async def test_local_http_serves_development(events, event_url, webhook_database, monkeypatch):
    monkeypatch.setenv(VARIABLE, SECRET)
    with running_receiver(None) as local:
        await append_one(events, "order-1", placed())
        settings = {**LOCAL, "webhook_private_networks": "", "webhook_local_http": True}
        async with running_webhook(event_url, webhook_feed(local.url), **settings):
            await wait_for_feed(webhook_database, await events.position())
        local.check(await every_event(events))
