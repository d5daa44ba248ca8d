"""What a caller gets back: a handle on a run, and how a run ended."""

from dataclasses import dataclass, field, replace
from typing import Self
from uuid import UUID

from saga_engine.payload.encryption import PayloadEncryption
from saga_engine.protocol.answer import Answer
from saga_engine.protocol.open_incident import OpenIncident
from saga_engine.vocabulary import Failure, Json, Status


@dataclass(frozen=True, slots=True)
class RunHandle:
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
class RunResult:
    """
    How a run stands, or how it ended.

    Args:
        run_id: the run's id.
        saga: the saga's name.
        version: the version of the saga that the run is pinned to.
        key: the business key, None without one.
        status: running, compensating, completed, compensated or abandoned.
        result: once completed, each step's reply by the step's name; it stays sealed,
            `{"$encrypted": ...}`, where its key is not here.
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

    def decrypted(self, encryption: PayloadEncryption) -> Self:
        """
        Open what can be opened; the rest stays sealed.

        Args:
            sealing: what seals and unseals payloads.
        """
        run_id = str(self.run_id)
        return replace(
            self,
            result=encryption.decrypt_result_if_possible(self.result, run_id),
            error=self.error and encryption.decrypt_failure_if_possible(self.error, run_id),
        )


def run_result_from(run_id: UUID, answer: Answer) -> RunResult | None:
    """Read how a run stands from an answer; None when it knows no run."""
    if answer.status is None or answer.saga is None or answer.version is None:
        return None
    return RunResult(
        *(
            run_id,
            answer.saga,
            answer.version,
            answer.key,
            answer.status,
            answer.result,
            answer.error,
        ),
        *(answer.open_incidents, answer.incident),
    )
