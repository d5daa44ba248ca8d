"""Errors of Kafka are sentences with the next action, and settings reach its library."""

import re

import pytest
from confluent_kafka import KafkaError

from saga_engine.errors import ConfigurationError
from saga_engine.events.feeds.kafka_client import (
    ErrorRecord,
    client_configuration,
    problem_of,
    reason_of,
)
from saga_engine.settings import Settings

ERRORS = {name: value for name, value in vars(KafkaError).items() if isinstance(value, int)}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("_TRANSPORT", "Kafka is unavailable: .* check SAGA_ENGINE_KAFKA_BOOTSTRAP_SERVERS"),
        ("_ALL_BROKERS_DOWN", "Kafka is unavailable"),
        ("_AUTHENTICATION", "refuses the login: .* Correct SAGA_ENGINE_KAFKA_SASL_USERNAME"),
        ("_SSL", "TLS to Kafka failed: .* Correct SAGA_ENGINE_KAFKA_CA_FILE"),
        ("TOPIC_AUTHORIZATION_FAILED", "at topic 'orders': .* DESCRIBE and READ, a feed"),
        ("GROUP_AUTHORIZATION_FAILED", "needs DESCRIBE on the group saga-engine.<its name>"),
        ("CLUSTER_AUTHORIZATION_FAILED", "refuses the feed's user: .* CREATE on topic 'orders'"),
        ("INVALID_REPLICATION_FACTOR", "cannot create topic 'orders': .*_KAFKA_REPLICATION"),
        ("NOT_ENOUGH_REPLICAS", r"refuses a request for topic 'orders': .*\(NOT_ENOUGH_REPLICAS\)"),
    ],
)
def test_an_error_is_a_sentence(name, sentence):
    error = KafkaError(ERRORS[name], "one:9092/1: It failed (after 3ms in state CONNECT).")
    problem = problem_of(error, "orders")
    assert "3ms" not in problem  # the same problem is reported once
    assert re.search(sentence, problem), problem


REFUSED_TLS = [
    "ssl://one:9092/1: error:0A000086:SSL routines::certificate verify failed",
    "ssl://one:9092/1: SSL handshake failed: Disconnected: connecting to a PLAINTEXT listener?",
]
REFUSED_CERTIFICATE = "ssl://one:9092/1: error:0A00045C:SSL routines::tlsv13 alert certificate req"
REFUSED_LOGINS = [
    "one:9092/1: SASL authentication error: Invalid username or password",
    "one:9092/1: SASL SCRAM authentication failed: broker responded with invalid-proof",
    "one:9092/1: SASL PLAIN mechanism handshake failed: Unsupported",
]
CUT_OFF = [
    "ssl://one:9092/1: error:0A000126:SSL routines::unexpected eof while reading",
    "ssl://one:9092/1: SSL handshake failed: Connection reset by peer",
    "one:9092/1: SaslAuthenticateRequest failed: Local: Broker transport failure",
]


@pytest.mark.parametrize(
    "name", ["_SSL", "_TRANSPORT", "_RESOLVE", "_ALL_BROKERS_DOWN", "_AUTHENTICATION", "_TIMED_OUT"]
)
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        *[(each, "TLS to Kafka failed: .* SAGA_ENGINE_KAFKA_CA_FILE") for each in REFUSED_TLS],
        (REFUSED_CERTIFICATE, "certificate of this client: .* SAGA_ENGINE_KAFKA_CERTIFICATE_FILE"),
        *[(each, "refuses the login: .*KAFKA_SASL_USERNAME") for each in REFUSED_LOGINS],
        *[(each, "Kafka is unavailable: .*KAFKA_BOOTSTRAP_SERVERS") for each in CUT_OFF],
    ],
)
def test_the_text_decides_when_librdkafka_reports_one_failure_by_several_codes(
    name, text, sentence
):
    problem = problem_of(KafkaError(ERRORS[name], text), "orders")
    assert re.search(sentence, problem), problem


def test_a_connection_says_why_a_request_has_failed():
    errors, refused = ErrorRecord(), KafkaError(ERRORS["_SSL"])
    late, denied = KafkaError(ERRORS["_TIMED_OUT"]), KafkaError(ERRORS["NOT_ENOUGH_REPLICAS"])
    assert reason_of(late, errors) is late
    errors(refused)
    assert reason_of(late, errors) is refused
    assert reason_of(denied, errors) is denied


def test_the_last_error_that_says_something_is_kept():
    errors = ErrorRecord()
    for name, kept in [
        ("_ALL_BROKERS_DOWN", "_ALL_BROKERS_DOWN"),
        ("_TRANSPORT", "_TRANSPORT"),
        ("_ALL_BROKERS_DOWN", "_TRANSPORT"),
        ("_AUTHENTICATION", "_AUTHENTICATION"),
        ("_TRANSPORT", "_AUTHENTICATION"),
        ("_SSL", "_SSL"),
    ]:
        errors(KafkaError(ERRORS[name]))
        assert errors.last is not None
        assert errors.last.name() == kept


def test_the_servers_are_required():
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        client_configuration(Settings())


def test_settings_of_tls_login_and_timeouts_reach_the_library():
    configuration = client_configuration(
        Settings(
            kafka_bootstrap_servers="one:9092,two:9092",
            kafka_security_protocol="sasl_ssl",
            kafka_sasl_username="projector",
            kafka_sasl_password="correct-horse",
            kafka_ca_file="/ca.pem",
            kafka_client_id="shop",
            kafka_socket_timeout=7.5,
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
        "socket.timeout.ms": 7_500,
        "socket.connection.setup.timeout.ms": 7_500,
    }.items() <= configuration.items()
    assert "ssl.key.location" not in configuration
