import asyncio
import json
import re
import shlex
import sys

import pytest

from saga_engine.cli.main import run_command
from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings
from tests.cli.conftest import REPOSITORY, environment, saga_engine
from tests.kit.fork_server import COMMAND

HEAVY = ("sqlalchemy", "aio_pika", "aiormq", "pydantic", "asyncpg", "alembic", "prometheus_client")
MODULES = 420
"""Beside those of a bare interpreter; the command line and rich are most of them."""


async def test_help_loads_nothing_heavy():
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


async def test_help_and_a_misuse_load_few_modules():
    """Modules, not seconds: the time of a start depends on the machine, their number does not."""
    bare, helped, misused = [await loaded(*each) for each in ((), ("--help",), ("strat",))]
    assert len(helped - bare) < MODULES
    assert len(misused - bare) < MODULES


NOT_FOR_A_READER = (
    *("sqlalchemy", "greenlet", "aiormq", "pamqp", "aio_pika", "alembic"),
    *("rich", "uvicorn", "structlog", "prometheus_client"),
)
READER_MODULES = 400
"""Beside those of a bare interpreter; the driver, pydantic and the command line are most."""


@pytest.mark.parametrize(
    "typed",
    [
        ("list",),
        ("show", "0198c0de-0000-7000-8000-000000000001"),
        ("incidents",),
        ("resolve", "0198c0de-0000-7000-8000-000000000001/1", "retry", "--reason", "x"),
    ],
    ids=lambda typed: typed[0],
)
async def test_what_needs_only_the_database_loads_nothing_else(typed, migrated_url):
    """What a broker, a migration, a terminal or a worker needs is not loaded for it."""
    bare, modules = await loaded(), await loaded(*typed, database_url=migrated_url)
    assert "asyncpg" in modules
    assert len(modules - bare) < READER_MODULES
    packages = {each.partition(".")[0] for each in modules}
    assert packages.isdisjoint(NOT_FOR_A_READER)
    assert not any(each.startswith("pydantic_settings") for each in modules)


