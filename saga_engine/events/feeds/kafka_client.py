"""
What every client of Kafka here has in common: its configuration, and errors as sentences.

confluent-kafka is in the extra `kafka`. Only the modules whose names begin with `kafka_` import it,
and `sink_opener` imports them for a feed that publishes to Kafka.
"""

import logging
from collections.abc import Mapping

from confluent_kafka import KafkaError

from saga_engine.settings import Settings

POLL_SECONDS = 0.1
"""How soon a thread that waits for Kafka notices that it must end."""

SILENT = logging.getLogger(__name__)
"""Takes the log lines of librdkafka, which would go to stderr; its errors say the same."""
SILENT.setLevel(logging.CRITICAL + 1)

TIMED_OUT = KafkaError(-185, "There was no answer in time")
"""`KafkaError._TIMED_OUT`, where no connection has reported an error."""

_MILLISECONDS = 1000
_FATAL_ONLY = 0
"""The `log_level` with which librdkafka logs nothing but errors that end a producer."""
_RECONNECT_BACKOFF_MAX = 1.0
"""Seconds. A producer lives as long as `kafka_delivery_timeout` when Kafka is unavailable."""


def client_configuration(settings: Settings) -> dict[str, str | int | bool]:
    """Return the configuration of librdkafka that all clients share, with the password."""
    password = settings.kafka_sasl_password
    optional = {
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": password.get_secret_value() if password else None,
        "ssl.ca.location": settings.kafka_ca_file,
        "ssl.certificate.location": settings.kafka_certificate_file,
        "ssl.key.location": settings.kafka_key_file,
    }
    if settings.kafka_security_protocol.uses_login:
        optional["sasl.mechanism"] = settings.kafka_sasl_mechanism.value
    return {
        "bootstrap.servers": settings.require_kafka_bootstrap_servers(),
        "client.id": settings.kafka_client_id,
        "security.protocol": settings.kafka_security_protocol.value,
        "allow.auto.create.topics": False,
        "log_level": _FATAL_ONLY,
        "reconnect.backoff.max.ms": int(_RECONNECT_BACKOFF_MAX * _MILLISECONDS),
        **{name: value for name, value in optional.items() if value is not None},
    }


class ErrorRecord:
    """The last error that the connections of a client have reported, as `error_cb`."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Record an error, unless it only says that there are errors."""
        if self.last is None or error.name() != "_ALL_BROKERS_DOWN":
            self.last = error


def problem_of(error: KafkaError, topic: str) -> str:
    """Return what an error means and what to do about it, in one or two sentences."""
    text = error.str().split(" (after ")[0].rstrip(".")
    meaning = _MEANINGS.get(error.name())
    if meaning is None:
        return f"Kafka takes no events for topic {topic!r}: {text} ({error.name()})."
    problem, fix = meaning
    sentences = f"{problem}: {text}. {fix}"
    return sentences.replace(_TOPIC, f"topic {topic!r}")


_TOPIC = "<topic>"
"""Stands for the topic in the texts below."""
_UNAVAILABLE = (
    "Kafka is unavailable",
    "The feed waits; check SAGA_ENGINE_KAFKA_BOOTSTRAP_SERVERS and the network if this lasts.",
)
_REFUSED_LOGIN = (
    "Kafka refuses the login",
    "Correct SAGA_ENGINE_KAFKA_SASL_USERNAME, _SASL_PASSWORD or _SASL_MECHANISM.",
)
_MEANINGS: Mapping[str, tuple[str, str]] = {
    "_TRANSPORT": _UNAVAILABLE,
    "_RESOLVE": _UNAVAILABLE,
    "_ALL_BROKERS_DOWN": _UNAVAILABLE,
    "_TIMED_OUT": _UNAVAILABLE,
    "_TIMED_OUT_QUEUE": _UNAVAILABLE,
    "_AUTHENTICATION": _REFUSED_LOGIN,
    "SASL_AUTHENTICATION_FAILED": _REFUSED_LOGIN,
    "UNSUPPORTED_SASL_MECHANISM": _REFUSED_LOGIN,
    "_SSL": (
        "TLS to Kafka failed",
        "Correct SAGA_ENGINE_KAFKA_CA_FILE, or the port in SAGA_ENGINE_KAFKA_BOOTSTRAP_SERVERS.",
    ),
    "TOPIC_AUTHORIZATION_FAILED": (
        "Kafka refuses the feed's user at <topic>",
        "Grant it DESCRIBE, DESCRIBE_CONFIGS and WRITE there, and CREATE if the topic is missing.",
    ),
    "CLUSTER_AUTHORIZATION_FAILED": (
        "Kafka refuses the feed's user",
        "Grant it CREATE on <topic>; before Kafka 2.8 IDEMPOTENT_WRITE on the cluster, too.",
    ),
    "INVALID_REPLICATION_FACTOR": (
        "Kafka cannot create <topic>",
        "Declare a replication of at most so many, or set SAGA_ENGINE_KAFKA_REPLICATION.",
    ),
}
