"""docs/telemetry.md says what the code does."""

import logging
import re
import subprocess
from pathlib import Path

import yaml

from saga_engine.telemetry.logs import LOG_EVENTS
from saga_engine.telemetry.metric_catalogue import METRIC_CATALOGUE
from tests.telemetry.event_samples import EVENT_TYPES
from tests.telemetry.test_metrics import promtool

DOCUMENT = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()


def section(title: str) -> str:
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> dict[str, list[str]]:
    table = [line for line in section(title).splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {first.strip("`"): rest for first, *rest in cells}


def test_each_fact_has_a_row_with_its_log_event_and_level():
    written = {
        name: (event.strip("`"), level.split(";")[0])
        for name, (event, level, _) in rows("Facts").items()
    }

    assert written == {
        kind.__name__: (event, logging.getLevelName(level).lower())
        for kind, (event, level) in LOG_EVENTS.items()
    }
    assert set(written) == {kind.__name__ for kind in EVENT_TYPES}


def test_each_metric_has_a_row_with_its_kind_and_labels():
    written = {name: (kind, labels) for name, (kind, labels, _) in rows("Metrics").items()}

    assert written == {
        metric.name: (
            metric.kind + (" D" if metric.backlog else ""),
            ", ".join(metric.labels) or "-",
        )
        for metric in METRIC_CATALOGUE
    }


def test_each_metric_is_moved_by_a_fact_that_says_so():
    named = set(re.findall(r"`(saga_\w+)`", section("Facts")))

    moved = {metric.name for metric in METRIC_CATALOGUE if not metric.backlog}
    assert named == moved - {"saga_engine_build_info"}


def rules() -> str:
    return section("Alerts").split("```yaml\n")[1].split("```")[0]


def test_the_alerts_ask_for_metrics_that_exist():
    [group] = yaml.safe_load(rules())["groups"]
    asked = {name for rule in group["rules"] for name in re.findall(r"\bsaga_\w+", rule["expr"])}

    assert len(group["rules"]) == 7
    assert asked <= {metric.name for metric in METRIC_CATALOGUE}


def test_the_alerts_are_rules_that_prometheus_takes(tmp_path):
    file = tmp_path / "rules.yml"
    file.write_text(rules())

    checked = subprocess.run(
        [promtool(), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stderr
    assert "7 rules found" in checked.stdout
