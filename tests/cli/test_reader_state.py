"""What no process runs is shown as such, with what runs it."""

import pytest

from saga_engine.cli.reader_state import print_not_running, state_text


def document(name="orders", *, state="active", running=False, **fields):
    return {"name": name, "state": state, "running": running, **fields}


@pytest.mark.parametrize("state", ["active", "rebuilding", "ready"])
def test_a_state_in_which_a_process_has_to_run_it_says_that_none_does(state):
    assert state_text(document(state=state)) == f"{state} (no process)"
    assert state_text(document(state=state, running=True)) == state


@pytest.mark.parametrize("state", ["paused", "stopped"])
def test_a_state_in_which_nothing_has_to_run_is_shown_as_it_is(state, capsys):
    assert state_text(document(state=state)) == state
    print_not_running([document(state=state)])
    assert capsys.readouterr().err == ""


def test_the_command_that_runs_them_is_named(capsys):
    rebuild = {"role": "rebuild", "version": 3, "code_version": 2}
    print_not_running(
        [
            document(sink="exchange"),
            document(sink="stream"),  # one name for both sinks
            document("history", **rebuild),
            document("saga-engine-run-statistics", role="live"),
            document("others", running=True),
        ]
    )
    assert capsys.readouterr().err == (
        "No process runs orders, history --version 3 (code version 2): start"
        " `saga-engine projector MODULE`.\n"
        "No process runs saga-engine-run-statistics: start `saga-engine worker --events MODULE`.\n"
    )
