"""What a client sees of a run: its state, and nothing that a log must not have."""

from dataclasses import replace

from saga_engine.identifiers import uuid7
from saga_engine.protocol.run_result import RunResult, result_of_run
from saga_engine.vocabulary import Failure, Status
from tests.kit.decider_scenario import DeciderScenario, sequential_saga


def test_a_client_sees_the_state_of_a_run_and_its_first_open_incident():
    scenario = DeciderScenario(sequential_saga("a"))
    scenario.malformed_reply("a")
    run_id = uuid7()
    run = replace(scenario.run, run_id=str(run_id), key="o-1")
    found = result_of_run(run)
    assert (found.run_id, found.saga, found.version, found.key) == (
        *(run_id, run.saga, run.version, "o-1"),
    )
    assert (found.status, found.open_incidents) == (Status.RUNNING, 1)
    assert found.incident is not None
    assert found.incident.number == 1


def test_a_run_that_compensates_says_why():
    scenario = DeciderScenario(sequential_saga("a", "b"))
    scenario.succeeds("a")
    scenario.rejects("b")
    found = result_of_run(replace(scenario.run, run_id=str(uuid7())))
    assert found.status is Status.COMPENSATING
    assert found.error is not None
    assert scenario.run.compensation_cause is not None
    assert found.error == scenario.run.compensation_cause.as_failure


def test_the_repr_of_a_result_shows_no_payload():
    result = RunResult(
        run_id=uuid7(),
        saga="place-order",
        version=2,
        key="o-1",
        status=Status.COMPENSATED,
        result={"charge": {"paid": True}},
        error=Failure("declined", "The card was declined."),
    )
    assert "paid" not in repr(result)
    assert "card" not in repr(result)
