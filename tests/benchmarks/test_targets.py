"""Each target has a case that measures it, and docs/performance.md has its row."""

from pathlib import Path

import pytest

from benchmarks.figures import Figure
from benchmarks.runs.cases import NAMES
from benchmarks.runs.targets import TARGETS, missed, table

DOCUMENT = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_a_target_has_a_case_and_a_row(target):
    assert target.case in NAMES
    assert f"| {target.what}" in DOCUMENT
    assert f"`{target.case}`" in DOCUMENT


def test_the_table_has_the_target_the_first_figure_and_whether_it_is_reached():
    figures = {"success_restate": Figure(0.5, 0.4, 0.6), "round_trips": Figure(1.0, 1.0, 1.0)}
    [_, _, success, trips] = table(figures, {"round_trips": "quiet"}).splitlines()
    assert success.endswith("| 0.5 | 0.4 to 0.6 | at least 0.9 | no | 0.41 |")
    assert "batch (quiet) | 1 | 1 to 1 | at most 2 | yes | 8 |" in trips


def test_a_figure_at_its_target_reaches_it():
    limits = {name: Figure(each.limit, 0, 0) for name, each in TARGETS.items()}
    assert not missed(limits)
    assert missed({"worker_cpu": Figure(1.11, 1, 2), "barrier": Figure(0.59, 0, 1)}) == [
        "worker_cpu",
        "barrier",
    ]
