"""
Calls that have ended a worker: made alone, so that they harm no neighbour, and in the end not made.

A call of the author's code that cannot be interrupted ends the process, and the next one would make
it again. What it is made for is then taken in a batch of its own. A call that has ended MOST
workers is not made any more: its run gets an incident, and the message becomes a dead letter.
"""

from collections.abc import Mapping

from saga_engine.payload.guard import CallTimeLimit, UserCodeCall, UserCodeError
from saga_engine.store.crash_suspects import CrashSuspect

MAX_CRASHES = 2
"""Workers that one call may end."""

CODE_KILLED_WORKER = "code_killed_worker"
"""Why a message is a dead letter whose call is not made any more."""


class SuspectsInBatch(Exception):
    """Some of a batch must be taken alone: what belongs to *run_ids*."""

    def __init__(self, run_ids: frozenset[str]) -> None:
        super().__init__(f"{len(run_ids)} runs are to be taken alone")
        self.run_ids = run_ids


class SuspectWatch:
    """
    A Watch in front of another, for a batch of suspects.

    `returned` are the runs whose suspected call was made and returned, `refused` those whose call
    was not made.
    """

    def __init__(self, watch: CallTimeLimit, suspects: Mapping[str, CrashSuspect]) -> None:
        self._watch = watch
        self._suspects = suspects
        self.returned_run_ids: set[str] = set()
        self.refused_run_ids: set[str] = set()

    def enter(self, call: UserCodeCall) -> None:
        """Begin to watch a call; raise CodeError for one that is not made any more."""
        suspect = self._suspects.get(call.run_id)
        if suspect is not None and _is_suspected_call(suspect, call):
            if suspect.crash_count >= MAX_CRASHES:
                self.refused_run_ids.add(call.run_id)
                text = (
                    f"ended {suspect.crash_count} worker processes, because it did not return"
                    " and could"
                    " not be interrupted; it is called again after `resolve RUN/N retry`"
                )
                raise UserCodeError(call, text)
            self.returned_run_ids.add(call.run_id)  # what is not true is never written
        self._watch.enter(call)

    def leave(self) -> None:
        """End the watch."""
        self._watch.leave()


def _is_suspected_call(suspect: CrashSuspect, call: UserCodeCall) -> bool:
    return (suspect.step, suspect.direction, suspect.function) == (
        *(call.step, call.direction or "", call.function),
    )
