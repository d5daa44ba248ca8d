"""docs/encryption.md says what the code does."""

import importlib
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from saga_engine.client import Client
from saga_engine.decider.decide import decide
from saga_engine.decider.triggers import Start
from saga_engine.encryption.aesgcm import AesGcmCodec
from saga_engine.encryption.keyring import KeyRing
from saga_engine.identifiers import uuid7
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.settings import Settings
from saga_engine.store import dead_letters, pending_requests
from saga_engine.store.database import Database
from saga_engine.store.dead_letters import DeadLetter
from saga_engine.store.pending_requests import NewRequest, RequestKind
from tests.kit.decider_scenario import NOON
from tests.kit.encryption_keys import keys_setting
from tests.kit.greeter import GreeterParticipant, run_services, service, worker

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "encryption.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
KEY = "A" * 43 + "="


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module that the page's block makes."""
    _, block = BLOCKS
    (tmp_path / "documented_codecs.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SHOP_KEYS", keys_setting("k1"))
    yield importlib.import_module("documented_codecs")
    del sys.modules["documented_codecs"]


async def test_the_pages_codec_encrypts_a_run_and_hides_its_sizes(module, broker_url, migrated_url):
    own = Settings(
        database_url=migrated_url,
        broker_url=broker_url,
        poll_interval=0.02,
        payload_codec="documented_codecs:codec",
    )
    greeter = GreeterParticipant()
    async with (
        worker(own) as working,
        service(own, greeter) as serving,
        run_services(working, serving),
        Client(settings=own) as client,
    ):
        handle = await client.start("greet", {"name": "Ann"})
        ending = await client.result(handle.run_id, timeout=30)
    assert ending.result == {"say": {"said": "Hello, Ann"}}
    short, long = (module.codec.encrypt(b"7" * size, "a") for size in (2, 1024))
    assert len(short) == len(long)


async def test_the_pages_query_finds_pending_payloads_of_a_key(migrated_url):
    [statement] = re.findall(r"^```sql\n(.*?);\n```", PAGE, re.MULTILINE | re.DOTALL)
    async with Database(migrated_url, Settings()) as database, database.transaction() as tx:
        for key in ("2026-11", "2027-05"):
            encrypted = AesGcmCodec(KeyRing.parse(f"{key}={KEY}")).encrypt(b"7", "a place")
            body = {"input": {"$encrypted": encrypted}}
            await pending_requests.record(
                tx,
                [NewRequest(kind=RequestKind.START, run_id=str(uuid7()), body=body, saga="orders")],
            )
            letter = DeadLetter(
                queue="saga.requests",
                reason=DeadLetterReason.INPUT_UNDECRYPTABLE,
                detail="",
                body=json.dumps(body).encode(),
                body_size=99,
            )
            await dead_letters.record(tx, [letter], 1000, 1000)
        await pending_requests.record(
            tx,
            [
                NewRequest(
                    kind=RequestKind.START, run_id=str(uuid7()), body={"input": 7}, saga="orders"
                )
            ],
        )
        [found] = await tx.execute(text(statement))
    assert tuple(found) == (1, 1)


def test_the_pages_secret_is_sent_and_not_shown(capsys):
    block, _ = BLOCKS
    scope: dict[str, Any] = {}
    exec(compile(block, "docs/encryption.md", "exec"), scope)  # the page's own words
    assert capsys.readouterr().out == "number=Secret('**********') holder='Ann'\n"
    run = decide(scope["pay"], None, Start("r", None, {"number": "4111", "holder": "A"}), NOON).run
    assert run is not None
    assert run.steps["charge"].action.payload == {"card": "4111"}


def rings(title):
    """The rings of a table of steps, in order."""
    section = PAGE.partition(f"## {title}")[2].partition("\n## ")[0]
    steps = re.findall(r"^\| \d \| `(\S+)` \|$", section, re.MULTILINE)
    return [KeyRing.parse(each.replace("...", KEY)) for each in steps]


@pytest.mark.parametrize(("title", "steps"), [("Enable encryption", 2), ("Rotate keys", 4)])
def test_between_two_steps_of_the_page_every_process_reads_every_other(title, steps):
    found = rings(title)
    assert len(found) == steps
    for before, after in pairwise(found):
        assert after.current_key_id is None or after.current_key_id in before
        assert before.current_key_id is None or before.current_key_id in after or after is found[-1]


def test_every_setting_command_and_word_the_page_names_exists():
    named = set(re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE))
    assert {name.lower() for name in named} <= set(Settings.model_fields)
    code = "".join(path.read_text() for path in (ROOT / "saga_engine").rglob("*.py"))
    for word in (
        "decryption_failed",
        "input_undecryptable",
        "encrypted_with",
        "decrypt",
        "$encrypted",
    ):
        assert word in code
        assert word.replace("_with", "-with") in PAGE
