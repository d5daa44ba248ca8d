"""Telemetry events about the connections to RabbitMQ and PostgreSQL."""

from dataclasses import dataclass

from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import (
    ConnectionRole,
    ConnectionState,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConnectionChanged:
    """
    A supervised connection changed its `state`, or an attempt to connect failed.

    `generation` counts its connections from 1. `problem` says
    why it does not work, and is empty if it does.
    """

    connection: ConnectionRole
    state: ConnectionState
    generation: int
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUnavailable:
    """An operation failed because PostgreSQL was unavailable or refused it; it is retried."""

    operation: Operation
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseRecovered:
    """A participant's database is available again, `outage_s` after the outage was detected."""

    operation: Operation
    outage_s: float
