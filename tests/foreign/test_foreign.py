"""Participants in plain pika and amqplib, written from docs/protocol.md, serve place-order."""

import asyncio
import json
import os
import re
import shutil
import sys
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Basic
from pamqp.common import FieldTable

from examples.place_order.sagas import place_order
from saga_engine.protocol.reply import encode_reply
from saga_engine.vocabulary import Outcome, Status
from tests.kit.connections import raw_channel
from tests.kit.engine import engine_harness
from tests.kit.promises import check_promises

HERE = Path(__file__).parent
INSTALL = "sh tests/tools/node.sh"
ELSEWHERE = ("inventory.reserve", "inventory.release", "order.confirm", "order.cancel")
REPLIES = {
    "inventory.reserve": {"reservation_id": "r-1"},
    "order.confirm": {"order_id": "o-1"},
}


def pika_program():
    missing(find_spec("pika") is None, "pika is not installed", "pip install -e '.[dev]'")
    return (sys.executable, str(HERE / "payment.py"))


def node_program():
    node = shutil.which("node")
    missing(node is None, "Node.js is not installed", INSTALL)
    amqplib = HERE / "node_modules" / "amqplib"
    missing(not amqplib.exists(), "amqplib is not installed", INSTALL)
    return (node, str(HERE / "payment.mjs"))


def missing(is_missing, what, command):
    """Skip without amqplib, and fail on CI."""
    if is_missing:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"{what}. Run `{command}`.")


class Payment:
    """The foreign process and the lines it prints: command, order, outcome."""

    def __init__(self, process):
        self._process = process

    async def line(self):
        async with asyncio.timeout(30):
            printed = await self._process.stdout.readline()
        assert printed, "it ended"
        return printed.decode().strip()


@pytest.fixture(params=[pika_program, node_program], ids=["pika", "amqplib"])
async def payment(request, rabbitmq_url):
    """One of the two programs, serving payment.charge and payment.refund."""
    process = await asyncio.create_subprocess_exec(
        *request.param(), rabbitmq_url, stdout=asyncio.subprocess.PIPE
    )
    try:
        payment = Payment(process)
        assert await payment.line() == "ready"
        yield payment
    finally:
        process.kill()
        await process.communicate()


@pytest.fixture
async def place(payment, rabbitmq_url, migrated_url):  # noqa: ARG001 - payment has to serve
    """Start an order; the kit serves its other commands. Return the worker and the run's id."""
    async with started(rabbitmq_url, migrated_url) as place:
        yield place


@asynccontextmanager
async def started(broker_url, database_url):
    async with engine_harness(broker_url, database_url) as engine:
        worker = await engine.start_worker(place_order)
        shop, asker = await engine.start_participant(ELSEWHERE), await engine.connect_client()
        for command in ELSEWHERE:
            shop.reply_makers[command] = lambda received: [
                encode_reply(received, Outcome.SUCCEEDED, REPLIES.get(received.command.name))
            ]

        async def place(card):
            order = {"order_id": "o-1", "sku": "A1", "quantity": 1, "amount": "9.90"}
            run_id = await asker.start("place-order", input={**order, "card": card})
            return await worker.events.wait_for_end(run_id), shop

        yield place
        await check_promises(engine.database)


@pytest.mark.rabbitmq
async def test_an_order_that_is_charged_completes(payment, place):
    status, shop = await place("ok")
    assert status == Status.COMPLETED
    assert shop.received[-1].command.payload["charge_id"] == "c-o-1"
    assert await payment.line() == "payment.charge o-1 succeeded"


@pytest.mark.rabbitmq
async def test_an_order_with_a_declined_card_is_compensated(payment, place):
    status, shop = await place("declined")
    assert status == Status.COMPENSATED
    assert shop.command_names == ["inventory.reserve", "inventory.release"]
    assert await payment.line() == "payment.charge o-1 rejected"


@pytest.mark.rabbitmq
async def test_a_repeated_command_is_processed_once(payment, rabbitmq_url):
    headers: FieldTable = {
        "idempotency-key": "r/charge/action/1",
        "saga-run-id": "r",
        "saga-step": "charge",
    }
    answers: asyncio.Queue[Any] = asyncio.Queue()
    async with raw_channel(rabbitmq_url) as channel:
        queue = (await channel.queue_declare(exclusive=True)).queue
        await channel.queue_bind(queue, "saga.replies", "here")
        await channel.basic_consume(queue, answers.put, no_ack=True)
        for token in ("token-1", "token-2"):
            properties = Basic.Properties(
                message_type="payment.charge",
                correlation_id=token,
                reply_to="here",
                headers=headers,
            )
            await channel.basic_publish(
                b'{"order_id": "o-1", "amount": "9.90", "card": "ok"}',
                exchange="saga.commands",
                routing_key="payment.charge",
                properties=properties,
            )
        async with asyncio.timeout(30):
            first, second = await answers.get(), await answers.get()
    assert [first.header.properties.correlation_id, second.header.properties.correlation_id] == [
        "token-1",
        "token-2",
    ]
    assert json.loads(first.body) == json.loads(second.body) == {"charge_id": "c-o-1"}
    assert await payment.line() == "payment.charge o-1 succeeded"
    assert await payment.line() == "payment.charge o-1 again"


DOCUMENT = HERE.parents[1] / "docs" / "protocol.md"


def from_the_document(name):
    """A function from docs/protocol.md."""
    found = re.search(rf"```python\n(def {name}\(.+?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    return names[name]


@pytest.fixture
async def rpc_server(rabbitmq_url):
    """An RPC server in pika without knowledge of the engine; it acknowledges, then replies."""
    missing(find_spec("pika") is None, "pika is not installed", "pip install -e '.[dev]'")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "rpc_server.py"), rabbitmq_url),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        server = Payment(process)
        assert await server.line() == "ready"
        yield server
    finally:
        process.kill()
        await process.communicate()


@pytest.fixture
def pika_channel(rabbitmq_url):
    import pika  # noqa: PLC0415 - without pika only these tests fail

    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_url))
    yield connection.channel()
    connection.close()


@pytest.mark.rabbitmq
async def test_a_bound_rpc_server_is_a_participant(
    rpc_server, pika_channel, rabbitmq_url, migrated_url
):
    async with started(rabbitmq_url, migrated_url) as place:
        bind = from_the_document("bind")
        bind(pika_channel, "rpc.payment", "payment.charge")
        status, shop = await place("ok")
    assert status == Status.COMPLETED
    assert shop.received[-1].command.payload["charge_id"] == "c-rpc"
    assert await rpc_server.line() == "acknowledged"
    assert await rpc_server.line() == "answered"


@pytest.mark.rabbitmq
async def test_an_unbound_command_no_longer_reaches_the_participant(payment, pika_channel):
    import pika  # noqa: PLC0415 - as above

    from_the_document("unbind")(pika_channel, "payment.charge")
    pika_channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError):
        pika_channel.basic_publish("saga.commands", "payment.charge", b"{}", mandatory=True)
    properties = pika.BasicProperties(
        type="payment.refund",
        correlation_id="token",
        reply_to="saga.participant.payment",  # any queue: the program waits until it is confirmed
        headers={"idempotency-key": "k", "saga-run-id": "r", "saga-step": "charge"},
    )
    body = b'{"order_id": "o-1"}'
    pika_channel.basic_publish("saga.commands", "payment.refund", body, properties)
    assert await payment.line() == "payment.refund o-1 succeeded"
