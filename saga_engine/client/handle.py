"""What a caller gets back from a start: a handle on the run."""

from dataclasses import dataclass
from uuid import UUID

from saga_engine.vocabulary import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHandle:
    """
    A run that was requested.

    Args:
        run_id: the run's id, a UUIDv7.
        saga: the saga's name.
        version: the version of the run; while the start waits for a worker, the requested one.
        key: the business key, None without one.
        existing: whether the key already belonged to a run; then this is that run.
        status: the run's status; None while the start is recorded and waits for a worker.
    """

    run_id: UUID
    saga: str
    version: int | None
    key: str | None
    existing: bool
    status: Status | None = None
