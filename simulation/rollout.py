"""
Which versions of the sagas workers load as time passes: a rollout, a rollback, and both at last.

A saga that is played in one version is always loaded. Of one that is played in more the first comes
alone, then the second beside it or in its place, then the first alone again, and in the end all.
"""

from collections import Counter
from collections.abc import Sequence

from simulation.workload import Workload

ROLLOUT_AT_S, ROLLBACK_AT_S = 6.0, 16.0
"""Seconds after which the second version comes, and after which it goes again."""


class Rollout:
    """The stages of one world; from `last` seconds on all versions are loaded for good."""

    def __init__(self, workloads: Sequence[Workload], all_versions_at: float) -> None:
        self._workloads = workloads
        version_counts = Counter(play.saga.name for play in workloads)
        self._multi_version_sagas = {
            name for name, versions in version_counts.items() if versions > 1
        }
        self.restart_times = (
            (ROLLOUT_AT_S, ROLLBACK_AT_S, all_versions_at) if self._multi_version_sagas else ()
        )

    def workloads_for(self, worker: int, now: float) -> Sequence[Workload]:
        """What a worker loads that begins now; every second one lacks the first of the plays."""
        workloads = self._workloads[worker % 2 :] or self._workloads
        versions = self._versions_for(worker, now)
        return [
            workload
            for workload in workloads
            if workload.saga.name not in self._multi_version_sagas
            or workload.saga.version in versions
        ]

    def _versions_for(self, worker: int, now: float) -> tuple[int, ...]:
        if not self.restart_times or now >= self.restart_times[-1]:
            return (1, 2)
        if now < ROLLOUT_AT_S or now >= ROLLBACK_AT_S:
            return (1,)
        return (2,) if worker % 2 else (1, 2)
