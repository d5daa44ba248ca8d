"""Errors of Kafka are sentences with the next action, and settings reach its library."""

import re

import pytest
from confluent_kafka import KafkaError

from saga_engine.errors import ConfigurationError
from saga_engine.events.feeds.kafka_client import ErrorRecord, client_configuration, problem_of
from saga_engine.settings import Settings

ERRORS = {name: value for name, value in vars(KafkaError).items() if isinstance(value, int)}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("_TRANSPORT", "Kafka is unavailable: .* check SAGA_ENGINE_KAFKA_BOOTSTRAP_SERVERS"),
        ("_AUTHENTICATION", "refuses the login: .* Correct SAGA_ENGINE_KAFKA_SASL_USERNAME"),
        ("_SSL", "TLS to Kafka failed: .* Correct SAGA_ENGINE_KAFKA_CA_FILE"),
        ("TOPIC_AUTHORIZATION_FAILED", "at topic 'orders': .* Grant it DESCRIBE"),
        ("CLUSTER_AUTHORIZATION_FAILED", "refuses the feed's user: .* CREATE on topic 'orders'"),
        ("INVALID_REPLICATION_FACTOR", "cannot create topic 'orders': .*_KAFKA_REPLICATION"),
        ("NOT_ENOUGH_REPLICAS", r"takes no events for topic 'orders': .*\(NOT_ENOUGH_REPLICAS\)"),
    ],
)
def test_an_error_is_a_sentence(name, sentence):
    error = KafkaError(ERRORS[name], "one:9092/1: It failed (after 3ms in state CONNECT).")
    problem = problem_of(error, "orders")
    assert "3ms" not in problem  # the same problem is reported once
    assert re.search(sentence, problem), problem


def test_the_last_error_that_says_something_is_kept():
    errors = ErrorRecord()
    errors(KafkaError(ERRORS["_ALL_BROKERS_DOWN"]))
    errors(KafkaError(ERRORS["_AUTHENTICATION"]))
    errors(KafkaError(ERRORS["_ALL_BROKERS_DOWN"]))
    assert errors.last is not None
    assert errors.last.name() == "_AUTHENTICATION"


def test_the_servers_are_required():
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        client_configuration(Settings())


def test_settings_of_tls_and_login_reach_the_library():
    configuration = client_configuration(
        Settings(
            kafka_bootstrap_servers="one:9092,two:9092",
            kafka_security_protocol="sasl_ssl",
            kafka_sasl_username="projector",
            kafka_sasl_password="correct-horse",
            kafka_ca_file="/ca.pem",
            kafka_client_id="shop",
        )
    )
    assert {
        "bootstrap.servers": "one:9092,two:9092",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "projector",
        "sasl.password": "correct-horse",
        "ssl.ca.location": "/ca.pem",
        "client.id": "shop",
    }.items() <= configuration.items()
    assert "ssl.key.location" not in configuration
