"""Folding the events of a stream gives the state of its aggregate."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from saga_engine import Rejected
from saga_engine.errors import InvalidInput, UnreadableEvent
from saga_engine.events import Aggregate, Recorded, decode, replay
from saga_engine.events.aggregates.decision import decide
from saga_engine.events.event_store.recorded import EventData
from saga_engine.payload.guard import TimeLimitExceeded, UserCodeCall
from tests.kit.wallet import (
    Close,
    Closed,
    Deposit,
    Deposited,
    Wallet,
    Withdraw,
    Withdrawn,
    closed,
    deposited,
    recorded,
    recorded_all,
    wallets,
    withdrawn,
)

currencies = st.sampled_from(["EUR", "USD", "€"])
amounts = st.integers(0, 2**53)
commands = st.one_of(
    st.builds(Deposit, amount=amounts, currency=currencies),
    st.builds(Deposit, amount=amounts),
    st.builds(Withdraw, amount=amounts, currency=currencies),
    st.builds(Close),
)
HISTORIES = pytest.mark.parametrize("histories", [100, pytest.param(1000, marks=pytest.mark.long)])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("wallet", []), "The aggregate is of the class str"),
        ((wallets, ["x"]), "The event is of the class str. Give events"),
        ((wallets, None), "What is replayed is of the class NoneType"),
        ((wallets, [], "state"), "The state is of the class str. Give a Wallet"),
    ],
)
def test_what_cannot_be_replayed_is_refused(arguments: Any, sentence: str):
    with pytest.raises(InvalidInput, match=sentence):
        replay(*arguments)


def test_an_event_is_decoded_as_its_class_in_its_newest_version():
    old = recorded(1, EventData("wallet-deposited", 1, {"euros": 7}))
    assert decode(wallets, old) == Deposited(amount=700, currency="EUR")
    assert old.data == {"euros": 7}, "what was stored is not changed"


def test_what_cannot_be_decoded_is_refused():
    other = recorded(1, EventData("order-placed", 1, {}))
    with pytest.raises(UnreadableEvent, match="aggregate 'wallet' does not declare it"):
        decode(wallets, other)
    wrong: Any = "wallet"
    with pytest.raises(InvalidInput, match="The aggregate is of the class str"):
        decode(wrong, other)
    with pytest.raises(InvalidInput, match="The event is of the class str"):
        decode(wallets, wrong)


def history(decided: list[Any]) -> list[Recorded]:
    """The stream of a wallet after these commands; those that are rejected leave no event."""
    events: list[Recorded] = []
    for command in decided:
        try:
            decision = decide(wallets, replay(wallets, events), command)
        except Rejected:
            continue
        first = len(events) + 1
        events += [recorded(first + n, each) for n, each in enumerate(decision.events)]
    return events


def row_by_row(events: list[Recorded]) -> Wallet:
    """The state by hand: the functions themselves, called with the models."""
    wallet = Wallet()
    for each in events:
        match each.type:
            case "wallet-deposited":
                wallet = deposited(wallet, Deposited.model_validate(each.data))
            case "wallet-withdrawn":
                wallet = withdrawn(Withdrawn.model_validate(each.data), wallet)
            case "wallet-closed":
                wallet = closed(wallet, Closed())
            case _:
                raise AssertionError(each.type)
    return wallet


@HISTORIES
def test_replay_equals_folding_row_by_row(histories):
    @settings(max_examples=histories)
    @given(st.lists(commands, max_size=12))
    def check(decided):
        events = history(decided)
        assert replay(wallets, events) == row_by_row(events)

    check()


@HISTORIES
def test_a_snapshot_and_its_tail_equal_replay(histories):
    @settings(max_examples=histories)
    @given(st.lists(commands, max_size=12), st.data())
    def check(decided, data):
        events = history(decided)
        at = data.draw(st.integers(0, len(events)))
        snapshot = wallets.state_type.write(replay(wallets, events[:at]))
        state = wallets.state_type.read(snapshot)
        assert replay(wallets, events[at:], state) == replay(wallets, events)

    check()


@HISTORIES
def test_a_history_of_older_versions_equals_that_of_the_newest(histories):
    written = {1: lambda n: {"euros": n}, 2: lambda n: {"cents": n * 100}}
    newest = {3: lambda n: {"amount": n * 100, "currency": "EUR"}}
    forms = written | newest

    def stream(deposits, version_of) -> list[Recorded]:
        return [
            recorded(n, EventData("wallet-deposited", version, forms[version](amount)))
            for n, (amount, drawn) in enumerate(deposits, 1)
            for version in [version_of(drawn)]
        ]

    @settings(max_examples=histories)
    @given(st.lists(st.tuples(st.integers(0, 2**40), st.sampled_from([1, 2, 3])), max_size=12))
    def check(deposits):
        older = stream(deposits, lambda drawn: drawn)
        assert replay(wallets, older) == replay(wallets, stream(deposits, lambda _: 3))

    check()


def test_the_state_of_an_empty_stream_is_the_first_state_and_each_time_a_new_one():
    first = replay(wallets, [])
    first.balances["EUR"] = 7
    assert replay(wallets, []) == Wallet()


def test_an_undeclared_event_is_an_error_and_not_passed_over():
    event = recorded(3, EventData("wallet-frozen", 1, {}))
    with pytest.raises(UnreadableEvent, match=r"does not declare it\. Deploy the code") as caught:
        replay(wallets, [event])
    assert (caught.value.version, caught.value.event_type) == (3, "wallet-frozen")


def test_a_newer_version_is_an_error():
    event = recorded(3, EventData("wallet-closed", 2, {}))
    with pytest.raises(UnreadableEvent, match="version 2, and this code knows up to 1"):
        replay(wallets, [event])


def failing_aggregate(error: BaseException | None) -> Aggregate:
    class Happened(BaseModel):
        secret: str = "hunter2"

    def fold(wallet: Wallet, event: Any) -> Wallet:
        if error is not None:
            raise error
        return None  # type: ignore[return-value]

    fold.__annotations__["event"] = Happened
    aggregate = Aggregate("thing", state=Wallet)
    aggregate.event("happened")(fold)
    return aggregate


@pytest.mark.parametrize("error", [ValueError("hunter2"), SystemExit(), KeyError("hunter2")])
def test_a_fold_that_raises_is_an_error_of_that_event_without_values(error):
    aggregate = failing_aggregate(error)
    with pytest.raises(UnreadableEvent) as caught:
        replay(aggregate, [recorded(1, EventData("happened", 1, {}))])
    assert f"fold raised {type(error).__name__} at {__file__}:" in caught.value.problem
    assert "hunter2" not in str(caught.value)
    assert "Correct the fold at" in caught.value.fix
    assert caught.value.__cause__ is error, "a traceback shows what the author's code raised"


def test_a_fold_that_forgets_to_return_is_an_error():
    with pytest.raises(UnreadableEvent, match="returned a NoneType instead of a Wallet"):
        replay(failing_aggregate(None), [recorded(1, EventData("happened", 1, {}))])


class TimeLimit:
    """A time limit that is over at the first fold."""

    def __init__(self) -> None:
        self.functions: list[str] = []

    def enter(self, call: UserCodeCall) -> None:
        self.functions.append(call.function)
        if call.function == "deposited":
            raise TimeLimitExceeded(2)

    def leave(self) -> None:
        pass


def test_a_fold_is_interrupted_by_the_time_limit():
    events = recorded_all(decide(wallets, Wallet(), Deposit(amount=7)))
    limit = TimeLimit()
    with pytest.raises(UnreadableEvent, match="deposited did not return within 2 s"):
        replay(wallets, events, time_limit=limit)
    assert limit.functions == ["Deposited", "deposited"]
