"""The exit code of a command is its own, whether what it prints is read or not."""

import asyncio
import json
import shlex

import pytest

from saga_engine.cli import standard_streams
from saga_engine.cli.exit_status import message_and_exit_code, print_failure
from saga_engine.errors import HandlersStuck
from tests.cli.conftest import REPOSITORY, environment
from tests.cli.test_bulk_resolve import WHY, stuck
from tests.kit.fork_server import COMMAND

LOST = [">/dev/full", "| true; exit ${PIPESTATUS[0]}"]


async def typed(engine, *arguments, then):
    """Run one command in bash, with what follows it in the line; its exit code and its stderr."""
    process = await asyncio.create_subprocess_exec(
        *("/bin/bash", "-c", f"{shlex.join([str(COMMAND), *map(str, arguments)])} {then}"),
        env=environment(
            database_url=engine.settings.require_database_url(),
            broker_url=engine.settings.require_broker_url(),
        ),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        _, err = await process.communicate()
    return process.returncode, err.decode()


@pytest.mark.parametrize("then", LOST)
async def test_some_that_failed_are_not_hidden_by_an_output_that_is_lost(engine, then):
    await stuck(engine, 2)
    code, err = await typed(engine, "resolve", "--all", "reject", "--yes", *WHY, then=then)
    assert (code, "has been done" in err) == (7, False), err
    assert ("The output cannot be written" in err) == ("full" in then)


@pytest.mark.parametrize("then", LOST)
async def test_a_run_that_did_not_complete_is_not_hidden_by_an_output_that_is_lost(engine, then):
    given = json.dumps({"name": "nobody"})
    code, err = await typed(engine, "start", "greet", "--wait", "--input", given, then=then)
    assert code == 6, err


def test_an_error_that_is_alone_in_its_groups_has_its_own_code():
    error = HandlersStuck("All places are taken.")
    assert message_and_exit_code(ExceptionGroup("", [ExceptionGroup("", [error])])) == (
        str(error),
        9,
    )


def test_an_error_is_said_once_however_many_threads_say_it(capsys):
    error = HandlersStuck("All places are taken.")
    assert print_failure(error) == print_failure(ExceptionGroup("", [error])) == 9
    assert capsys.readouterr().err == "saga-engine: All places are taken.\n"


def test_only_what_succeeded_is_said_to_be_done():
    full = OSError(28, "No space left on device")
    assert "has been done" in str(standard_streams.output_error(full, 0))
    assert "has been done" not in str(standard_streams.output_error(full, 7))
