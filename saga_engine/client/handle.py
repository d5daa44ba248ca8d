"""What a caller gets back: a handle on a run, and the state or result of a run."""

from dataclasses import dataclass, field, replace
from typing import Self
from uuid import UUID

from saga_engine.payload.encryption import PayloadEncryption
from saga_engine.protocol.answer import Answer
from saga_engine.protocol.open_incident import OpenIncident
from saga_engine.vocabulary import Failure, Json, Status


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """
    The state of a run; once it is finished, its result.

    Args:
        run_id: the run's id.
        saga: the saga's name.
        version: the version of the saga that the run is pinned to.
        key: the business key, None without one.
        status: running, compensating, completed, compensated or abandoned.
        result: once completed, each step's reply by the step's name. A reply whose key this
            process does not have stays encrypted: `{"$encrypted": ...}`.
        error: why the run was compensated or abandoned; its text may stay encrypted too.
        open_incidents: the number of incidents that wait for an operator.
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
        Decrypt what the available keys can decrypt; the rest stays encrypted.

        Args:
            encryption: the payload codec.
        """
        run_id = str(self.run_id)
        return replace(
            self,
            result=encryption.decrypt_result_if_possible(self.result, run_id),
            error=self.error and encryption.decrypt_failure_if_possible(self.error, run_id),
        )


def run_result_from(run_id: UUID, answer: Answer) -> RunResult | None:
    """Read the state of a run from an answer; None if the answer has none."""
    if answer.status is None or answer.saga is None or answer.version is None:
        return None
    return RunResult(
        run_id=run_id,
        saga=answer.saga,
        version=answer.version,
        key=answer.key,
        status=answer.status,
        result=answer.result,
        error=answer.error,
        open_incidents=answer.open_incidents,
        incident=answer.incident,
    )
