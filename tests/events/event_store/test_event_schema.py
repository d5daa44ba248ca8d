"""The schema of an event knows how older versions of it are read."""

from typing import Any

from pydantic import BaseModel

from saga_engine.events import Aggregate
from saga_engine.events.event_store.event_schema import event_schemas
from saga_engine.events.event_store.event_types import schema_of_event
from saga_engine.schemas.declared_schema import SchemaKind


class Account(BaseModel):
    balance: int = 0


def opened_type(upcasted: Any) -> Any:
    """An event of version 2, whose upcaster gives some data."""

    class Opened(BaseModel):
        owner: str
        currency: str

    accounts = Aggregate("account", state=Account)

    @accounts.event("account-opened", version=2)
    def opened(account: Account, _: Opened) -> Account:
        return account

    @accounts.upcast("account-opened", version=1)
    def add_currency(data: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = upcasted(data)
        return result

    return accounts.folds["account-opened"].event_type


def test_an_event_has_the_schema_of_its_class():
    event_type = opened_type(dict)
    (declared,) = event_schemas([event_type, event_type])
    assert (declared.subject, declared.kind) == ("account-opened", SchemaKind.EVENT)
    assert declared.schema.version == 2
    assert declared.schema.writes["required"] == ["owner", "currency"]  # type: ignore[index, call-overload]
    assert declared.source_location == event_type.source_location
    assert schema_of_event(event_type)[0] is declared.schema


def test_an_example_of_an_older_version_is_read_by_the_upcasters():
    (declared,) = event_schemas([opened_type(lambda data: data | {"currency": "EUR"})])
    assert declared.read_example
    assert declared.read_example(1, {"owner": "mara"}) is None


def test_an_upcaster_that_gives_what_does_not_fit_is_named():
    (declared,) = event_schemas([opened_type(dict)])
    assert declared.read_example
    failure = declared.read_example(1, {"owner": "mara"})
    assert failure
    assert failure.problem == "its data does not fit Opened (currency: missing)"
    assert failure.fix.startswith("Correct ")
    assert failure.fix.endswith("it gives version 2.")


def test_an_upcaster_that_raises_is_named():
    (declared,) = event_schemas([opened_type(lambda data: data["missing"])])
    assert declared.read_example
    failure = declared.read_example(1, {"owner": "mara"})
    assert failure
    assert failure.problem.startswith("add_currency raised KeyError")
