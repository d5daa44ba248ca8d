"""
Crash suspects: runs whose call into user code has ended a worker process.

A call that hangs in C code cannot be interrupted; the watchdog then ends the process and records
the run as a crash suspect. The next worker would make the same call, so a suspect is processed in a
batch of its own, where it cannot harm another run. A call that has ended `MAX_CRASHES` workers is
not made again: its run gets an incident and its message is dead-lettered.
"""

from collections.abc import Mapping

from saga_engine.payload.guard import CallTimeLimit, UserCodeCall, UserCodeError
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.worker.work_item import WorkBatch, WorkItem

MAX_CRASHES = 2
"""How many workers one call may end."""


class SuspectsInBatch(Exception):
    """A batch contains crash suspects: the runs in `run_ids` must be processed alone."""

    def __init__(self, run_ids: frozenset[str]) -> None:
        super().__init__(f"{len(run_ids)} runs must be processed alone")
        self.run_ids = run_ids


def ensure_alone(suspects: Mapping[str, CrashSuspect], work_batch: WorkBatch) -> None:
    """
    Check that everything in a batch belongs to one suspect.

    Raises:
        SuspectsInBatch: the batch holds several suspects, or another entry beside one.
    """
    if len(suspects) > 1 or not all(
        isinstance(each, WorkItem) and each.run_id in suspects for each in work_batch
    ):
        raise SuspectsInBatch(frozenset(suspects))


class SuspectTimeLimit:
    """
    A time limit for a batch of crash suspects, in front of the usual one.

    `returned_run_ids` are the runs whose suspected call was made and returned; `refused_run_ids`
    are those whose call was not made.
    """

    def __init__(self, time_limit: CallTimeLimit, suspects: Mapping[str, CrashSuspect]) -> None:
        self._time_limit = time_limit
        self._suspects = suspects
        self.returned_run_ids: set[str] = set()
        self.refused_run_ids: set[str] = set()

    def enter(self, call: UserCodeCall) -> None:
        """Start the time limit of a call; raise UserCodeError if it has ended too many workers."""
        suspect = self._suspects.get(call.run_id)
        if suspect is not None and _is_suspected_call(suspect, call):
            if suspect.crash_count >= MAX_CRASHES:
                self.refused_run_ids.add(call.run_id)
                problem = (
                    f"ended {suspect.crash_count} worker processes, because it did not return and"
                    " could not be interrupted; it is called again after `resolve RUN/N retry`"
                )
                raise UserCodeError(call, problem)
            # Added before the call returns: if it does not return, nothing of this is written.
            self.returned_run_ids.add(call.run_id)
        self._time_limit.enter(call)

    def leave(self) -> None:
        """End the time limit of the call."""
        self._time_limit.leave()


def _is_suspected_call(suspect: CrashSuspect, call: UserCodeCall) -> bool:
    return (
        suspect.step == call.step
        and suspect.direction == (call.direction or "")
        and suspect.function == call.function
    )
