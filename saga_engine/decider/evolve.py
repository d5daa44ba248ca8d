"""
evolve(run, event) -> run: the run after an event; what each event changes is in events.py.

Folding a journal gives the run (promise P5). An AssertionError is a bug in `decide`, or a journal
that this engine did not write.
"""

from collections.abc import Iterable

from saga_engine.decider.events import Event, RunStarted
from saga_engine.decider.run import Run


def evolve(run: Run | None, event: Event) -> Run:
    """Apply one event. The first event of a run, and only the first, is a RunStarted on None."""
    if run is None:
        assert isinstance(event, RunStarted), "a run starts with run_started"
        return event.started_run()
    after = run.copy()
    event.apply(after)
    return after


def replay(journal: Iterable[Event], before: Run | None = None) -> Run | None:
    """
    Fold a journal; None when it is empty.

    Args:
        journal: the events after *before*, in order.
        before: the run of a snapshot, which is changed; None: the journal begins with the run.
    """
    run = before
    for event in journal:
        if run is None:
            run = evolve(None, event)
        else:
            event.apply(run)
    return run
