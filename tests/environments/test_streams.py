"""The messages and exit codes of commands with unusual streams and environments."""

import asyncio
import json
import os
import shlex
import sys
from contextlib import suppress

import pytest

from saga_engine.cli.output import print_json
from saga_engine.embedded.server_process import free_port
from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings
from tests.kit.command_line import REPOSITORY, environment
from tests.kit.fork_server import COMMAND

FULL = "The output cannot be written: No space left on device"
CLOSED = "The output cannot be written: Bad file descriptor"


async def run_in_bash(script, **more):
    """Run a line of bash in which `se` is saga-engine; return exit code, stdout and stderr."""
    line = f'se() {{ {shlex.quote(str(COMMAND))} "$@"; }}; {script}'
    process = await asyncio.create_subprocess_exec(
        *("/bin/bash", "-c", line),
        env={**environment(), **more},
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("se config show >/dev/full", 10, FULL + ". The command itself succeeded."),
        ("se config show --json >/dev/full", 10, FULL),
        ("se --help >/dev/full", 10, FULL),
        ("se config show >&-", 10, CLOSED),
        ("se topology --policy >&-", 10, CLOSED),
        ("se list >&-", 2, "SAGA_ENGINE_DATABASE_URL is not set"),
        ("se start parcel --input - <&-", 2, "--input: stdin cannot be read: Bad file descriptor"),
        ("se start parcel --input @/", 2, "--input: / cannot be read: Is a directory"),
        ("se start parcel --input @/dev/zero", 2, "--input: /dev/zero cannot be read: it has more"),
        ("se start parcel --input @/proc/self/mem", 2, "--input: /proc/self/mem cannot be read"),
        ("mkdir /tmp/gone.$$; cd /tmp/gone.$$; rmdir /tmp/gone.$$; se worker x", 2, "_URL is not"),
    ],
)
async def test_an_unusable_output_or_input_is_a_sentence(script, code, words):
    exit_code, _, err = await run_in_bash(script)
    assert (exit_code, words in err, len(err.splitlines())) == (code, True, 1), err


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("se config show 2>&-", 0),
        ("se config show 2>/dev/full", 0),
        ("se list 2>&-", 2),
        ("se list 2>/dev/full", 2),
        ("se config show | true; exit ${PIPESTATUS[0]}", 0),
        ("se topology | true; exit ${PIPESTATUS[0]}", 0),
        ("se --help | true; exit ${PIPESTATUS[0]}", 0),
        ("se config show <&- >/dev/null 2>&-", 0),
    ],
)
async def test_lost_messages_do_not_change_the_exit_code(script, code):
    exit_code, _, err = await run_in_bash(script)
    assert (exit_code, err) == (code, "")


@pytest.mark.parametrize(
    "more",
    [
        {"TERM": "dumb"},
        {"COLUMNS": "abc"},
        {"COLUMNS": "0"},
        {"COLUMNS": "-5"},
        {"TZ": ":/nowhere"},
        {"TZ": "\udcff"},
        {"HOME": ""},
        {"HOME": "/nowhere"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "utf-16"},
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
    code, _, err = await run_in_bash("se list", SAGA_ENGINE_DATABASE_URL=url)
    assert code in (2, 5)
    assert (words in err, "bug" in err, len(err.splitlines())) == (True, False, 1), err


@pytest.mark.parametrize("address", ["h:99999", "h:0x1", "h:-1", f"{'h' * 64}.example", "h,:5672"])
async def test_a_broker_url_with_an_impossible_address_is_a_sentence(address):
    url = f"amqp://guest:hunter2@{address}/"
    code, _, err = await run_in_bash("se start parcel --input 1", SAGA_ENGINE_BROKER_URL=url)
    assert code in (2, 5)
    assert ("bug" in err, "hunter2" in err, len(err.splitlines())) == (False, False, 1), err


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
    code, _, err = await run_in_bash("se demo", SAGA_ENGINE_BROKER_URL="amqp://127.0.0.1:1/")
    assert code == 2
    assert "Unset SAGA_ENGINE_BROKER_URL to run the demo on embedded servers" in err


async def test_a_diagram_ends_with_a_newline():
    code, out, _ = await run_in_bash("se graph examples.place_order.sagas --format mermaid")
    assert (code, out[-1], out[-2] == "\n") == (0, "\n", False)


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


async def test_a_worker_serves_with_every_stream_closed(migrated_url, rabbitmq_url):
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *("/bin/bash", "-c", f"exec {COMMAND} worker examples.place_order.sagas <&- >&- 2>&-"),
        env=environment(database_url=migrated_url, broker_url=rabbitmq_url, http_port=str(port)),
        cwd=REPOSITORY,
    )
    try:
        await _wait_until_ready(port, process)
    finally:
        if process.returncode is None:
            process.terminate()
    async with asyncio.timeout(60):
        assert await process.wait() == 0


async def _wait_until_ready(port, process):
    async with asyncio.timeout(90):
        while process.returncode is None:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await process.wait()
                continue
            writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if b" 200 " in answer.split(b"\r\n")[0]:
                return
    raise AssertionError(process.returncode)
