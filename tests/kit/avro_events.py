"""Orders whose schemas are registered, feeds of them in Avro, and how any library reads these."""

import io
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import fastavro
from pydantic import BaseModel, Field

from saga_engine.events import ANY, Append, EventData, Events, Feed
from saga_engine.payload.payload import PayloadType
from saga_engine.schemas import registration, registry
from saga_engine.schemas.avro_schema import avro_type
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.kit.declared_schemas import declared_type

Money = Annotated[Decimal, Field(max_digits=10, decimal_places=2)]
ORDERS_ONLY = ("order-*",)


class Placed(BaseModel):
    customer: str
    total: Money


class PlacedAbroad(Placed):
    """The next class of the same version: it reads what the first has written."""

    currency: str = "EUR"


def avro_feed(sink: str, destination: str, *, name: str = "", **options: Any) -> Feed:
    """A feed of orders in Avro: `kafka` to a topic, or `stream` to a stream."""
    feed = Feed(name or f"to-{sink}", streams=ORDERS_ONLY)
    if sink == "kafka":
        given = {"partitions": 3, "replication": 1, **options}
        feed.to_kafka(destination, **{"encoding": "avro", **given})
    else:
        feed.to_stream(destination, **{"encoding": "avro", **options})
    return feed


async def register(
    database: Database, model: Any, version: int = 1, subject: str = "order-placed"
) -> int:
    """Register the schema of a class; its id."""
    declared = declared_type(model, version, subject)
    async with database.transaction() as tx:
        assert await registration.register(tx, [declared], Settings()) == []
        return (await registry.find_ids(tx, [declared]))[registry.key_of(declared)]


async def place(events: Events, stream: str, placed: BaseModel, version: int = 1) -> int:
    """Append an order as its class writes it, with its schema if there is one; its position."""
    payload_type = PayloadType(type(placed))
    data = EventData(
        "order-placed",
        version,
        payload_type.write(placed),
        declared_type(type(placed), version).fingerprint,
    )
    return (await events.append(Append(stream, [data], ANY))).position


async def avro_schemas(database: Database) -> Mapping[int, Any]:
    """The registered Avro schemas by their ids, as `schemas export --avro` prints them."""
    async with database.transaction() as tx:
        stored = await registry.read(tx)
    return {each.id: avro_type(each.subject, each.schema.writes).schema for each in stored}


def read_framed(message: bytes, schemas: Mapping[int, Any]) -> tuple[int, Any]:
    """The id of a message's schema and its value, as fastavro reads it with that schema."""
    assert message[0] == 0
    schema_id = int.from_bytes(message[1:5], "big")
    source = io.BytesIO(message[5:])
    value = fastavro.schemaless_reader(source, fastavro.parse_schema(schemas[schema_id]), None)
    assert source.read() == b""
    return schema_id, value
