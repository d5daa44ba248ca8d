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


def test_the_readme_and_the_page_show_one_measurement_of_the_faults():
    section = DOCUMENT.split("## 4.")[1].split("## 5.")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][1:]
    faults, waits = sum(int(row[1]) for row in rows), max(float(row[4]) for row in rows)
    told = re.search(r"\*\*(\d+ faults, [\d,]+ runs, no violation);", section)
    assert told
    assert told[1].startswith(f"{faults} faults, ")
    assert f"\n{waits} s.**" in section
    readme = (ROOT / "README.md").read_text()
    assert f"| {told[1]}; work went on within {waits} s after every fault |" in readme