async def loaded(*arguments, **settings):
    """The modules that an interpreter loads for a command, or for nothing."""
    program = [str(COMMAND), *arguments] if arguments else ["-c", "pass"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", *program),
        env=environment(**settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    return {line.rpartition("|")[2].strip() for line in err.decode().splitlines() if "|" in line}


async def test_a_misuse_is_one_sentence_and_exit_2():
    cases = (
        (("strat",), "There is no command 'strat'. Did you mean start?"),
        (("dead-letters", "lst"), "There is no command 'lst'. Did you mean list?"),
        (("config", "show", "--jsn"), "Did you mean --json?"),
        (("start",), "`start` needs SAGA."),
        (("start", "a", "b", "--input", "1"), "b"),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(saga_engine(*arguments)) for arguments, _ in cases]
    for task, (_, words) in zip(tasks, cases, strict=True):
        ran = task.result()
        assert (ran.exit_code, ran.out, len(ran.err.splitlines())) == (2, "", 1), ran
        assert words in ran.err


async def test_a_typo_in_the_environment_is_an_error():
    ran = await saga_engine("config", "show", databse_url="x")
    assert ran.exit_code == 2
    assert (
        "SAGA_ENGINE_DATABSE_URL is not a setting. Did you mean SAGA_ENGINE_DATABASE_URL?"
        in ran.err
    )


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_of_ours_says_so_and_shows_its_traceback_only_on_demand(debug, monkeypatch, capsys):
    monkeypatch.setattr("saga_engine.cli.topology.table", lambda *_, **__: 1 / 0)
    code = run_command(["topology"], debug=debug)
    said = capsys.readouterr().err
    assert code == 1
    assert "This is a bug in saga-engine: ZeroDivisionError" in said
    assert ("Traceback" in said) is debug


async def test_debug_shows_where_an_error_comes_from():
    ran = await saga_engine("list", "--debug")
    assert ran.exit_code == 2
    assert "Traceback" in ran.err
    assert "SAGA_ENGINE_DATABASE_URL is not set" in ran.err


async def test_a_reader_that_has_seen_enough_is_no_error():
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


async def test_config_shows_each_setting_its_source_and_no_password():
    ran = await saga_engine(
        *("config", "show", "--json"),
        poll="0.5",
        broker_url="amqp://guest:hunter2@host:5672/v?password=hunter2",
    )
    rows = {row["name"]: row for row in ran.json["settings"]}
    assert (
        rows["SAGA_ENGINE_POLL_INTERVAL"]["value"],
        rows["SAGA_ENGINE_POLL_INTERVAL"]["source"],
    ) == (
        0.5,
        "environment",
    )
    assert rows["SAGA_ENGINE_REPLY_PREFETCH"]["source"] == "default"
    assert rows["SAGA_ENGINE_BROKER_URL"]["value"] == "amqp://guest:***@host:5672/v?***"
    assert "hunter2" not in ran.out
    plain = await saga_engine("config", "show", broker_url="amqp://guest:hunter2@host/")
    assert "hunter2" not in plain.out + plain.err


async def test_config_shows_rules_as_they_are_written():
    rules = '{"payment.*": ["payments"], "*": []}'
    ran = await saga_engine("config", "show", "--json", reply_users=rules)
    rows = {row["name"]: row["value"] for row in ran.json["settings"]}
    assert rows["SAGA_ENGINE_AUTHORIZED_REPLY_USERS"] == rules


@pytest.mark.parametrize("rules", ["payments", "[]", '{"payment.*": "payments"}', '{"*": [""]}'])
async def test_rules_that_are_none_are_refused_at_the_start(rules):
    ran = await saga_engine("config", "show", reply_users=rules)
    assert ran.exit_code == 2
    assert 'SAGA_ENGINE_AUTHORIZED_REPLY_USERS is invalid: must be JSON of the form {"payment' in (
        ran.err
    )


async def test_topology_prints_what_is_declared_and_the_policy():
    shown = (await saga_engine("topology", "--json")).json
    assert {queue["name"] for queue in shown["queues"]} == {
        "saga.replies",
        "saga.requests",
        "saga.dead-letters",
    }
    policy = (await saga_engine("topology", "--policy", "--json")).json["policy"]
    command = (await saga_engine("topology", "--policy")).out
    begin = "rabbitmqctl set_policy -p / --apply-to queues --priority 10 saga-engine"
    assert command.startswith(begin)
    assert json.dumps(policy["definition"], separators=(",", ":")) in command


@pytest.mark.parametrize(
    ("path", "vhost"), [("", "/"), ("/", "/"), ("/shop", "shop"), ("/%2F", "/"), ("/a%20b", "a b")]
)
async def test_the_policy_is_for_the_virtual_host_of_the_url(path, vhost):
    url = f"amqp://guest:guest@one:5672,two:5672{path}"
    ran = await saga_engine("topology", "--policy", broker_url=url)
    assert shlex.split(ran.out)[2:4] == ["-p", vhost]
    ran = await saga_engine("topology", "--policy", "--json", broker_url=url)
    assert ran.json["vhost"] == vhost


async def test_the_manual_names_every_command_and_every_exit_code():
    manual = (REPOSITORY / "docs" / "cli.md").read_text()
    told = (await saga_engine("--help")).out
    commands = re.findall(r"^│ ([a-z][a-z-]+) ", told, re.MULTILINE)
    assert len(commands) >= 16
    for app in ("dead-letters", "config"):
        listing = (await saga_engine(app, "--help")).out
        commands += [f"{app} {name}" for name in re.findall(r"^│ ([a-z]+) ", listing, re.MULTILINE)]
    for name in commands:
        assert f"saga-engine {name}" in manual, name
    for code in (*range(11), 124, 129, 130, 137, 143):
        assert re.search(rf"^\| {code} \|", manual, re.MULTILINE), code


def test_a_url_that_is_empty_is_not_set():
    settings = Settings(broker_url="", database_url="")
    with pytest.raises(ConfigurationError, match="BROKER_URL is not set"):
        settings.require_broker_url()
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        settings.require_database_url()
