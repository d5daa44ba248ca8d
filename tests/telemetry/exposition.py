"""A registry with the metrics, and promtool."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from saga_engine.telemetry import events
from saga_engine.telemetry.metrics import Metrics


class Exposition:
    """A registry, and the samples that it exposes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def emit(self, *emitted: events.TelemetryEvent) -> None:
        for event in emitted:
            self.metrics(event)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def series(self, prefix: str = "saga_") -> int:
        text = self.metrics.render()[0].decode()
        return sum(line.startswith(prefix) for line in text.splitlines())


def promtool() -> str:
    in_venv = Path(sys.executable).parent / "promtool"
    found = str(in_venv) if in_venv.exists() else shutil.which("promtool")
    if found is None:
        missing = "promtool is missing: sh tests/tools/promtool.sh .venv/bin"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found
