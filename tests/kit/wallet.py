"""An aggregate of tests: a wallet, whose events have two older versions."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from saga_engine import Rejected
from saga_engine.events import Aggregate, Recorded
from saga_engine.events.aggregates.decision import Decision
from saga_engine.events.event_store.recorded import EventData


class Wallet(BaseModel):
    """The state of a wallet."""

    balances: dict[str, int] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    closed: bool = False


class Deposited(BaseModel):
    """Money arrived. Version 1 had `euros`, version 2 `cents`; both had no currency."""

    amount: int
    currency: str


class Withdrawn(BaseModel):
    """Money left."""

    amount: int
    currency: str = "EUR"


class Closed(BaseModel):
    """Nothing may happen anymore."""


class Deposit(BaseModel):
    """A command that causes one event, or none."""

    amount: int
    currency: str = "EUR"


class Withdraw(BaseModel):
    """A command that may be rejected."""

    amount: int
    currency: str = "EUR"


class Close(BaseModel):
    """A command that causes several events."""


wallets = Aggregate("wallet", state=Wallet)


@wallets.event("wallet-deposited", version=3)
def deposited(wallet: Wallet, event: Deposited) -> Wallet:
    """Add to the balance of that currency."""
    balance = wallet.balances.get(event.currency, 0) + event.amount
    return wallet.model_copy(update={"balances": wallet.balances | {event.currency: balance}})


@wallets.upcast("wallet-deposited", version=1)
def to_cents(data: dict[str, Any]) -> dict[str, Any]:
    """Change the data in place, as authors do."""
    data["cents"] = data.pop("euros") * 100
    return data


@wallets.upcast("wallet-deposited", version=2)
def with_currency(data: dict[str, Any]) -> dict[str, Any]:
    """Add the only currency of that time."""
    return {"amount": data["cents"], "currency": "EUR"}


@wallets.event("wallet-withdrawn")
def withdrawn(event: Withdrawn, wallet: Wallet) -> Wallet:
    """Subtract from the balance; the parameters may have any order."""
    wallet.balances[event.currency] = wallet.balances.get(event.currency, 0) - event.amount
    wallet.notes = [*wallet.notes, f"-{event.amount}"][-3:]
    return wallet


@wallets.event("wallet-closed")
def closed(wallet: Wallet, _event: Closed) -> Wallet:
    """Close it."""
    return wallet.model_copy(update={"closed": True})


@wallets.command
def deposit(wallet: Wallet, command: Deposit) -> Deposited | None:
    """Reject a deposit into a closed wallet."""
    if wallet.closed:
        raise Rejected("closed", "The wallet is closed.")
    if not command.amount:
        return None
    return Deposited(amount=command.amount, currency=command.currency)


@wallets.command
def withdraw(wallet: Wallet, command: Withdraw) -> Withdrawn:
    """Reject what the balance does not cover."""
    if wallet.balances.get(command.currency, 0) < command.amount:
        raise Rejected("not_enough_money", details={"currency": command.currency})
    return Withdrawn(amount=command.amount, currency=command.currency)


@wallets.command
def close(wallet: Wallet, _command: Close) -> list[Withdrawn | Closed]:
    """Withdraw everything, then close."""
    withdrawals = [
        Withdrawn(amount=amount, currency=currency)
        for currency, amount in wallet.balances.items()
        if amount
    ]
    return [*withdrawals, Closed()]


def recorded(version: int, event: EventData, stream: str = "wallet-w1") -> Recorded:
    """Make the event that is read after an append."""
    return Recorded(
        stream=stream,
        version=version,
        position=version * 3,
        type=event.type,
        schema_version=event.schema_version,
        recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
        id=UUID(int=version),
        data=event.data,
    )


def recorded_all(*decisions: Decision) -> list[Recorded]:
    """Make the stream that decisions leave behind."""
    events = [event for decision in decisions for event in decision.events]
    return [recorded(version, event) for version, event in enumerate(events, 1)]
