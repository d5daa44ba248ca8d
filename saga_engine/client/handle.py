"""What a caller gets back: a handle on a run, and how a run ended."""

from dataclasses import dataclass, field, replace
from typing import Self
from uuid import UUID

from saga_engine.decider.run import OpenIncident
from saga_engine.payload.encryption import Sealing
from saga_engine.protocol.answer import Answer
from saga_engine.vocabulary import Failure, Json, Status


@dataclass(frozen=True, slots=True)
class Handle:
    """
    A run that was asked for.

    Args:
        run_id: the run's id, a UUIDv7.
        saga: the saga's name.
        version: the version the run has; while the start waits for a worker, the one asked for.
        key: the business key, None without one.
        existing: whether the key named a run that was there already; then this is that run.
        status: the run's status; None while the start is recorded and waits for a worker.
    """

    run_id: UUID
    saga: str
    version: int | None
    key: str | None
    existing: bool
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """
    How a run stands, or how it ended.

    Args:
        run_id: the run's id.
        saga: the saga's name.
        version: the version of the saga that the run is pinned to.
        key: the business key, None without one.
        status: running, compensating, completed, compensated or abandoned.
        result: once completed, each step's reply by the step's name; it stays sealed,
            `{"$sealed": ...}`, where its key is not here.
        error: why the run turned back; sealed in the same way.
        open_incidents: in how many places the run waits for a person.
        incident: the first of them, None without one; the run goes on when an operator has
            resolved them.
    """

    run_id: UUID
    saga: str
    version: int
    key: str | None
    status: Status
    result: Json = field(default=None, repr=False)
    error: Failure | None = field(default=None, repr=False)
    open_incidents: int = 0
    incident: OpenIncident | None = None

    def unsealed(self, sealing: Sealing) -> Self:
        """
        Open what can be opened; the rest stays sealed.

        Args:
            sealing: what seals and unseals payloads.
        """
        run_id = str(self.run_id)
        return replace(
            self,
            result=sealing.readable_result(self.result, run_id),
            error=self.error and sealing.readable_failure(self.error, run_id),
        )


def ending_in(run_id: UUID, told: Answer) -> Ending | None:
    """Read how a run stands from an answer; None when it knows no run."""
    if told.status is None or told.saga is None or told.version is None:
        return None
    return Ending(
        *(run_id, told.saga, told.version, told.key, told.status, told.result, told.error),
        *(told.open_incidents, told.incident),
    )
