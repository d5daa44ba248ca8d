"""The tests and faults named in docs/reliability.md exist."""

import ast
import re
from pathlib import Path

import pytest

from saga_engine.settings import Settings
from tests.faults.catalogue import ALL, CLUSTER
from tests.faults.suite import FaultResult, format_result
from tests.simulation.planted_store_bugs import ALL_BUGS as BUGS
from tests.tools import fault_tables

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


NODE = [
    FaultResult("SIGKILL of a worker", 4, 146, 0.6),
    FaultResult("mixed at random", 12, 300, 2.6),
    FaultResult("mixed at random", 12, 300, 3.1),
    FaultResult("all of them, again"),
    FaultResult("15000 runs", 28, 746, 3.1),
]
NODES = [
    FaultResult(f"cluster: {'a long name ' * 5}", 1, 258, 5.9),
    FaultResult("1500 runs", 1, 258, 5.9),
]


def printed(*tables):
    """What `make faults` prints: the lines of its progress, and a table for each broker."""
    for seconds, table in zip((1700, 100), tables, strict=False):
        yield "seed 7, logs in /tmp"
        yield f"  {seconds - 1} s  {format_result(table[0])}"
        yield f"  {seconds} s  55 runs checked, 0 violations"
        yield from map(format_result, table)
        yield "15 journey completed, 3 order compensated"


def test_the_figures_of_the_faults_are_written_from_what_the_suite_prints(monkeypatch, tmp_path):
    for name in ("MEASUREMENTS", "RELIABILITY", "README"):
        copy = tmp_path / getattr(fault_tables, name).name
        copy.write_text(getattr(fault_tables, name).read_text())
        monkeypatch.setattr(fault_tables, name, copy)
    measured = fault_tables.read_measurement("\n".join(printed(NODE, NODES)))
    fault_tables.write_documents(measured)
    total = (
        "29 faults, 16,500 runs, no violation; after every fault, the first new run completed"
        " within 5.9 s"
    )
    assert f"| {total} |" in (tmp_path / "README.md").read_text()
    page = (tmp_path / "reliability.md").read_text()
    assert f'`make faults FAULTS="--seed 7"`, 30 minutes:\n\n**{total}.**\n' in page
    table = (tmp_path / "measurements.md").read_text()
    assert (
        "| SIGKILL of a worker | 4 | 146 | 0 | 0.6 |\n| mixed at random | 24 | 600 | 0 | 3.1 |"
        in table
    )


@pytest.mark.parametrize("violated", [True, False])
def test_the_figures_of_a_run_with_violations_or_without_its_cluster_are_refused(violated):
    tables = [NODE, [FaultResult("cluster: one", violations=["P1: no"]), NODES[1]]]
    with pytest.raises(SystemExit, match="violations" if violated else "not complete"):
        fault_tables.read_measurement("\n".join(printed(*tables[: 1 + violated])))
