"""
What workers load over time: versions of sagas, and the number of queues of replies.

A saga with one version is always loaded. Of a saga with two versions, workers load the first, then
the second beside it or instead of it, then the first again, and finally both. The number of queues
of replies changes at the same stages.
"""

from collections import Counter
from collections.abc import Sequence

from simulation.workload import Workload

ROLLOUT_AT_S, ROLLBACK_AT_S = 6.0, 16.0
"""Seconds after which the second version is loaded, and after which it is rolled back."""


class Rollout:
    """The stages of one simulation; after `all_versions_at` seconds every version is loaded."""

    def __init__(
        self,
        workloads: Sequence[Workload],
        all_versions_at: float,
        reply_queues: Sequence[int] = (1,),
    ) -> None:
        self._workloads, self._reply_queues = workloads, reply_queues
        version_counts = Counter(play.saga.name for play in workloads)
        self._multi_version_sagas = {
            name for name, versions in version_counts.items() if versions > 1
        }
        self.restart_times = (
            (ROLLOUT_AT_S, ROLLBACK_AT_S, all_versions_at)
            if self._multi_version_sagas or len(reply_queues) > 1
            else ()
        )

    def reply_queues_at(self, now: float) -> int:
        """How many queues of replies a worker has that starts now."""
        stage = sum(at <= now for at in self.restart_times)
        return self._reply_queues[min(stage, len(self._reply_queues) - 1)]

    def workloads_for(self, worker: int, now: float) -> Sequence[Workload]:
        """The workloads of a worker that starts now; every second worker lacks the first one."""
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
