"""The simulation finds every planted bug, and finds nothing without one."""

from functools import cache

import pytest

from saga_engine.worker.batch_runner import BatchRunner
from saga_engine.worker.outbox_publisher import OutboxPublisher
from simulation.barrier_model import BarrierModel
from simulation.memory_store import MemoryStoreTransaction
from simulation.world import simulate
from tests.simulation.bug_patcher import BugPatcher, SignatureMismatch, mismatch_violations
from tests.simulation.campaign import config_for
from tests.simulation.planted_store_bugs import ALL_BUGS as BUGS
from tests.simulation.workloads import workloads_for

pytestmark = pytest.mark.long

SEEDS = range(96)
"""Each bug is found with one of these seeds, or with one of RARE."""

RARE = {
    "append_to_a_dropped_month": (6,),
    "choose_version_at_admission": (21,),
    "claim_timers_in_the_transaction_of_the_batch": (1,),
    "complete_when_last_step_succeeds": (10,),
    "ignore_a_late_success": (78,),
    "ignore_the_horizon": (3,),
    "leave_the_earlier_queues": (8,),
    "never_retry": (2,),
    "never_take_over_a_lease": (3,),
    "publish_the_events_of_a_stream_together": (8,),
    "save_the_checkpoint_after_the_effects": (11,),
    "save_the_checkpoint_before_the_effects": (11,),
    "save_the_position_before_the_confirm": (3,),
    "start_newest_loaded_version": (21,),
    "take_a_request_twice": (29,),
    "treat_rejected_compensation_as_done": (25,),
    "misreport_load_as_bug": (7,),
    "write_without_the_fence": (259,),
}
"""Seeds that find rare bugs, or find a bug soon; they are tried first."""

RUNS = 30


def _seeds_for(promises):
    has_events = promises[0].startswith("E")
    return [seed for seed in SEEDS if config_for(seed, RUNS).projectors or not has_events]


def violations_of(seed):
    return simulate(config_for(seed, RUNS), workloads_for(seed)).violations


def test_there_are_enough_bugs():
    assert len(BUGS) >= 20


@cache
def has_no_violations(seed):
    return not violations_of(seed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name, monkeypatch, record_property):
    plant, promises = BUGS[name]
    plant(BugPatcher(monkeypatch))
    for seed in (*RARE.get(name, ()), *_seeds_for(promises)):
        violations = violations_of(seed)
        assert not mismatch_violations(violations), "the replacement is out of date"
        found = [sentence for sentence in violations if sentence.startswith(promises)]
        if found:
            record_property("found", f"seed {seed}: {found[0]}")
            monkeypatch.undo()
            assert has_no_violations(seed)
            return
    raise AssertionError(f"{name} broke none of {promises} in {len(SEEDS)} seeds")


def test_each_rare_seed_belongs_to_a_bug():
    assert RARE.keys() <= BUGS.keys()


def test_a_replacement_with_another_signature_is_refused(monkeypatch):
    def process(self, work_batch):
        del self, work_batch

    with pytest.raises(SignatureMismatch, match="failures=0"):
        BugPatcher(monkeypatch).replace(BatchRunner, "process", process)


def test_a_replacement_of_a_missing_function_is_refused(monkeypatch):
    with pytest.raises(SignatureMismatch, match="not callable: NoneType"):
        BugPatcher(monkeypatch).replace(BatchRunner, "missing", lambda: None)


class LocksOne(MemoryStoreTransaction):
    async def read_runs(self, run_id):  # type: ignore[override]
        raise NotImplementedError(run_id)


class LocksMany(MemoryStoreTransaction):
    async def lock_many(self, run_ids):
        raise NotImplementedError(run_ids)


@pytest.mark.parametrize("transactions", [LocksOne, LocksMany])
def test_a_replacement_of_a_method_that_the_store_has_not_is_refused(monkeypatch, transactions):
    with pytest.raises(SignatureMismatch):
        BugPatcher(monkeypatch).replace_store(transactions)


def test_a_type_error_in_a_worker_is_a_violation(monkeypatch):
    async def publish_commands(self, rows, notifications=(), *, resend=False):
        raise TypeError(f"{self} {rows} {notifications} {resend}")

    BugPatcher(monkeypatch).replace(OutboxPublisher, "publish_commands", publish_commands)
    assert mismatch_violations(violations_of(SEEDS[0]))


def test_a_type_error_in_a_participant_is_a_violation(monkeypatch):
    async def record_result(self, command, result):
        raise TypeError(f"{self} {command} {result}")

    BugPatcher(monkeypatch).replace(BarrierModel, "record_result", record_result)
    assert mismatch_violations(violations_of(SEEDS[0]))
