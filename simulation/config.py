"""The parameters of a simulation, and its result."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saga_engine.settings import Settings
from simulation.faults import Fault

SETTINGS = Settings(
    poll_interval=2.0,
    outbox_cleanup_interval=2.0,
    outbox_resend_after=8.0,
    maintenance_interval=120.0,
    event_poll_interval=0.2,
    event_poll_interval_max=4.0,
)
"""The defaults with longer intervals: most of the work of a simulation is polling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """
    The size of a simulated world, and the frequency of faults.

    Attributes:
        seed: every random decision is derived from it.
        fault_interval: points between two faults, on average (see `faults`).
        slots: runs of a saga that may be in flight; the others wait for admission.
        hostile_rows: pending requests with hostile bodies that another role writes.
        operator_actions: cancels and resolutions by operators.
        retention: whether the partitions of finished runs are dropped.
        batch_bytes: the setting `max_batch_bytes`; a small value tests large payloads.
        cache_bytes: the setting `run_cache_bytes`; with 0 every run is read again.
        snapshot_interval: the setting `run_snapshot_interval`; a small value tests snapshots.
        freezes: whether processes stand still for a while, as after SIGSTOP.
        projectors: processes that run a projection and a feed over the events of the services;
            with none of them the services append no events.
        faulty_projection: whether the projection cannot apply some events until its code is
            corrected.
        reply_queues: how many queues of replies there are; with several numbers, workers have the
            next one at each stage of the rollout.
    """

    seed: int
    runs: int = 30
    workers: int = 2
    participants: int = 2
    fault_interval: float = 50
    slots: int = SETTINGS.max_concurrent_runs
    hostile_rows: int = 0
    operator_actions: int = 0
    retention: bool = False
    batch_bytes: int = SETTINGS.max_batch_bytes
    cache_bytes: int = SETTINGS.run_cache_bytes
    snapshot_interval: int = SETTINGS.run_snapshot_interval
    freezes: bool = False
    projectors: int = 0
    faulty_projection: bool = False
    reply_queues: tuple[int, ...] = (1,)

    @property
    def settings(self) -> Settings:
        """The settings of every process."""
        changes: dict[str, Any] = {
            "max_concurrent_runs": self.slots,
            "max_batch_bytes": self.batch_bytes,
            "run_cache_bytes": self.cache_bytes,
            "run_snapshot_interval": self.snapshot_interval,
        }
        if self.retention:
            changes |= {"run_retention_days": 1, "maintenance_interval": 15.0}
        return SETTINGS.model_copy(update=changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """
    What happened in a simulation.

    `faults` are those that were injected. `violations` are sentences, each beginning with the
    promise it breaks. `digest` is equal for two simulations in which the same things happened.
    """

    runs: int
    statuses: Counter[str]
    counts: Counter[str]
    faults: Sequence[Fault]
    violations: Sequence[str]
    digest: str
