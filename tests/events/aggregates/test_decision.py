"""A command causes events that can be stored, read and folded, or none."""

from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine import Rejected
from saga_engine.errors import DecisionFailed, InvalidInput
from saga_engine.events import Aggregate, replay
from saga_engine.events.aggregates.decision import decide
from saga_engine.events.event_store.event_types import declare_event_type
from saga_engine.events.event_store.recorded import EventData
from tests.kit.wallet import (
    Close,
    Deposit,
    Deposited,
    Wallet,
    Withdraw,
    recorded_all,
    wallets,
)


class Count(BaseModel):
    value: int = 0


class Counted(BaseModel):
    by: int


class Tally(BaseModel):
    by: int = 1


def counting(result: Any = None, next_state: Any = None, error: BaseException | None = None):
    """An aggregate whose command returns *result* or raises *error*; its fold may be wrong."""
    aggregate = Aggregate("count", state=Count)

    @aggregate.event("counted")
    def counted(count: Count, event: Counted) -> Count:
        return Count(value=count.value + event.by) if next_state is None else next_state

    @aggregate.command
    def tally(count: Count, command: Tally) -> Counted | None:
        count.value += 1000  # a mistake that must not count twice
        command.by += 1000
        if error is not None:
            raise error
        return Counted(by=command.by - 1000) if result is None else result

    return aggregate


def failure(aggregate: Aggregate) -> DecisionFailed:
    with pytest.raises(DecisionFailed) as caught:
        decide(aggregate, Count(), Tally())
    assert caught.value.command == "Tally"
    assert caught.value.location.startswith(f"{__file__}:")
    assert caught.value.fix
    return caught.value


def test_a_command_causes_an_event_and_the_state_after_it():
    decision = decide(wallets, Wallet(), Deposit(amount=7))
    assert decision.events == (EventData("wallet-deposited", 3, {"amount": 7, "currency": "EUR"}),)
    assert decision.state == Wallet(balances={"EUR": 7})


def test_a_command_may_cause_no_event_or_several():
    assert decide(wallets, Wallet(), Deposit(amount=0)).events == ()
    decision = decide(wallets, Wallet(balances={"EUR": 7, "USD": 1}), Close())
    assert [each.type for each in decision.events] == [
        "wallet-withdrawn",
        "wallet-withdrawn",
        "wallet-closed",
    ]
    assert decision.state.closed


def test_the_state_after_a_decision_is_that_of_a_replay():
    first = decide(wallets, Wallet(), Deposit(amount=7))
    second = decide(wallets, first.state.model_copy(deep=True), Withdraw(amount=3))
    assert replay(wallets, recorded_all(first, second)) == second.state


def test_a_rejection_reaches_the_caller_unchanged():
    with pytest.raises(Rejected) as caught:
        decide(wallets, Wallet(), Withdraw(amount=7))
    assert caught.value.failure.code == "not_enough_money"
    assert caught.value.failure.details == {"currency": "EUR"}


def test_a_command_that_changes_its_state_or_itself_changes_nothing():
    command = Tally(by=2)
    decision = decide(counting(), Count(value=1), command)
    assert decision.state == Count(value=3)
    assert command == Tally(by=2)


def test_an_unknown_command_is_refused_with_those_that_exist():
    with pytest.raises(InvalidInput, match=r"no command Tally\. Its commands: Close, Deposit"):
        decide(wallets, Wallet(), Tally())


def test_a_subclass_of_a_command_is_another_command():
    class Refund(Deposit):
        pass

    with pytest.raises(InvalidInput, match="no command Refund"):
        decide(wallets, Wallet(), Refund(amount=7))


def test_a_command_that_its_class_would_refuse_is_refused():
    with pytest.raises(InvalidInput, match="Deposit was made or changed without validation"):
        decide(wallets, Wallet(), Deposit.model_construct(amount="much", currency="EUR"))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [ValueError("hunter2"), SystemExit("hunter2")])
def test_a_command_that_raises_has_failed_and_shows_no_values(error):
    failed = failure(counting(error=error))
    assert f"tally raised {type(error).__name__} at {__file__}:" in failed.problem
    assert "hunter2" not in str(failed)


@pytest.mark.parametrize(
    "result", [7, Count(), [Counted(by=1), "x"], iter([Counted(by=1)]), Rejected("no")]
)
def test_what_is_not_an_event_of_the_aggregate_is_refused(result):
    assert "which is not an event of 'count'" in failure(counting(result)).problem


def test_an_event_of_another_aggregate_is_refused():
    assert "returned a Deposited" in failure(counting(Deposited(amount=1, currency="EUR"))).problem


def test_a_class_with_the_name_of_an_event_is_not_that_event():
    class Recount(Counted):
        pass

    declare_event_type(Recount, "counted", 1, "shop.py:7")
    assert "returned a Recount" in failure(counting(Recount(by=1))).problem


def test_an_event_that_cannot_be_stored_is_refused():
    failed = failure(counting(Counted.model_construct(by="x")))  # type: ignore[arg-type]
    assert "cannot be stored: Counted was made or changed without validation" in failed.problem


def test_an_event_that_its_own_fold_cannot_apply_is_refused():
    assert "counted returned a int instead of a Count" in failure(counting(next_state=7)).problem


def test_a_state_that_a_snapshot_would_alter_is_refused():
    failed = failure(counting(next_state=Count.model_construct(value="x")))  # type: ignore[arg-type]
    assert "cannot be stored: Count was made or changed without validation" in failed.problem


def test_a_failed_command_keeps_what_its_function_raised_as_the_cause():
    cause = ValueError("the payload")
    with pytest.raises(DecisionFailed) as caught:
        decide(counting(error=cause), Count(), Tally())
    assert caught.value.__cause__ is cause
    assert "payload" not in str(caught.value)


def test_the_class_of_a_command_is_not_a_command():
    with pytest.raises(InvalidInput, match="The command is the class Tally"):
        decide(counting(), Count(), Tally)
