"""Any argument gets one sentence and an exit code: no traceback, no control characters."""

import asyncio
import io
import json
import sys
from typing import Any

import pytest

from saga_engine.cli.main import run_command
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.settings import Settings
from saga_engine.store import dead_letters
from saga_engine.store.database import Database
from saga_engine.store.dead_letters import DeadLetter

RUN = "0198c0de-0000-7000-8000-000000000001"
CODES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 124)
CONTROL_CHARACTERS = "\x1b\x07\x9b\u202e\u2066\x7f\r"

TYPED = {
    "ANSI escapes": "\x1b[2J\x1b]0;owned\x07",
    "a second line": "a\nsaga-engine: forged\r\n",
    "right to left": "\u202egpj.exe\u2066",
    "C1": "\x9b31m\x7f",
    "not UTF-8": "\udcff\udcfe",
    "nothing": "",
    "LIKE wildcards": "%_\\",
    "SQL": "' OR 1=1; DROP TABLE saga_engine.run;--",
    "5,000 digits": "9" * 5000,
    "beyond 64 bits": str(2**64),
    "beyond 32 bits": str(2**31),
    "negative": "-1",
    "zero": "0",
    "1e400": "1e400",
    "NaN": "NaN",
    "infinity": "inf",
    "long": "x" * 200_000,
    "emoji": "\U0001f600" * 300,
    "markup": "[bold red]x[/bold red] [/]",
    "a template": "${jndi:ldap://x} {0.__class__} %s%n {{7*7}}",
    "a path": "../../etc/passwd",
    "a missing file": "@/nowhere/\x1b[2J",
    "a directory": "@/",
    "a file with no name": "@\udcff",
    "a bare hyphen": "-",
    "two hyphens": "--",
    "deep JSON": "[" * 100_000,
    "JSON that cannot be stored": '"\\u0000\\ud800"',
    "a JSON number beyond 64 bits": '{"n": 1' + "0" * 400 + "}",
    "other digits": "\u0661\u0662",
    "a run id and a line": f"{RUN}\n",
    "a run id in braces": f"{{{RUN}}}",
}

WHY = ("--reason", "it is known", "--operator", "ann")
COMMANDS = (
    "{}",
    "--{}",
    "start {} --input 1",
    "start parcel --input {}",
    "start parcel --input 1 --key {}",
    "start parcel --input 1 --version {}",
    "start parcel --input 1 --wait --timeout {}",
    "wait {}",
    f"wait {RUN} --timeout {{}}",
    "list --key {}",
    "list --saga {}",
    "list --status {}",
    "list --limit {}",
    "list --after {}",
    "show {}",
    "show {} --json",
    "cancel {}",
    f"cancel {RUN} --reason {{}}",
    f"cancel {RUN} --reason x --operator {{}}",
    "incidents --saga {}",
    "incidents --limit {}",
    "incidents --cause {}",
    "incidents --step {}",
    "incidents --older-than {}",
    "incidents --group-by {}",
    "incidents --after {}",
    "list --after {}",
    f"show {RUN}/{{}}",
    "resolve {} retry --reason x",
    "resolve --cause unroutable {} --reason x",
    "resolve --step {} retry --reason x",
    "resolve --all retry --reason x --yes --rate {}",
    "resolve --all retry --reason x --yes --limit {}",
    "resolve --older-than {} retry --reason x",
    f"resolve {RUN}/{{}} retry --reason x",
    f"resolve {RUN}/1 {{}} --reason x",
    f"resolve {RUN}/1 complete --reason x --result {{}}",
    "dead-letters {}",
    "dead-letters list --queue {}",
    "dead-letters list --reason-code {}",
    "dead-letters list --state {}",
    "dead-letters list --limit {}",
    "dead-letters list --after {}",
    "dead-letters show {}",
    "dead-letters redrive {}",
    "dead-letters redrive --queue {} --yes",
    "dead-letters discard {} --reason x",
    "dead-letters discard 1 --reason {}",
    "dead-letters discard 1 --reason x --operator {}",
    "check {}",
    "check json:{}",
    "graph {}",
    "graph json --format {}",
    "worker {}",
    "worker json --port {}",
    "participant {}",
    "topology {}",
    "config show {}",
    "migrate {}",
)


@pytest.fixture
def typing(monkeypatch, migrated_url):
    """Runs a command and returns its exit code and output, with a database and no broker."""
    monkeypatch.setenv("SAGA_ENGINE_DATABASE_URL", migrated_url)
    monkeypatch.setenv("SAGA_ENGINE_BROKER_URL", "amqp://ann:secret@127.0.0.1:1/")
    monkeypatch.setenv("SAGA_ENGINE_CLIENT_TIMEOUT", "0.05")
    monkeypatch.setenv("SAGA_ENGINE_BROKER_CONNECT_TIMEOUT", "1")

    async def typed(arguments):
        # As on a terminal: bytes that are not UTF-8 are surrogates and are printed unchanged.
        out, err = (
            io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors)
            for errors in ("surrogateescape", "backslashreplace")
        )
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        code = await asyncio.to_thread(run_command, arguments)
        return code, _written(out), _written(err)

    return typed


def _written(stream):
    stream.flush()
    stream.seek(0)
    return stream.read()


@pytest.mark.parametrize("command", COMMANDS)
async def test_any_argument_is_answered_with_one_sentence(command, typing):
    problems = []
    for name, value in TYPED.items():
        code, out, err = await typing([each.replace("{}", value) for each in command.split()])
        wrong = [f"exit {code}"] if code not in CODES or code == 1 else []
        wrong += [f"{len(err.splitlines())} lines"] if code and len(err.splitlines()) != 1 else []
        wrong += [f"shows {each!r}" for each in CONTROL_CHARACTERS if each in out + err]
        wrong += ["is long"] if len(err) > 3000 else []
        if wrong:
            problems.append((name, wrong, err[:300]))
    assert problems == []


@pytest.mark.parametrize("command", ["list", "list --json", "show 1", "show 1 --json"])
async def test_a_dead_letter_prints_no_control_characters(command, typing, migrated_url):
    evil = CONTROL_CHARACTERS + "\n\u2028[red]x[/red]"
    names: dict[str, Any] = dict.fromkeys(
        ("message_id", "correlation_id", "type", "exchange", "routing_key"), evil
    )
    letter = DeadLetter(
        queue=evil,
        reason=DeadLetterReason.BAD_REQUEST,
        detail=evil,
        body=json.dumps([evil]).encode() + evil.encode(),
        body_size=9,
        **names,
        properties={evil: evil},
        headers={evil: [evil, {evil: evil}]},
    )
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        await dead_letters.record(tx, [letter], 1000)
    code, out, err = await typing(["dead-letters", *command.split()])
    assert (code, err) == (0, "1 of 1 dead letters.\n" if command == "list" else "")
    assert [each for each in CONTROL_CHARACTERS if each in out] == []
    if "--json" in command:
        found = json.loads(out)
        shown = found.get("dead_letters", [found])[0]
        assert shown["message_id"] == evil
