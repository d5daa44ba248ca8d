"""How many events a projection or a consumer applies in one transaction."""

MAX_GROWTH = 2.0
"""How many times larger or smaller the next batch is at most; one slow commit is not a trend."""

MAX_EXCESS = 10
"""How many times longer than its target a batch may take where a commit alone is slow."""

SMALL_BATCH = 10
"""Events whose batch takes hardly longer than one event: mostly the commit."""


class BatchSize:
    """
    A number of events, `events`, whose transaction takes about *target_seconds*.

    A short transaction keeps the lag low and loses little when it fails; a long one folds more
    changes of a row into one. Where a commit alone takes longer than the target, a batch may take
    twice as long as a small one: smaller batches would only add commits.
    """

    def __init__(self, target_seconds: float, max_events: int) -> None:
        self._target_seconds = target_seconds
        self._max_events = max_events
        self._small_batch_seconds = 0.0
        self.events = min(100, max_events)

    def succeeded(self, events: int, seconds: float) -> None:
        """Adapt to a batch of *events* that took *seconds*, if it was full."""
        if events <= SMALL_BATCH:
            self._small_batch_seconds = seconds
        if events >= self.events:
            doubled = min(2 * self._small_batch_seconds, MAX_EXCESS * self._target_seconds)
            target = max(self._target_seconds, doubled)
            factor = target / max(seconds, 1e-6)
            self._set(self.events * min(MAX_GROWTH, max(1 / MAX_GROWTH, factor)))

    def failed(self) -> None:
        """Halve the size: the database may be overloaded, or the batch too large for its limits."""
        self._set(self.events / 2)

    def _set(self, events: float) -> None:
        self.events = max(1, min(self._max_events, round(events)))
