"""Hypothesis generates sagas of any shape and reduces one that breaks a promise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.config import SimulationConfig
from simulation.workload import Workload
from simulation.world import simulate
from tests.kit.random_sagas import sagas

pytestmark = pytest.mark.long


@pytest.mark.timeout(300)
@settings(max_examples=100, deadline=None)
@given(sagas(), st.booleans(), st.integers(0, 2**32))
def test_every_promise_holds_for_a_saga_of_any_shape(saga, barrier, seed):
    replies = {step.action_spec.command: 1 for step in saga.steps.values()}
    workload = Workload(saga, {}, replies, barrier)
    assert not simulate(
        SimulationConfig(seed=seed, runs=3, fault_interval=20), [workload]
    ).violations
