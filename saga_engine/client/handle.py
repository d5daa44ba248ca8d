"""What a caller gets back: a handle on a run, and how a run ended."""

from dataclasses import dataclass, field, replace
from typing import Self
from uuid import UUID

from saga_engine.saga.run import Failure
from saga_engine.saga.sealing import Sealing
from saga_engine.saga.vocabulary import Json, Status


@dataclass(frozen=True, slots=True)
class Handle:
    """
    A run of `saga` that was asked for.

    `existing`: the key named a run that was there already, and this is that one. `status` is None
    where the start is recorded and waits for a worker; the version is then the one asked for.
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

    `result`, once completed, maps each step to its reply; `error` says why it turned back. Either
    stays sealed, `{"$sealed": ...}`, where its key is not here.
    """

    run_id: UUID
    saga: str
    version: int
    key: str | None
    status: Status
    result: Json = field(default=None, repr=False)
    error: Failure | None = field(default=None, repr=False)

    def unsealed(self, sealing: Sealing) -> Self:
        """Open what can be opened: how a run ended is told whatever else may be read."""
        run_id = str(self.run_id)
        return replace(
            self,
            result=sealing.readable_result(self.result, run_id),
            error=self.error and sealing.readable_failure(self.error, run_id),
        )
