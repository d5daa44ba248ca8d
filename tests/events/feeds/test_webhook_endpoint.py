"""A receiver that takes nothing is left alone for growing pauses, and asked again."""

import asyncio
from uuid import UUID

import pytest

from saga_engine.events.feeds.webhook_answer import DELIVERED, Answer, Verdict
from saga_engine.events.feeds.webhook_endpoint import WebhookEndpoint
from saga_engine.settings import Settings
from tests.kit.feeds import order_event
from tests.kit.programs import wait_until_true

OVERLOADED = Answer(Verdict.UNAVAILABLE, "is overloaded.")
LOG_ID = UUID(int=1)


def endpoint(answers, **settings):
    """An endpoint whose requests get these answers, and what was sent."""
    sent = []

    async def post(request):
        sent.append(request)
        return answers[min(len(sent), len(answers)) - 1]

    return WebhookEndpoint("https://shop.example", LOG_ID, post, Settings(**settings)), sent


def in_seconds(seconds):
    return asyncio.get_running_loop().time() + seconds


async def test_nothing_is_sent_in_a_pause():
    receiver, sent = endpoint([OVERLOADED, DELIVERED])
    assert (await receiver.deliver(order_event(1), in_seconds(1))).verdict is Verdict.UNAVAILABLE
    assert receiver.is_paused
    assert receiver.problem == "Webhook https://shop.example is overloaded."
    assert (await receiver.deliver(order_event(2), in_seconds(1))).verdict is Verdict.UNAVAILABLE
    assert len(sent) == 1


async def test_after_the_pause_it_is_asked_again_and_the_problem_is_gone():
    receiver, sent = endpoint([OVERLOADED, DELIVERED], webhook_retry_delay=0.001)
    await receiver.deliver(order_event(1), in_seconds(1))

    async def over():
        return not receiver.is_paused

    await wait_until_true(over, interval=0.001)
    assert await receiver.deliver(order_event(1), in_seconds(1)) is DELIVERED
    assert (len(sent), receiver.problem) == (2, None)


@pytest.mark.parametrize(("asked", "least", "most"), [(None, 4, 5), (60, 60, 60), (900, 100, 100)])
async def test_a_pause_is_as_long_as_the_receiver_asks_within_the_maximum(asked, least, most):
    receiver, _ = endpoint([OVERLOADED], webhook_retry_delay_max=100.0)
    earliest = in_seconds(least)
    receiver.pause("is overloaded.", asked)
    assert earliest <= receiver._paused_until <= in_seconds(most)


async def test_pauses_grow_once_for_each():
    receiver, _ = endpoint([OVERLOADED])
    receiver.pause("is down.")
    first = receiver._paused_until
    receiver.pause("is down.")  # a second request that was under way
    assert receiver._paused_until == first
    assert receiver._failures == 1


async def test_an_event_that_no_slot_is_free_for_in_time_is_not_sent():
    began, release = asyncio.Event(), asyncio.Event()

    async def post(_):
        began.set()
        await release.wait()
        return DELIVERED

    receiver = WebhookEndpoint("https://x", LOG_ID, post, Settings(webhook_concurrency=1))
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(receiver.deliver(order_event(1), in_seconds(60)))
        await began.wait()
        late = await receiver.deliver(order_event(2), in_seconds(0.01))
        assert late.verdict is Verdict.UNAVAILABLE
        assert not receiver.is_paused
        release.set()
    assert first.result() is DELIVERED
