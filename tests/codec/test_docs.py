"""docs/encryption.md says what the code does."""

import importlib
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from saga_engine.client import Client
from saga_engine.codec.keyring import KeyRing
from saga_engine.settings import Settings
from tests.client.engine import Greeter, running, service, worker
from tests.codec.rings import setting

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "encryption.md").read_text()
KEY = "A" * 43 + "="


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module that the page's block makes."""
    [block] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "documented_codecs.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SHOP_KEYS", setting("k1"))
    yield importlib.import_module("documented_codecs")
    del sys.modules["documented_codecs"]


async def test_the_pages_codec_seals_a_run_and_hides_its_sizes(module, broker_url, migrated_url):
    own = Settings(
        database_url=migrated_url,
        broker_url=broker_url,
        poll=0.02,
        payload_codec="documented_codecs:codec",
    )
    greeter = Greeter()
    async with (
        worker(own) as working,
        service(own, greeter) as serving,
        running(working, serving),
        Client(settings=own) as client,
    ):
        handle = await client.start("greet", {"name": "Ann"})
        ending = await client.result(handle.run_id, timeout=30)
    assert ending.result == {"say": {"said": "Hello, Ann"}}
    short, long = (module.codec.seal(b"7" * size, "a") for size in (2, 1024))
    assert len(short) == len(long)


def rings(title):
    """The rings of a table of steps, in order."""
    section = PAGE.partition(f"## {title}")[2].partition("\n## ")[0]
    steps = re.findall(r"^\| \d \| `(\S+)` \|$", section, re.MULTILINE)
    return [KeyRing.read(each.replace("...", KEY)) for each in steps]


@pytest.mark.parametrize(("title", "steps"), [("Turn it on", 2), ("Rotate", 4)])
def test_between_two_steps_of_the_page_everybody_reads_everybody(title, steps):
    found = rings(title)
    assert len(found) == steps
    for before, after in pairwise(found):
        assert after.current is None or after.current in before
        assert before.current is None or before.current in after or after is found[-1]


def test_every_setting_command_and_word_the_page_names_exists():
    named = set(re.findall(r"SAGA_ENGINE_([A-Z_]+)", PAGE))
    assert {name.lower() for name in named} <= set(Settings.model_fields)
    code = "".join(path.read_text() for path in (ROOT / "saga_engine").rglob("*.py"))
    for word in ("payload_sealed", "input_sealed", "sealed_with", "unseal", "$sealed"):
        assert word in code
        assert word.replace("_with", "-with") in PAGE
