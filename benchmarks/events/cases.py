"""The cases of events by name; each prints one JSON line, `append` one for each size."""

import json
from collections.abc import Collection, Mapping

from benchmarks.events import appends, lag, rebuilds

NAMES = ("append", *(each.case for each in rebuilds.REBUILDS), "lag")

MAX_APPENDED, MAX_FOLLOWED = 200_000, 60_000
"""Events with which a figure is steady; more events only take longer."""


async def measure(names: Collection[str], events: int) -> None:
    """Measure the cases of some names; rebuilds with *events* events, the others with fewer."""
    if "append" in names:
        for batch in appends.BATCHES:
            _print(await appends.measure(batch, min(events, MAX_APPENDED)))
    for rebuild in rebuilds.REBUILDS:
        if rebuild.case in names:
            _print(await rebuilds.measure(rebuild, events))
    if "lag" in names:
        _print(await lag.measure(min(events, MAX_FOLLOWED)))


def _print(line: Mapping[str, object]) -> None:
    print(json.dumps(line), flush=True)
