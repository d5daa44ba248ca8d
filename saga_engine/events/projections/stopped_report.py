"""What a process that starts reports about the projections that are stopped already."""

from collections.abc import Iterable, Sequence

from saga_engine.events.projections import projection_failures
from saga_engine.events.projections.projection_failures import StoredFailure
from saga_engine.events.projections.projection_key import show_command
from saga_engine.events.projections.projection_table import ProjectionState, StoredProjection
from saga_engine.postgres.statement import Transaction
from saga_engine.telemetry.events import Observer, ProjectionStopped


async def report_stopped(
    tx: Transaction, stored: Iterable[StoredProjection], emit: Observer
) -> None:
    """Report the event that has stopped each one which is stopped; a start does not continue it."""
    for each in stored:
        if each.state is not ProjectionState.STOPPED:
            continue
        failures = await projection_failures.read_open(tx, each.name, each.version)
        for failure in _stopped_by(failures):
            emit(
                ProjectionStopped(
                    projection=each.name,
                    version=each.version,
                    position=failure.position,
                    stream=failure.stream,
                    event_type=failure.type,
                    problem=failure.error,
                    next_command=show_command(each),
                )
            )


def _stopped_by(failures: Sequence[StoredFailure]) -> Sequence[StoredFailure]:
    """The failures that have stopped a projection; one of a parked stream was the last."""
    of_checkpoint = [each for each in failures if not each.parked]
    return of_checkpoint or sorted(failures, key=lambda each: each.failed_at)[-1:]
