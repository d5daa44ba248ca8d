"""Telemetry events about projections: who runs them, how far they are, what they cannot apply."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from saga_engine.telemetry.events.event_failure import EventFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionsRegistered:
    """This process can run these projections."""

    projections: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionAcquired:
    """This process has become the owner of a projection, and continues after `position`."""

    projection: str
    version: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionBatchApplied:
    """A projection has applied a batch of events, in a transaction that took `duration_s`."""

    projection: str
    events: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionStopped(EventFailure):
    """
    An event cannot be applied, so the projection waits for an operator to retry or skip it.

    A projector that starts reports it again for a projection that is stopped.
    """

    projection: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParked(EventFailure):
    """An event cannot be applied, so a projection goes on without the later ones of its stream."""

    projection: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionVersionReady:
    """A rebuild has caught up, and can be switched to; the process that fills it reports it."""

    projection: str
    version: int
    next_command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionSwitched:
    """Other tables of a projection are live, by `switch` or `--back`; their process reports it."""

    projection: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionVersionRemoved:
    """The tables before a switch were dropped: the time in which one can switch back is over."""

    projection: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionVersionKept:
    """The tables before a switch could not be dropped after their time; it is tried again."""

    projection: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionsMeasured:
    """
    How far the projections are that this process declares.

    Every projector measures the same database, so aggregate the metrics with max, never with sum.

    Args:
        horizon: up to which position everything can be read.
        appended: positions that the horizon has passed since the last measurement.
        horizon_age_s: for how long a transaction that has appended holds it back.
        lag_events: of each projection, in positions.
        lag_s: of each projection, the age of its next event.
        states: of each projection.
    """

    horizon: int
    appended: int
    horizon_age_s: float
    lag_events: Mapping[str, int] = field(default_factory=dict)
    lag_s: Mapping[str, float] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonHeld:
    """
    An open transaction has appended events, and all projections wait for it.

    Args:
        position: up to which they can read.
        age_s: since when it was noticed.
        pid: of its session; None: it is a prepared transaction.
        application: `application_name` of the session, or the name of the prepared transaction.
        state: of the session, if the role of the projector may see it.
    """

    position: int
    age_s: float
    pid: int | None
    application: str
    state: str | None
