"""
A saga whose payloads all contain one secret, its participant, and access to all that stores them.

`scenario` decides: declined and failing at the charge, raising in its mapping function.
"""

from collections import defaultdict
from contextlib import asynccontextmanager
from datetime import timedelta

from pydantic import BaseModel, Field
from sqlalchemy import text

from saga_engine import Failed, Participant, Rejected, Retry, Saga
from tests.kit.connections import raw_channel

SECRET = "canary-4711"
SHORT_DELAY = timedelta(milliseconds=10)
TWO_ATTEMPTS = Retry(attempts=2, initial=SHORT_DELAY, maximum=SHORT_DELAY)


class Order(BaseModel):
    # Not a default: that would be part of the schema, which is stored in clear text.
    card: str = Field(default_factory=lambda: SECRET)
    scenario: str = "fine"


class Receipt(BaseModel):
    number: str


def order_saga():
    saga = Saga("order", version=1, input=Order)

    @saga.step(command="stock.reserve", reply=Receipt, retry=TWO_ATTEMPTS)
    def reserve(order: Order) -> Order:
        return order

    @reserve.compensation(command="stock.release", retry=TWO_ATTEMPTS)
    def release(reserve: Receipt | None) -> Receipt:
        return Receipt(number=reserve.number if reserve else "")

    @saga.step(command="card.charge", reply=Receipt, retry=TWO_ATTEMPTS)
    def charge(order: Order, reserve: Receipt) -> Order:
        if order.scenario == "raising":
            raise ValueError(order.card)
        return order.model_copy(update={"card": reserve.number})

    @charge.compensation(command="card.refund", retry=TWO_ATTEMPTS)
    def refund(order: Order) -> Order:
        return order

    return saga


class CardParticipant:
    """The participant; `asked` are the payloads its handlers saw."""

    def __init__(self, database):
        self.commands: list[BaseModel] = []
        self.participant = shop = Participant("shop", database=database)

        @shop.command("stock.reserve")
        async def reserve(command: Order) -> Receipt:
            return self._record(command)

        @shop.compensation("stock.release", of="stock.reserve")
        async def release(command: Receipt) -> None:
            self.commands.append(command)

        @shop.command("card.charge")
        async def charge(command: Order) -> Receipt:
            self._record(command)
            if command.scenario == "declined":
                raise Rejected("declined", f"No {command.card}", {"card": command.card})
            if command.scenario == "failing":
                raise Failed("gateway", f"Where is {command.card}?")
            return Receipt(number=command.card)

        @shop.compensation("card.refund", of="card.charge")
        async def refund(command: Order) -> Receipt:
            return self._record(command)

    def _record(self, command: Order) -> Receipt:
        self.commands.append(command)
        return Receipt(number=command.card)


class WireTap:
    """A queue that gets every message of the engine's exchanges; `messages` has all of them."""

    def __init__(self):
        self.messages = defaultdict(list)

    async def take(self, message):
        self.messages[message.delivery.exchange].append(
            repr((message.body, message.header.properties.headers, message.delivery.routing_key))
        )


@asynccontextmanager
async def wire_tap(broker_url):
    """Listen to every exchange that a worker has declared."""
    wire_tap_queue = WireTap()
    async with raw_channel(broker_url) as channel:
        queue = (await channel.queue_declare("", exclusive=True)).queue
        for exchange in ("commands", "requests", "events"):
            await channel.queue_bind(queue, f"saga.{exchange}", "#")
        await channel.queue_bind(queue, "saga.replies", "saga.replies")
        await channel.basic_consume(queue, wire_tap_queue.take, no_ack=True)
        yield wire_tap_queue


async def record_all_writes(database):
    """From now on, keep a copy of every row that is ever written."""
    async with database.transaction() as tx:
        await tx.execute(text("CREATE TABLE ever_written (source text, content text)"))
        await tx.execute(text(_COPY_FUNCTION))
        for name in (await tx.execute(text(_TABLES))).scalars().all():
            await tx.execute(text(_COPY_TRIGGER.format(name=name)))


async def all_written_rows(database):
    """Every row that was ever written, as text, by its table."""
    found = defaultdict(list)
    async with database.transaction() as tx:
        for source, content in await tx.execute(text("SELECT * FROM ever_written")):
            found[source].append(content)
    return found


def contains_secret(outputs, secret=SECRET):
    """Whether the secret is in one of these, as text or as a column of bytes shows it."""
    return any(secret in each or secret.encode().hex() in each for each in outputs)


_COPY_FUNCTION = """
    CREATE FUNCTION copy_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.ever_written VALUES (TG_ARGV[0], NEW::text);
        RETURN NULL;
    END $$"""
_TABLES = """
    SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND (n.nspname = 'saga_engine' OR c.relname = 'saga_barrier')"""
_COPY_TRIGGER = """
    CREATE TRIGGER copied AFTER INSERT OR UPDATE ON {name}
    FOR EACH ROW EXECUTE FUNCTION copy_row('{name}')"""
