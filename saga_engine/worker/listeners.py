"""
Whether a client listens for the end of the runs that a batch has finished.

Only the broker knows which queues are bound. For many finished runs it is asked first, by a small
message that it returns when no queue is bound for any of them: then nothing is encoded or published
for these runs. An answer is never used for a later batch in which no client listens, so a queue
that is bound before its run finishes gets the message.
"""

from collections.abc import Iterable, Sequence

from saga_engine.protocol.answer import encode_listener_probes
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.run_result import RunResult

MIN_PROBED_RUNS = 4
"""Finished runs from which on asking costs less than the messages that they finished."""

BATCHES_WITHOUT_PROBE = 20
"""Batches after one with a listener that are announced without asking: most likely it is there."""


class Listeners:
    """What is known about the clients that listen for the ends of runs."""

    def __init__(self) -> None:
        self._batches_without_probe = 0

    def probes(self, finished_runs: Sequence[RunResult]) -> list[Message]:
        """The messages that ask for listeners; none: announce the runs without asking."""
        if len(finished_runs) < MIN_PROBED_RUNS:
            return []
        if self._batches_without_probe:
            self._batches_without_probe -= 1
            return []
        return encode_listener_probes(finished_runs)

    def have_answered(self, outcomes: Iterable[PublishOutcome]) -> bool:
        """Whether a probe found a listener, or may have: its outcome may be unknown."""
        if all(outcome is PublishOutcome.UNROUTABLE for outcome in outcomes):
            return False
        self._batches_without_probe = BATCHES_WITHOUT_PROBE
        return True
