import asyncio
import re
import sys

import pytest

from saga_engine.cli.main import run_command
from tests.kit.command_line import REPOSITORY, environment, saga_engine
from tests.kit.fork_server import COMMAND

HEAVY = ("sqlalchemy", "aio_pika", "aiormq", "pydantic", "asyncpg", "alembic", "prometheus_client")
MODULES = 420
"""Limit on modules beyond those of a bare interpreter; most are the command line and rich."""


async def test_help_imports_nothing_heavy():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", COMMAND, "--help"),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    loaded = {line.rpartition("|")[2].strip() for line in err.decode().splitlines()}
    assert "saga_engine.cli.main" in loaded
    assert [name for name in HEAVY if name in loaded] == []
    assert b"dead-letters" in out


async def test_help_and_a_usage_error_import_few_modules():
    """Counts modules, not seconds, which depend on the machine."""
    bare, helped, wrong = [await imported_modules(*each) for each in ((), ("--help",), ("strat",))]
    assert len(helped - bare) < MODULES
    assert len(wrong - bare) < MODULES


NOT_FOR_READING = (
    *("sqlalchemy", "greenlet", "aiormq", "pamqp", "aio_pika", "alembic"),
    *("rich", "uvicorn", "structlog", "prometheus_client"),
)
READING_MODULES = 420
"""The same for commands that read the database; most are the driver and pydantic."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        pytest.param(("show", "0198c0de-0000-7000-8000-000000000001"), marks=pytest.mark.long),
        pytest.param(("incidents",), marks=pytest.mark.long),
        ("resolve", "0198c0de-0000-7000-8000-000000000001/1", "retry", "--reason", "x"),
    ],
    ids=lambda arguments: arguments[0],
)
async def test_commands_that_only_read_the_database_import_nothing_else(arguments, migrated_url):
    """Nothing for brokers, migrations, terminals or workers."""
    bare, modules = (
        await imported_modules(),
        await imported_modules(*arguments, database_url=migrated_url),
    )
    assert "asyncpg" in modules
    assert len(modules - bare) < READING_MODULES
    packages = {each.partition(".")[0] for each in modules}
    assert packages.isdisjoint(NOT_FOR_READING)
    assert not any(each.startswith("pydantic_settings") for each in modules)


async def imported_modules(*arguments, **settings):
    """The modules that an interpreter imports for a command, or without one."""
    program = [str(COMMAND), *arguments] if arguments else ["-c", "pass"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", *program),
        env=environment(**settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    return {line.rpartition("|")[2].strip() for line in err.decode().splitlines() if "|" in line}


async def test_a_usage_error_is_one_sentence_and_exits_2():
    cases = (
        (("strat",), "There is no command 'strat'. Did you mean start?"),
        (("dead-letters", "lst"), "'dead-letters lst'. Did you mean dead-letters list?"),
        (("config", "show", "--jsn"), "Did you mean --json?"),
        (("start",), "`start` needs SAGA and --input."),
        (("start", "a", "b", "--input", "1"), "b"),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(saga_engine(*arguments)) for arguments, _ in cases]
    for task, (_, words) in zip(tasks, cases, strict=True):
        ran = task.result()
        assert (ran.exit_code, ran.out, len(ran.err.splitlines())) == (2, "", 1), ran
        assert words in ran.err


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_is_reported_with_its_traceback_only_on_demand(debug, monkeypatch, capsys):
    monkeypatch.setattr("saga_engine.cli.topology.print_table", lambda *_, **__: 1 / 0)
    code = run_command(["topology"], debug=debug)
    printed = capsys.readouterr().err
    assert code == 1
    assert "This is a bug in saga-engine: ZeroDivisionError" in printed
    assert ("Traceback" in printed) is debug


async def test_debug_prints_the_traceback_of_an_error():
    ran = await saga_engine("list", "--debug")
    assert ran.exit_code == 2
    assert "Traceback" in ran.err
    assert "SAGA_ENGINE_DATABASE_URL is not set" in ran.err


async def test_a_closed_pipe_is_not_an_error():
    process = await asyncio.create_subprocess_shell(
        f"{COMMAND} config show | head -1; exit ${{PIPESTATUS[0]}}",
        executable="/bin/bash",
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert len(out.splitlines()) == 1


async def test_the_version_is_that_of_the_package():
    ran = await saga_engine("--version")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", ran.out)


COMMANDS_WITHOUT_VERSION = (
    *("list", "demo", "projections", "projections list", "projections switch orders"),
    *("feeds list", "dead-letters list", "streams read order-1", "config show"),
)


@pytest.mark.parametrize("command", COMMANDS_WITHOUT_VERSION)
def test_a_command_without_an_option_version_refuses_it(command, capsys):
    assert run_command([*command.split(), "--version", "4"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, "--version" in printed.err) == ("", True)


async def test_the_manual_names_every_command_and_every_exit_code():
    manual = (REPOSITORY / "docs" / "cli.md").read_text()
    help_text = (await saga_engine("--help")).out
    commands = re.findall(r"^│ ([a-z][a-z-]+) ", help_text, re.MULTILINE)
    assert len(commands) >= 16
    for app in ("dead-letters", "streams", "projections", "feeds", "config"):
        listing = (await saga_engine(app, "--help")).out
        commands += [f"{app} {name}" for name in re.findall(r"^│ ([a-z]+) ", listing, re.MULTILINE)]
    for name in commands:
        assert f"saga-engine {name}" in manual, name
    for code in (*range(11), 124, 129, 130, 137, 143):
        assert re.search(rf"^\| {code} \|", manual, re.MULTILINE), code
