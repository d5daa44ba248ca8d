"""
The cases of events by name; each prints one JSON line, `append` one for each size, a feed two.

A line has the aim of its figure, if there is one, and whether it is reached. Aims that were missed
are repeated at the end, as sentences on stderr.
"""

import json
import sys
from collections.abc import AsyncIterator, Collection, Mapping

from benchmarks.events import aims, appends, consumer_speed, feed_speed, lag, rebuilds

NAMES = (
    "append",
    *(each.case for each in rebuilds.REBUILDS),
    "lag",
    "lag-in-rebuild",
    *(each.case for each in feed_speed.CASES),
    *(each.case for each in consumer_speed.CASES),
)

MAX_APPENDED, MAX_FOLLOWED, MAX_REBUILT = 200_000, 30_000, 200_000
"""Events with which a figure is steady; more events only take longer."""


async def measure(names: Collection[str], events: int) -> None:
    """Measure the cases of some names; rebuilds with *events* events, the others with fewer."""
    missed = []
    async for measured in _measured(names, events):
        line = aims.judged(measured)
        print(json.dumps(line), flush=True)
        missed.append(aims.missed(line))
    for sentence in filter(None, missed):
        print(sentence, file=sys.stderr)


async def _measured(names: Collection[str], events: int) -> AsyncIterator[Mapping[str, object]]:
    if "append" in names:
        for batch in appends.BATCHES:
            yield await appends.measure(batch, min(events, MAX_APPENDED))
    chosen = [each for each in rebuilds.REBUILDS if each.case in names]
    if chosen:
        async for line in rebuilds.measure(chosen, events):
            yield line
    async for line in _lags(names, events):
        yield line
    async for line in feed_speed.measure(names, events):
        yield line
    async for line in consumer_speed.measure(names, events):
        yield line


async def _lags(names: Collection[str], events: int) -> AsyncIterator[Mapping[str, object]]:
    followed = min(events, MAX_FOLLOWED)
    if "lag" in names:
        yield await lag.measure(followed)
    if "lag-in-rebuild" in names:
        yield await lag.measure(followed, stored=min(events, MAX_REBUILT))
