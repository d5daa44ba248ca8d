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
        ({"kafka_bootstrap_servers": "kafka"}, "must be host:port"),
        ({"kafka_bootstrap_servers": "kafka://one:9092"}, "must be host:port"),
        ({"kafka_bootstrap_servers": "user:secret@one:9092"}, "must be host:port"),
        ({"kafka_security_protocol": "sasl_ssl"}, "set kafka_sasl_username"),
        ({"kafka_sasl_username": "projector"}, "Set it to sasl_ssl, or unset them"),
        ({"kafka_ca_file": "/ca.pem"}, "Set it to ssl or sasl_ssl, or unset them"),
        (
            {"kafka_certificate_file": "/a.pem", "kafka_security_protocol": "ssl"},
            "kafka_certificate_file and kafka_key_file must be set together",
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


def test_several_servers_of_kafka_may_be_given_and_a_line_end_is_removed():
    settings = Settings(kafka_bootstrap_servers="one:9092, [::1]:9092\n")
    assert settings.require_kafka_bootstrap_servers() == "one:9092,[::1]:9092"


def test_empty_settings_of_kafka_count_as_not_set():
    settings = Settings(
        kafka_bootstrap_servers="", kafka_sasl_username="", kafka_sasl_password="\n"
    )
    assert settings.kafka_sasl_password is None
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        settings.require_kafka_bootstrap_servers()
