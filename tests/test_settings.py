"""Settings that contradict each other are rejected."""

import pytest

from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"mapping_timeout": 10.0}, "mapping_timeout must be less than mapping_hard_timeout"),
        (
            {"worker_heartbeat_interval": 41.0},
            "worker_heartbeat_timeout must be at least 3 times worker_heartbeat_interval",
        ),
    ],
)
def test_contradictory_settings_are_rejected(given: dict[str, object], sentence: str):
    with pytest.raises(ConfigurationError, match=sentence):
        Settings.load(**given)


def test_a_worker_may_miss_two_heartbeats_by_default():
    defaults = Settings()
    assert 3 * defaults.worker_heartbeat_interval <= defaults.worker_heartbeat_timeout


def test_an_empty_url_counts_as_not_set():
    settings = Settings(broker_url="", database_url="")
    with pytest.raises(ConfigurationError, match="BROKER_URL is not set"):
        settings.require_broker_url()
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        settings.require_database_url()
