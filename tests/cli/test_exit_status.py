"""A command exits with its own code, whether its output can be written or not."""

import json
import shlex

import pytest

from saga_engine.cli.exit_status import message_and_exit_code, print_failure
from saga_engine.errors import HandlersStuck
from tests.kit.bash import run_in_bash
from tests.kit.command_line import environment
from tests.kit.stuck_runs import WHY, start_stuck_runs

LOST_OUTPUT = [">/dev/full", pytest.param("| true; exit ${PIPESTATUS[0]}", marks=pytest.mark.long)]


async def run_command_in_bash(engine, *arguments, then):
    """Run one command in bash, followed by *then*; return its exit code and its stderr."""
    urls = environment(
        database_url=engine.settings.require_database_url(),
        broker_url=engine.settings.require_broker_url(),
    )
    code, _, err = await run_in_bash(f"se {shlex.join(map(str, arguments))} {then}", **urls)
    return code, err


@pytest.mark.parametrize("then", LOST_OUTPUT)
async def test_lost_output_does_not_hide_partial_failure(engine, then):
    await start_stuck_runs(engine, 2)
    code, err = await run_command_in_bash(
        engine, "resolve", "--all", "reject", "--yes", *WHY, then=then
    )
    assert (code, "succeeded" in err) == (7, False), err
    assert ("The output cannot be written" in err) == ("full" in then)


@pytest.mark.parametrize("then", LOST_OUTPUT)
async def test_lost_output_does_not_hide_that_a_run_did_not_complete(engine, then):
    given = json.dumps({"name": "unknown"})
    code, err = await run_command_in_bash(
        engine, "start", "greet", "--wait", "--input", given, then=then
    )
    assert code == 6, err


def test_a_single_error_in_exception_groups_has_its_own_code():
    error = HandlersStuck("All handler slots are taken.")
    assert message_and_exit_code(ExceptionGroup("", [ExceptionGroup("", [error])])) == (
        str(error),
        9,
    )


def test_an_error_is_printed_once_even_by_two_threads(capsys):
    error = HandlersStuck("All handler slots are taken.")
    assert print_failure(error) == print_failure(ExceptionGroup("", [error])) == 9
    assert capsys.readouterr().err == "saga-engine: All handler slots are taken.\n"
