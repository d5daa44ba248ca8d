"""The class of an event says which event it is; older versions are read as the newest."""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import pytest
from pydantic import BaseModel, field_validator

from saga_engine.errors import DefinitionError, UnreadableEvent
from saga_engine.events.event_store.event_types import (
    EventType,
    add_upcaster,
    declare_event_type,
    event_type_of,
    event_type_of_others,
    missing_upcasters,
)
from saga_engine.events.event_store.recorded import EventData
from saga_engine.payload.payload import PayloadError
from tests.kit.wallet import Closed, Deposited, recorded, wallets


class Row(TypedDict):
    price: int


class Pair(NamedTuple):
    price: int


DEPOSITED = wallets.folds["wallet-deposited"].event_type


def new_model() -> type[BaseModel]:
    class Sold(BaseModel):
        price: int

    return Sold


def new_event_type(version: int = 1) -> EventType:
    return declare_event_type(new_model(), "sold", version, "shop.py:1")


def problem_of(model: Any, name: Any = "sold", version: Any = 1) -> str:
    with pytest.raises(DefinitionError) as caught:
        declare_event_type(model, name, version, "shop.py:7")
    assert caught.value.location == "shop.py:7"
    assert caught.value.fix
    return caught.value.problem


def unreadable(event_type: EventType, data: Any, version: int) -> UnreadableEvent:
    with pytest.raises(UnreadableEvent) as caught:
        event_type.read(recorded(4, EventData(event_type.name, version, data)))
    error = caught.value
    assert (error.stream, error.version, error.event_type) == ("wallet-w1", 4, event_type.name)
    assert str(error).startswith(f"Event 4 of wallet-w1, {event_type.name!r}: {error.problem}.")
    assert str(error).endswith(error.fix)
    return error


def test_a_class_says_which_event_it_is():
    assert event_type_of(Deposited) is DEPOSITED
    assert (DEPOSITED.name, DEPOSITED.version, DEPOSITED.model) == (
        "wallet-deposited",
        3,
        Deposited,
    )
    assert event_type_of(BaseModel) is None
    assert event_type_of(Deposited(amount=1, currency="EUR")) is None


def test_a_subclass_is_another_event():
    class Refunded(Deposited):
        pass

    assert event_type_of(Refunded) is None
    other = declare_event_type(Refunded, "refunded", 1, "shop.py:7")
    assert event_type_of(Refunded) is other
    assert event_type_of(Deposited) is DEPOSITED


def test_a_class_is_declared_once():
    assert "Closed is already event 'wallet-closed', declared at" in problem_of(Closed)


def test_the_same_declaration_of_a_reloaded_module_replaces_the_first():
    model = new_model()
    first = declare_event_type(model, "sold", 1, "shop.py:7")
    second = declare_event_type(model, "sold", 2, "shop.py:7")
    assert event_type_of(model) is second is not first


@pytest.mark.parametrize(
    "name", ["", "order placed", "order..placed", ".placed", "ordér", "a\n", "x" * 128, 7, None]
)
def test_a_name_that_no_routing_key_could_have_is_refused(name):
    assert "is not the name of an event" in problem_of(new_model(), name)


@pytest.mark.parametrize("name", ["order-placed", "Order.Placed_2", "x" * 127])
def test_a_name_of_words_is_accepted(name):
    assert declare_event_type(new_model(), name, 1, "shop.py:7").name == name


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None, 1001])
def test_a_version_is_a_number_from_1(version):
    assert "has version=" in problem_of(new_model(), version=version)


@pytest.mark.parametrize("model", [dict, int, "Sold", None, list[int], Row, Pair])
def test_a_class_whose_instances_do_not_name_it_is_refused(model):
    assert "which is not a class of its own" in problem_of(model)


def test_a_class_that_json_would_alter_is_refused():
    class Odd(BaseModel):
        value: Any = object()
        function: type[int] = int

    assert "The content of event 'sold' does not work" in problem_of(Odd)


def test_a_dataclass_is_an_event_as_well():
    @dataclass(frozen=True)
    class Sold:
        price: int

    sold = declare_event_type(Sold, "sold", 1, "shop.py:7")
    event = sold.write(Sold(7))
    assert event == EventData("sold", 1, {"price": 7})
    assert sold.read(recorded(1, event)) == Sold(7)


def test_an_event_is_written_with_the_newest_version_and_read_unchanged():
    event = Deposited(amount=7, currency="USD")
    written = DEPOSITED.write(event)
    assert written == EventData("wallet-deposited", 3, {"amount": 7, "currency": "USD"})
    assert DEPOSITED.read(recorded(1, written)) == event


def test_an_event_that_would_arrive_altered_is_refused():
    with pytest.raises(PayloadError, match="Deposited was made or changed without validation"):
        DEPOSITED.write(Deposited.model_construct(amount="seven", currency="USD"))  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match="no database accepts"):
        DEPOSITED.write(Deposited(amount=1, currency="\0"))


