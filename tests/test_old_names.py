"""
Names of earlier checkouts are not used: identifiers, settings, metrics, log events and tables.

The lists are in tests/data/old_*.txt. CHANGELOG.md maps the public ones to the new names.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from tests.language import ROOT, files

LISTS = sorted((ROOT / "tests" / "data").glob("old_*.txt"))
ALLOWED = {
    "CHANGELOG.md": "it maps old names to new ones",
    "tests/test_old_names.py": "it shows some of them",
}
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*[A-Za-z0-9_]")


def old_names(path: Path) -> set[str]:
    return set(path.read_text().split())


def words(text: str) -> Iterator[str]:
    """Each name in a text: a dotted one, each of its parts, and each pair of neighbouring parts."""
    for match in WORD.finditer(text):
        parts = match[0].split(".")
        yield from parts
        yield from (".".join(pair) for pair in pairwise(parts))


@cache
def words_of(path: Path) -> frozenset[str]:
    return frozenset(words(path.read_text()))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_no_old_name_is_used(path):
    old = old_names(path)
    assert old
    found = {}
    for each in files():
        name = str(each.relative_to(ROOT))
        used = old & words_of(each) if name not in ALLOWED else None
        if used:
            found[name] = sorted(used)
    assert found == {}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from x import NotBegun", "NotBegun"),
        ("SAGA_ENGINE_DRAIN=25", "SAGA_ENGINE_DRAIN"),
        ("log `code.stuck`.", "code.stuck"),
        ("SELECT * FROM saga_engine.inbox AS i", "saga_engine.inbox"),
        ("saga_engine.worker.turnover", "worker.turnover"),
    ],
)
def test_an_old_name_is_found(text, name):
    assert name in words(text)
