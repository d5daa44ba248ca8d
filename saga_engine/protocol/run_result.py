"""What a client sees of a run, in an answer or when the run is finished."""

from dataclasses import dataclass, field, replace
from typing import Self
from uuid import UUID

from saga_engine.decider.run import Run
from saga_engine.payload.encryption import PayloadEncryption
from saga_engine.protocol.open_incident import OpenIncident, first_open_incident
from saga_engine.vocabulary import Failure, Json, Status


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


def result_of_run(run: Run) -> RunResult:
    """What a client sees of *run*, without what it must not see of an incident."""
    return RunResult(
        run_id=UUID(run.run_id),
        saga=run.saga,
        version=run.version,
        key=run.key,
        status=run.status,
        result=run.result,
        error=run.compensation_cause.as_failure if run.compensation_cause else None,
        open_incidents=len(run.incidents),
        incident=first_open_incident(run),
    )
