"""A saga has a schema for each command, each reply that has a type, and each compensation."""

from typing import Any

from pydantic import BaseModel

from saga_engine import Saga
from saga_engine.schemas.declared_schema import SchemaKind
from saga_engine.schemas.saga_schemas import schemas_of_saga


class Reserve(BaseModel):
    sku: str


class Reserved(BaseModel):
    place: str


class Release(BaseModel):
    sku: str


def test_each_message_of_a_saga_has_a_schema():
    saga = Saga("buy", version=3, input=Reserve)

    @saga.step(command="stock.reserve", reply=Reserved)
    def reserve(order: Reserve) -> Reserve:
        return order

    @reserve.compensation(command="stock.release")
    def release(order: Reserve) -> Release:
        return Release(sku=order.sku)

    @saga.step(command="mail.send")
    def send(order: Reserve) -> Reserve:
        return order

    schemas = {each.subject: each for each in schemas_of_saga(saga)}
    assert {name: each.kind for name, each in schemas.items()} == {
        "buy/reserve": SchemaKind.COMMAND,
        "buy/reserve/reply": SchemaKind.REPLY,
        "buy/reserve/compensation": SchemaKind.COMMAND,
        "buy/send": SchemaKind.COMMAND,
    }
    assert {each.schema.version for each in schemas.values()} == {3}
    assert {each.kind.default_compatibility.value for each in schemas.values()} == {
        "forward",
        "backward",
    }
    assert "place" in str(schemas["buy/reserve/reply"].schema.reads)
    assert __file__ in schemas["buy/send"].source_location


def test_a_reply_that_nothing_describes_is_named_and_any_json_is_not():
    class Greeted(BaseModel):
        text: str

        @classmethod
        def __get_pydantic_json_schema__(cls, *_: Any) -> Any:
            raise ValueError

    saga = Saga("greet", version=1, input=Reserve)

    @saga.step(command="greet", reply=Greeted)
    def greet(order: Reserve) -> Reserve:
        return order

    @saga.step(command="ask", reply=Any)
    def ask(order: Reserve) -> Reserve:
        return order

    described = {each.subject: each.is_described for each in schemas_of_saga(saga)}
    assert described == {"greet/greet": True, "greet/greet/reply": False, "greet/ask": True}