def test_older_versions_pass_through_each_upcaster_after_them():
    newest = Deposited(amount=700, currency="EUR")
    assert DEPOSITED.read(recorded(1, EventData("wallet-deposited", 1, {"euros": 7}))) == newest
    assert DEPOSITED.read(recorded(1, EventData("wallet-deposited", 2, {"cents": 700}))) == newest


def test_an_upcaster_does_not_change_what_was_recorded():
    data = {"euros": 7}
    DEPOSITED.read(recorded(1, EventData("wallet-deposited", 1, data)))
    assert data == {"euros": 7}


def test_a_newer_version_is_an_error_that_names_what_to_deploy():
    error = unreadable(DEPOSITED, {"amount": 1, "currency": "EUR"}, 4)
    assert error.problem == "it has version 4, and this code knows up to 3"
    assert "Deploy the code that declares version 4" in error.fix


def test_data_that_does_not_fit_is_an_error_without_the_data():
    error = unreadable(DEPOSITED, {"amount": "seven hundred", "currency": "EUR"}, 3)
    assert "does not fit Deposited (amount: int_parsing)" in error.problem
    assert "seven hundred" not in str(error)


def test_an_upcaster_that_raises_is_an_error_with_its_line_and_without_the_data():
    error = unreadable(DEPOSITED, {"secret": 7}, 1)
    assert error.problem.startswith("to_cents raised KeyError at ")
    assert type(error.__cause__) is KeyError
    assert "wallet.py:" in error.problem
    assert "secret" not in str(error)


def test_a_version_without_an_upcaster_is_an_error():
    error = unreadable(new_event_type(2), {}, 1)
    assert error.problem == "no upcast from version 1 is declared"
    assert error.fix == 'Declare one: @....upcast("sold", version=1).'


def test_data_of_the_newest_version_that_does_not_fit_needs_a_default_or_a_new_version():
    fix = unreadable(new_event_type(1), {}, 1).fix
    assert "Let Sold (shop.py:1) read it: a new field needs a default." in fix
    assert "raise the version to 2 and declare an upcast from version 1" in fix


def test_data_that_a_consumers_model_does_not_fit_names_the_model_and_the_command():
    class Named(BaseModel):
        heading: str

    fix = unreadable(event_type_of_others(Named, "sold", "billing.py:18"), {}, 1).fix
    assert fix == (
        "Correct Named (billing.py:18), deploy it, then `saga-engine consumers retry CONSUMER"
        " --reason TEXT`."
    )


def test_an_upcaster_that_returns_nothing_is_an_error():
    event_type = new_event_type(2)
    add_upcaster(event_type, 1, lambda _data: None, "shop.py:9")  # type: ignore[arg-type, return-value]
    assert "returned a NoneType" in unreadable(event_type, {}, 1).problem


def test_a_validator_that_exits_is_an_error_of_that_event():
    class Sold(BaseModel):
        price: int

        @field_validator("price")
        @classmethod
        def _exit(cls, _price: int) -> int:
            raise SystemExit

    event_type = declare_event_type(Sold, "sold", 1, "shop.py:7")
    assert "Sold raised SystemExit" in unreadable(event_type, {"price": 1}, 1).problem


@pytest.mark.parametrize("version", [0, 2, 3, True, "1", None])
def test_an_upcaster_reads_an_older_version(version):
    with pytest.raises(DefinitionError, match="the newest version is 2") as caught:
        add_upcaster(new_event_type(2), version, dict, "shop.py:9")
    assert caught.value.location == "shop.py:9"


def test_a_version_has_one_upcaster():
    event_type = new_event_type(2)
    add_upcaster(event_type, 1, dict, "shop.py:9")
    with pytest.raises(DefinitionError, match=r"two upcasters, the other at shop\.py:9"):
        add_upcaster(event_type, 1, dict, "shop.py:12")


def test_each_older_version_needs_an_upcaster():
    event_type = new_event_type(4)
    add_upcaster(event_type, 2, dict, "shop.py:9")
    (error,) = missing_upcasters([event_type, DEPOSITED])
    assert error.problem == "Event 'sold' has version 4, and nothing reads version 1 and 3."
    assert error.fix == 'Declare @....upcast("sold", version=1).'


def test_data_of_an_upcaster_that_does_not_fit_names_that_upcaster():
    event_type = new_event_type(version=2)

    def add_price(data: dict[str, Any]) -> dict[str, Any]:
        return {"cost": data["cost"]}

    add_upcaster(event_type, 1, add_price, "shop.py:9")
    with pytest.raises(UnreadableEvent, match=r"Correct add_price \(shop.py:9\)"):
        event_type.read(recorded(1, EventData("sold", 1, {"cost": 3})))
