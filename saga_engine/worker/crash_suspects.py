"""
Calls that have ended a worker: made alone, so that they harm no neighbour, and in the end not made.

A call of the author's code that cannot be interrupted ends the process, and the next one would make
it again. What it is made for is then taken in a batch of its own. A call that has ended MOST
workers is not made any more: its run gets an incident, and the message becomes a dead letter.
"""

from collections.abc import Mapping

from saga_engine.payload.guard import Call, CodeError, Watch
from saga_engine.store.crash_suspects import Suspect

MOST = 2
"""Workers that one call may end."""

REASON = "code_killed_worker"
"""Why a message is a dead letter whose call is not made any more."""


class Suspected(Exception):
    """Some of a batch must be taken alone: what belongs to *run_ids*."""

    def __init__(self, run_ids: frozenset[str]) -> None:
        super().__init__(f"{len(run_ids)} runs are to be taken alone")
        self.run_ids = run_ids


class Suspicion:
    """
    A Watch in front of another, for a batch of suspects.

    `returned` are the runs whose suspected call was made and returned, `refused` those whose call
    was not made.
    """

    def __init__(self, watch: Watch, suspects: Mapping[str, Suspect]) -> None:
        self._watch = watch
        self._suspects = suspects
        self.returned: set[str] = set()
        self.refused: set[str] = set()

    def enter(self, call: Call) -> None:
        """Begin to watch a call; raise CodeError for one that is not made any more."""
        suspect = self._suspects.get(call.run_id)
        if suspect is not None and _same(suspect, call):
            if suspect.times >= MOST:
                self.refused.add(call.run_id)
                text = (
                    f"ended {suspect.times} worker processes, because it did not return and could"
                    " not be interrupted; it is called again after `resolve RUN/N retry`"
                )
                raise CodeError(call, text)
            self.returned.add(call.run_id)  # what is not true is never written
        self._watch.enter(call)

    def leave(self) -> None:
        """End the watch."""
        self._watch.leave()


def _same(suspect: Suspect, call: Call) -> bool:
    return (suspect.step, suspect.direction, suspect.function) == (
        *(call.step, call.direction or "", call.function),
    )
