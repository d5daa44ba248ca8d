"""The tests and faults named in docs/reliability.md exist."""

import ast
import re
from pathlib import Path

import pytest

from saga_engine.settings import Settings
from tests.faults.catalogue import ALL, CLUSTER
from tests.simulation.planted_event_bugs import ALL_BUGS as BUGS

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "reliability.md").read_text()
MEASUREMENTS = (ROOT / "docs" / "measurements.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+(?:\.py)?(?:::\w+)?)/?`", DOCUMENT)))
FAULTS = sorted(
    set(re.findall(r"\*([^*|\n]+)\*(?!\*)", DOCUMENT.split("## 5.")[1].split("## 6.")[0]))
)


def test_names_are_found_in_the_page():
    assert len(TESTS) > 40
    assert len(FAULTS) > 60


@pytest.mark.parametrize("name", TESTS)
def test_a_named_test_exists(name):
    path, _, function = name.partition("::")
    assert (ROOT / path).exists()
    if function:
        tree = ast.parse((ROOT / path).read_text())
        assert function in {each.name for each in ast.walk(tree) if hasattr(each, "name")}


@pytest.mark.parametrize("name", FAULTS)
def test_a_named_fault_is_injected(name):
    assert name in {fault.name for fault in (*ALL, *CLUSTER)}


def test_the_page_lists_every_planted_bug():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ([PE][\dPE, ]+) \|$", DOCUMENT, re.MULTILINE)
    assert rows == [
        (name, (plant.__doc__ or "").strip(), ", ".join(sorted(promises)))
        for name, (plant, promises) in BUGS.items()
    ]


def test_every_fault_is_in_the_page():
    assert {fault.name for fault in (*ALL, *CLUSTER)} - set(FAULTS) <= UNNAMED


UNNAMED = {
    f"{kind} between {who} and {server}"
    for kind in ("cut", "stalled", "half-open", "vanished", "refused", "delayed", "throttled")
    for who in ("worker", "participant", "projector")
    for server in ("RabbitMQ", "PostgreSQL")
}
"""Of these combinations the page names only the most important ones."""


def test_the_named_limits_are_settings():
    named = re.search(r"Limits are settings: (.*?)\(", DOCUMENT, re.DOTALL)
    assert named
    assert set(re.findall(r"`(\w+)`", named[1])) <= set(Settings.model_fields)


def test_the_readme_and_the_page_show_the_same_measurement_of_the_faults():
    section = DOCUMENT.split("## 4.")[1].split("## 5.")[0]
    faults_section = MEASUREMENTS.split("## Faults")[1].split("## ")[0]
    table = [line for line in faults_section.splitlines() if line.startswith("| ")]
    rows = [line.split("|")[1:-1] for line in table[1:]]
    faults, waits = sum(int(row[1]) for row in rows), max(float(row[4]) for row in rows)
    total = re.search(r"\*\*(\d+ faults,\s[\d,]+\sruns,\sno\sviolation);", section)
    assert total
    assert total[1].startswith(f"{faults} faults, ")
    assert f" {waits} s.**" in " ".join(section.split())
    readme = (ROOT / "README.md").read_text()
    measured = f"{total[1]}; after every fault, the first new run completed within {waits} s"
    assert f"| {measured} |" in readme
