"""The messages and exit codes of commands with unusual streams and environments."""

import json
import os
import shlex
import sys

import pytest

from saga_engine.cli.output import print_json
from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings
from tests.kit.bash import run_in_bash
from tests.kit.command_line import saga_engine


@pytest.mark.parametrize(
    "more",
    [
        {"TZ": "\udcff"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        *(
            pytest.param(each, marks=pytest.mark.long)
            for each in (
                *({"TERM": "dumb"}, {"COLUMNS": "abc"}, {"COLUMNS": "0"}, {"COLUMNS": "-5"}),
                *({"TZ": ":/nowhere"}, {"HOME": ""}, {"HOME": "/nowhere"}),
                *({"PYTHONIOENCODING": each} for each in ("ascii", "latin-1", "utf-16")),
            )
        ),
    ],
    ids=str,
)
async def test_an_odd_environment_is_not_an_error(more):
    exit_code, _, err = await run_in_bash(
        "se config show && se --help && se topology --json", **more
    )
    assert (exit_code, err) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_document_escapes_what_its_encoding_lacks(encoding, tmp_path, monkeypatch):
    document = {"key": "Zoë 日本 \U0001f600"}
    with (tmp_path / "out").open("w+", encoding=encoding) as out:
        monkeypatch.setattr(sys, "stdout", out)
        print_json(document)
        out.seek(0)
        assert json.load(out) == {"schema_version": 1, **document}


async def test_a_message_escapes_what_its_encoding_lacks():
    code, out, err = await run_in_bash("se check 'Zoë'", PYTHONIOENCODING="ascii")
    assert (code, out) == (2, "")
    assert "There is no module 'Zo\\xeb'" in err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql+asyncpg://a@127.0.0.1:99999/d", "has the port 99999"),
        ("postgresql+asyncpg://a@127.0.0.1:-1/d", "has the port -1"),
        ("postgresql+asyncpg://a@127.0.0.1:x/d", "cannot be read"),
        ("postgresql+asyncpg://a@/d?host=one:5432&host=two:99999", "has the port 99999"),
        (f"postgresql+asyncpg://a@{'h' * 64}.example/d", "cannot be read"),
        ("postgresql+asyncpg://a@h%00/d", ""),
        ("postgresql+asyncpg://a@/d?host=h&port=70000", "has the port 70000"),
    ],
)
async def test_a_database_url_with_an_impossible_address_is_a_sentence(url, words):
    ran = await saga_engine("list", database_url=url)
    assert ran.exit_code in (2, 5)
    found = (words in ran.err, "bug" in ran.err, len(ran.err.splitlines()))
    assert found == (True, False, 1), ran.err


@pytest.mark.parametrize(
    "address", ["h:99999", "h:0x1", "h:-1", f"{'h' * 64}.example", "h,:5672", ":5672"]
)
async def test_a_broker_url_with_an_impossible_address_is_a_sentence(address):
    url = f"amqp://guest:hunter2@{address}/"
    ran = await saga_engine("start", "parcel", "--input", 1, broker_url=url)
    assert ran.exit_code in (2, 5)
    found = ("bug" in ran.err, "hunter2" in ran.err, len(ran.err.splitlines()))
    assert found == (False, False, 1), ran.err


VARIABLES = (
    *("DATABASE_URL", "BROKER_URL", "POLL_INTERVAL", "REPLY_PREFETCH", "HTTP_PORT"),
    *("AUTHORIZED_REPLY_USERS", "SHUTDOWN_TIMEOUT"),
)


@pytest.mark.parametrize("value", ["\udcff", "", " ", "\x1b[2J", "9" * 5000, "nan", "-1"])
@pytest.mark.parametrize("name", VARIABLES)
def test_an_invalid_value_is_a_sentence(name, value, monkeypatch):
    monkeypatch.setitem(os.environ, f"SAGA_ENGINE_{name}", value)
    message = ""
    try:
        Settings.load()
    except ConfigurationError as error:
        message = str(error)
    assert message == "" or f"SAGA_ENGINE_{name} is invalid" in message


async def test_a_demo_with_one_url_names_the_variable_to_unset():
    ran = await saga_engine("demo", broker_url="amqp://127.0.0.1:1/")
    assert ran.exit_code == 2
    assert "Unset SAGA_ENGINE_BROKER_URL to run the demo on embedded servers" in ran.err


async def test_a_diagram_ends_with_a_newline():
    ran = await saga_engine("graph", "examples.place_order.sagas", "--format", "mermaid")
    assert (ran.exit_code, ran.out[-1], ran.out[-2] == "\n") == (0, "\n", False)


async def test_a_user_without_a_name_must_name_one_in_the_url():
    if os.geteuid():
        return
    script = (
        "import encodings.idna, os, saga_engine.cli.runs\n"
        "from saga_engine.cli.main import run_command\n"
        "os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
        "raise SystemExit(run_command(['list']))"
    )
    code, _, err = await run_in_bash(
        f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}",
        SAGA_ENGINE_DATABASE_URL="postgresql+asyncpg://127.0.0.1:1/d",
        HOME="",
    )
    assert (code, "has no name" in err) == (2, True), err
