"""Fixtures for the tests of metrics."""

import pytest

from tests.telemetry.event_samples import SAMPLES
from tests.telemetry.exposition import Exposition


@pytest.fixture
def exposition() -> Exposition:
    return Exposition()


@pytest.fixture
def observed(exposition: Exposition) -> Exposition:
    exposition.emit(*SAMPLES)
    return exposition
