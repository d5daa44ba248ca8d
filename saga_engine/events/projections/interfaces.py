"""
The database as the loop of a projection uses it.

`projection_batch` is that in PostgreSQL. The simulation has another in memory; the tests in
tests/simulation/test_event_model.py run on both.

Every method may raise StoreUnavailable (try again), StoreRefused (a retry would fail too) or
SchemaMismatch; see `errors`.
"""

from typing import Protocol

from saga_engine.events.projections.event_batch import BatchResult, EventBatch, StreamRetry
from saga_engine.events.projections.projection_failures import ParkedStream


class ProjectionWriter(Protocol):
    """Writes the batches of one projection, with its checkpoint and its lease."""

    @property
    def parked(self) -> dict[str, int]:
        """The parked streams, and the position of the next event of each."""

    async def acquire(self) -> int | None:
        """Take or renew the lease, and return the checkpoint; None: another process has it."""

    async def apply(self, batch: EventBatch) -> BatchResult:
        """Apply a batch and save its checkpoint; NotOwner unless it is the owner at `after`."""

    async def retried_streams(self) -> list[ParkedStream]:
        """Return the parked streams that an operator wants to be retried."""

    async def retry_stream(self, retry: StreamRetry) -> BatchResult:
        """Apply events of a parked stream, unless an operator has skipped one since the read."""
