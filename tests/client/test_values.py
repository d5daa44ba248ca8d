"""A value goes through client, worker, participant and back, over real servers, and is the same."""

import subprocess
import sys
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from saga_engine import Client, Participant, Saga, Secret
from saga_engine.client import start_in_transaction
from saga_engine.participant.service import ParticipantService
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Emitter
from saga_engine.vocabulary import Status
from saga_engine.worker.worker import Worker
from tests.kit.greeter import run_services
from tests.kit.user_engines import user_engine


class Order(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    order_id: str
    amount: Decimal
    rate: float
    card_number: Secret[str]
    gift_tags: frozenset[str] = frozenset()
    big: int | None = Field(None, alias="bigNumber")


ORDER = Order(
    order_id="o",
    amount=Decimal("1.50"),
    rate=1e22,
    card_number=Secret("4111"),
    gift_tags=frozenset({"b", "a", "c"}),
    big=2**64 - 1,
)
WIRE = {
    "orderId": "o",
    "amount": "1.50",
    "rate": 1e22,
    "cardNumber": "4111",
    "giftTags": ["a", "b", "c"],
    "bigNumber": 2**64 - 1,
}

echo = Saga("echo", version=1, input=Order)


@echo.step(command="echo.first", reply=Order)
def first(order: Order) -> Order:
    assert order == ORDER
    return order


@first.compensation(command="echo.undo")
def undo(order: Order) -> Order:
    return order


@echo.step(command="echo.second", reply=Order, pivot=True)
def second(first: Order) -> Order:
    assert first == ORDER
    return first


class EchoParticipant:
    def __init__(self) -> None:
        self.seen: list[Order] = []
        self.participant = Participant("echo")

        @self.participant.command("echo.first")
        @self.participant.command("echo.second")
        async def give_back(order: Order) -> Order:
            self.seen.append(order)
            return order

        @self.participant.command("echo.undo")
        async def undo_(order: Order) -> None: ...


async def test_a_model_is_transported_by_its_aliases(broker_url, migrated_url):
    own = Settings(database_url=migrated_url, broker_url=broker_url, poll_interval=0.02)
    served = EchoParticipant()
    async with (
        Worker([echo], own, Emitter()) as working,
        ParticipantService([served.participant], own, Emitter()) as serving,
        run_services(working, serving),
        Client(settings=own) as client,
    ):
        sent = await client.start("echo", ORDER, key="sent")
        ending = await client.result(sent.run_id, timeout=60)
        again = await client.start(echo, WIRE | {"rate": 10**22 * 1.0}, key="sent")
        async with user_engine(migrated_url) as engine, engine.begin() as connection:
            kept = await start_in_transaction(connection, echo, ORDER, key="kept", settings=own)
        recorded = await client.result(kept.run_id, timeout=60)
    assert again.run_id == sent.run_id
    assert (ending.status, recorded.status) == (Status.COMPLETED, Status.COMPLETED)
    assert served.seen == [ORDER] * 4
    assert ending.result == recorded.result == {"first": WIRE, "second": WIRE}


PROGRAM = """
from saga_engine.payload.payload import PayloadType
print(PayloadType(set[str]).write({"pear", "fig", "apple", "kiwi", "date"}))
"""


def test_sets_are_written_alike_in_every_process():
    written = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert written == {b"['apple', 'date', 'fig', 'kiwi', 'pear']\n"}
