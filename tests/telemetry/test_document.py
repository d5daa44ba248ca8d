"""docs/telemetry.md agrees with the code."""

import logging
import re
import subprocess

import yaml

from saga_engine.telemetry.logs import LOG_EVENTS
from saga_engine.telemetry.metric_catalogue import METRIC_CATALOGUE
from tests.kit.telemetry_document import alerting_rules, section
from tests.telemetry.event_samples import EVENT_TYPES
from tests.telemetry.exposition import promtool


def table(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def rows(title: str) -> dict[str, list[str]]:
    return {first.strip("`"): rest for first, *rest in table(title)}


def test_each_event_has_a_row_with_its_log_name_and_level():
    written = {
        name: (event.strip("`"), level.split(";")[0])
        for name, (event, level, _) in rows("Events").items()
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
            ", ".join(metric.label_names) or "-",
        )
        for metric in METRIC_CATALOGUE
    }


def test_each_metric_is_named_by_the_event_that_changes_it():
    documented = set(re.findall(r"`(saga_\w+)`", section("Events")))

    updated = {metric.name for metric in METRIC_CATALOGUE if not metric.backlog}
    assert documented == updated - {"saga_engine_build_info"}


def test_each_label_with_a_closed_set_has_a_row_with_its_values():
    documented = {
        (label.strip("`"), metric): tuple(values.split(", "))
        for label, metrics, values in table("Labels")
        for metric in re.findall(r"`(saga_\w+)`", metrics)
        if values != "see below"
    }
    lists = re.findall(r"^`(\w+)` of (.*):\n\n((?:- \w+\n)+)", section("Labels"), re.MULTILINE)
    documented |= {
        (label, metric): tuple(values.replace("- ", "").split())
        for label, metrics, values in lists
        for metric in re.findall(r"`(saga_\w+)`", metrics)
    }

    assert documented == {
        (label.name, metric.name): label.values
        for metric in METRIC_CATALOGUE
        for label in metric.labels
        if label.values
    }


def test_the_alerts_use_existing_metrics():
    [group] = yaml.safe_load(alerting_rules())["groups"]
    used = {name for rule in group["rules"] for name in re.findall(r"\bsaga_\w+", rule["expr"])}

    assert len(group["rules"]) == 21
    assert used <= {metric.name for metric in METRIC_CATALOGUE}


def test_prometheus_accepts_the_alerts(tmp_path):
    file = tmp_path / "rules.yml"
    file.write_text(alerting_rules())

    checked = subprocess.run(
        [promtool(), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stderr
    assert "21 rules found" in checked.stdout
