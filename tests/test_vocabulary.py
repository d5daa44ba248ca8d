"""The words of a run, and how a failure is shown."""

from saga_engine.vocabulary import Failure, Status


def test_a_run_is_finished_in_three_statuses():
    assert {status for status in Status if status.is_finished} == {
        Status.COMPLETED,
        Status.COMPENSATED,
        Status.ABANDONED,
    }


def test_a_failure_is_shown_by_code_and_message():
    assert Failure("no", "Sold out.").text == "no: Sold out."
    assert Failure("no").text == "no"
