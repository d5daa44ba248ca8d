"""Telemetry events about projections: which process runs them, and events they cannot apply."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionAcquired:
    """This process has become the owner of a projection, and continues after `position`."""

    projection: str
    version: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionStopped:
    """An event cannot be applied, so the projection waits for an operator to retry or skip it."""

    projection: str
    version: int
    position: int
    stream: str
    event_type: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParked:
    """An event cannot be applied, so a projection goes on without the later ones of its stream."""

    projection: str
    version: int
    position: int
    stream: str
    event_type: str
    problem: str
