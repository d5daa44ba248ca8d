"""A mistake in the declaration of an aggregate is refused at its line."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from saga_engine.errors import DefinitionError, InvalidInput, collect_errors
from saga_engine.events import Aggregate
from tests.kit.wallet import Deposit, Deposited, Wallet, Withdraw, deposit, deposited, wallets


class Order(BaseModel):
    total: int = 0


class Placed(BaseModel):
    total: int


class Place(BaseModel):
    total: int


def new_event() -> type[BaseModel]:
    class Shipped(BaseModel):
        pass

    return Shipped


def orders() -> Aggregate:
    return Aggregate("order", state=Order)


def definition_error(declare: Callable[[], object]) -> DefinitionError:
    """The error of a declaration; it must be at the line marked `# here`."""
    lines, first = inspect.getsourcelines(declare)
    (here,) = [first + n for n, line in enumerate(lines) if line.rstrip().endswith("# here")]
    with pytest.raises(DefinitionError) as caught:
        declare()
    assert caught.value.location == f"{__file__}:{here}"
    assert caught.value.fix
    return caught.value


def test_the_decorators_return_the_functions():
    assert deposited(Wallet(), Deposited(amount=7, currency="EUR")).balances == {"EUR": 7}
    assert deposit(Wallet(), Deposit(amount=7)) == Deposited(amount=7, currency="EUR")


def test_the_stream_is_named_after_the_aggregate():
    assert wallets.stream("w1") == "wallet-w1"
    assert wallets.stream(7) == "wallet-7"
    assert wallets.stream(UUID(int=0)) == "wallet-00000000-0000-0000-0000-000000000000"
    assert repr(wallets).startswith("Aggregate('wallet', events=['wallet-deposited',")


@pytest.mark.parametrize("aggregate_id", [None, True, 1.5, b"w1", ["w1"]])
def test_an_id_that_is_none_by_mistake_names_no_stream(aggregate_id):
    with pytest.raises(InvalidInput, match="The id of aggregate 'wallet' is a "):
        wallets.stream(aggregate_id)


def test_functions_are_found_by_event_and_command():
    assert list(wallets.folds) == ["wallet-deposited", "wallet-withdrawn", "wallet-closed"]
    assert wallets.folds["wallet-withdrawn"].parameters == ("wallet", "event")
    assert wallets.commands[Withdraw].parameters == ("wallet", "command")


def test_a_state_is_a_class():
    def declare():
        Aggregate("order", state=dict)  # here

    assert "The state of aggregate 'order' is dict" in definition_error(declare).problem


def test_a_state_has_a_first_value():
    def declare():
        Aggregate("order", state=Placed)  # here

    assert "Placed() raises ValidationError" in definition_error(declare).problem


def no_event():
    @orders().event("a")  # here
    def fold(order: Order) -> Order:
        return order


def no_state():
    @orders().event("a")  # here
    def fold(order: Wallet, event: Placed) -> Order:
        return Order()


def two_states():
    @orders().event("a")  # here
    def fold(order: Order, event: Order) -> Order:
        return order


def no_annotation():
    @orders().event("a")  # here
    def fold(order: Order, event) -> Order:
        return order


def three():
    @orders().event("a")  # here
    def fold(order: Order, event: Placed, other: int) -> Order:
        return order


def spread():
    @orders().event("a")  # here
    def fold(order: Order, *event: Placed) -> Order:
        return order


@pytest.mark.parametrize("declare", [no_event, no_state, two_states, no_annotation, three, spread])
def test_a_fold_takes_the_state_and_an_event(declare):
    error = definition_error(declare)
    assert error.problem == "fold does not take the state and one event."
    assert "one Order" in error.fix


def test_a_fold_returns_the_state():
    def nothing():
        @orders().event("a")  # here
        def fold(order: Order, event: Placed):
            return order

    def another():
        @orders().event("a")  # here
        def fold(order: Order, event: Placed) -> Order | None:
            return order

    for each in (nothing, another):
        assert definition_error(each).problem == "fold does not return the state."


def test_a_fold_is_a_plain_function():
    def declare():
        @orders().event("a")  # here
        async def fold(order: Order, event: Placed) -> Order:
            return order

    assert "fold is not a plain function" in definition_error(declare).problem


def test_a_decorator_without_its_arguments_is_refused():
    def declare():
        @orders().event  # type: ignore[arg-type]  # here
        def fold(order: Order, event: Placed) -> Order:
            return order

    error = definition_error(declare)
    assert error.problem == "fold is declared as an event without a name."


def test_an_unknown_annotation_is_refused():
    def declare():
        @orders().event("a")  # here
        def fold(order: Order, event: "Missing") -> Order:  # type: ignore[name-defined]  # noqa: F821
            return order

    assert "Define Missing at the top level" in definition_error(declare).fix


def test_an_event_is_declared_once():
    def declare():
        aggregate = orders()
        model: Any = new_event()

        def fold(order: Order, event: Any) -> Order:
            return order

        fold.__annotations__["event"] = model
        aggregate.event("shipped")(fold)

        @aggregate.event("shipped")  # here
        def again(order: Order, event: Place) -> Order:
            return order

    assert "Event 'shipped' is declared twice" in definition_error(declare).problem


def test_an_upcaster_follows_its_event():
    def declare():
        @orders().upcast("order-placed", version=1)  # here
        def upcast(data: dict[str, Any]) -> dict[str, Any]:
            return data

    assert "has no event 'order-placed'" in definition_error(declare).problem


def with_event(version: int = 2) -> Aggregate:
    aggregate = orders()

    @aggregate.event("order-placed", version=version)
    def fold(order: Order, event: Placed) -> Order:
        return order

    return aggregate


def test_an_upcaster_takes_the_data_of_one_event():
    def declare():
        @with_event().upcast("order-placed", version=1)  # type: ignore[type-var]  # here
        def upcast() -> dict[str, Any]:
            return {}

    problem = definition_error(declare).problem
    assert problem == "upcast does not take the data of an event."


def test_an_upcaster_reads_an_older_version():
    def declare():
        @with_event().upcast("order-placed", version=2)  # here
        def upcast(data: dict[str, Any]) -> dict[str, Any]:
            return data

    assert "reads version=2, and the newest version is 2" in definition_error(declare).problem


def test_a_command_takes_the_state_and_a_command():
    def declare():
        @with_event().command  # here
        def place(command: Place) -> Placed:
            return Placed(total=1)

    assert definition_error(declare).problem == "place does not take the state and one command."


def test_a_command_says_what_it_returns():
    def declare():
        @with_event().command  # here
        def place(order: Order, command: Place):
            return Placed(total=1)

    assert definition_error(declare).problem == "place does not say what it returns."


def test_a_command_is_a_class_with_one_function():
    def no_class():
        @with_event().command  # here
        def place(order: Order, command: dict[str, Any]) -> Placed:
            return Placed(total=1)

    def twice():
        aggregate = with_event()

        @aggregate.command
        def place(order: Order, command: Place) -> Placed:
            return Placed(total=1)

        @aggregate.command  # here
        def place_again(order: Order, command: Place) -> Placed:
            return Placed(total=1)

    assert "is not a class of its own" in definition_error(no_class).problem
    assert "Command Place has two functions" in definition_error(twice).problem


def test_an_event_is_not_a_command():
    def declare():
        @with_event().command  # here
        def place(order: Order, command: Placed) -> Placed:
            return command

    assert (
        "Placed is an event, and place takes it as a command" in definition_error(declare).problem
    )


def test_an_object_that_is_not_a_function_is_refused():
    with pytest.raises(DefinitionError, match="A partial is declared where a function belongs"):
        with_event().command(partial(deposit))


def test_collected_errors_do_not_stop_the_declaration_of_the_others():
    with collect_errors() as collected:
        aggregate = Aggregate("order", state=dict)

        @aggregate.event("a")
        def fold(order: Order) -> Order:
            return order

        @aggregate.command
        def place(order: Order) -> Placed:
            return Placed(total=1)

    assert len(collected) == 3
    assert aggregate.has_invalid_declarations
    assert not aggregate.folds
    assert not aggregate.commands
