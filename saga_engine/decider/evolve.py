"""
evolve(run, event) -> run: the run after an event; what each event changes is in events.py.

Folding a journal gives the run (promise P5). An AssertionError is a bug in `decide`, or a journal
that this engine did not write.
"""

from collections.abc import Iterable

from saga_engine.decider.events import Event, RunStarted
from saga_engine.decider.run import Run
from saga_engine.decider.transitions import RunDraft


def evolve(run: Run | None, event: Event) -> Run:
    """Apply one event. The first event of a run, and only the first, is a RunStarted on None."""
    return _draft(run, event).run


def replay(journal: Iterable[Event]) -> Run | None:
    """Fold a journal; None when it is empty."""
    draft: RunDraft | None = None
    for event in journal:
        if draft is None:
            draft = _draft(None, event)
        else:
            event.apply(draft)
    return None if draft is None else draft.run


def _draft(run: Run | None, event: Event) -> RunDraft:
    if run is None:
        assert isinstance(event, RunStarted), "a run starts with run_started"
        return RunDraft(event.started_run())
    draft = RunDraft(run)
    event.apply(draft)
    return draft
