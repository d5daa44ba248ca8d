"""docs/reliability.md names tests and faults: each of them is there."""

import ast
import re
from pathlib import Path

import pytest

from saga_engine.settings import Settings
from tests.faults.catalogue import ALL, CLUSTER

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "reliability.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+(?:\.py)?(?:::\w+)?)/?`", DOCUMENT)))
FAULTS = sorted(
    set(re.findall(r"\*([^*|\n]+)\*(?!\*)", DOCUMENT.split("## 5.")[1].split("## 6.")[0]))
)


def test_the_page_names_enough_to_be_worth_a_look():
    assert len(TESTS) > 40
    assert len(FAULTS) > 60


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_is_named_is_there(name):
    path, _, function = name.partition("::")
    assert (ROOT / path).exists()
    if function:
        tree = ast.parse((ROOT / path).read_text())
        assert function in {each.name for each in ast.walk(tree) if hasattr(each, "name")}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_is_named_is_injected(name):
    assert name in {fault.name for fault in (*ALL, *CLUSTER)}


def test_every_fault_is_on_the_page():
    assert {fault.name for fault in (*ALL, *CLUSTER)} - set(FAULTS) <= UNNAMED


UNNAMED = {
    f"{kind} between {who} and {server}"
    for kind in ("cut", "stalled", "half-open", "vanished", "refused", "delayed", "throttled")
    for who in ("worker", "participant")
    for server in ("RabbitMQ", "PostgreSQL")
}
"""Of each of these the matrix names the ones that say most."""


def test_the_limits_that_are_named_are_settings():
    named = re.search(r"Limits are settings: (.*?)\(", DOCUMENT, re.DOTALL)
    assert named
    assert set(re.findall(r"`(\w+)`", named[1])) <= set(Settings.model_fields)
