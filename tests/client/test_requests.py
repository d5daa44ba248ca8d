"""A request is sent until it is answered, and an error says why it is not."""

import asyncio

import pytest

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.amqp.publisher import Publisher
from saga_engine.client import Client
from saga_engine.errors import (
    BrokerUnavailable,
    InvalidInput,
    TimedOut,
)
from saga_engine.protocol.answer import Answer, AnswerOutcome, answer_address, encode_answer
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.request import StartRequest, decode_request
from saga_engine.protocol.topology import ENGINE_TOPOLOGY, REQUESTS
from saga_engine.vocabulary import ConnectionRole
from tests.kit.greeter import ANN


async def test_an_input_that_is_too_large_is_refused_before_it_is_sent(client):
    with pytest.raises(InvalidInput, match="262144"):
        await client.start("greet", {"name": "x" * 300_000})


async def test_a_start_without_any_engine_is_refused(settings):
    hasty = settings.model_copy(update={"client_timeout": 1.0})
    async with Client(settings=hasty) as client:
        with pytest.raises(BrokerUnavailable, match="No worker has ever run on this broker"):
            await client.start("greet", ANN)


async def test_an_unanswered_start_is_sent_again_as_the_same_request(settings):
    async with (
        SupervisedConnection(
            settings.require_broker_url(),
            role=ConnectionRole.CONSUME,
            settings=settings,
            topology=ENGINE_TOPOLOGY,
        ) as link,
        Consumer(link, [REQUESTS]) as requests,
        Client(settings=settings) as client,
        asyncio.TaskGroup() as group,
    ):
        starting = group.create_task(client.start("greet", ANN))
        received: list[Delivery] = []
        while len(received) < 2:  # The first one stays unanswered.
            received += await requests.take(10)
        first, second = [decode_request(each, settings) for each in received[:2]]
        assert isinstance(first, StartRequest)
        assert first == second
        answer = Answer(outcome=AnswerOutcome.EXISTING, run_id=first.run_id)
        back = answer_address(received[1])
        assert back is not None
        await Publisher(link).publish([encode_answer(back, answer)])
        handle = await starting
    assert (handle.run_id, handle.existing) == (first.run_id, False)


async def test_an_unanswered_start_times_out_and_names_its_run(settings):
    hasty = settings.model_copy(update={"client_timeout": 0.5})
    async with (
        SupervisedConnection(
            hasty.require_broker_url(),
            role=ConnectionRole.CONSUME,
            settings=hasty,
            topology=ENGINE_TOPOLOGY,
        ),
        Client(settings=hasty) as client,
    ):
        with pytest.raises(TimedOut, match=r"No worker answered in 0.5 seconds. Run [0-9a-f-]{36}"):
            await client.start("greet", ANN)
