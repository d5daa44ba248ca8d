"""
Which versions of the sagas workers load as time passes: a rollout, a rollback, and both at last.

A saga that is played in one version is always loaded. Of one that is played in more the first comes
alone, then the second beside it or in its place, then the first alone again, and in the end all.
"""

from collections import Counter
from collections.abc import Sequence

from simulation.workload import Play

OUT, BACK = 6.0, 16.0
"""Seconds after which the second version comes, and after which it goes again."""


class Rollout:
    """The stages of one world; from `last` seconds on all versions are loaded for good."""

    def __init__(self, plays: Sequence[Play], last: float) -> None:
        self._plays = plays
        number = Counter(play.saga.name for play in plays)
        self._several = {name for name, versions in number.items() if versions > 1}
        self.times = (OUT, BACK, last) if self._several else ()

    def loaded(self, worker: int, now: float) -> Sequence[Play]:
        """What a worker loads that begins now; every second one lacks the first of the plays."""
        plays = self._plays[worker % 2 :] or self._plays
        versions = self._versions(worker, now)
        return [
            play
            for play in plays
            if play.saga.name not in self._several or play.saga.version in versions
        ]

    def _versions(self, worker: int, now: float) -> tuple[int, ...]:
        if not self.times or now >= self.times[-1]:
            return (1, 2)
        if now < OUT or now >= BACK:
            return (1,)
        return (2,) if worker % 2 else (1, 2)
