"""
What every client of Kafka here has in common: its configuration, and errors as sentences.

confluent-kafka is in the extra `kafka`. Only the modules whose names begin with `kafka_` import it,
and `sink_opener` imports them for a feed that publishes to Kafka.
"""

import logging
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException

from saga_engine.errors import ConfigurationError
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
    connection_ms = int(settings.kafka_socket_timeout * _MILLISECONDS)
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
        "socket.timeout.ms": connection_ms,
        "socket.connection.setup.timeout.ms": connection_ms,
        "reconnect.backoff.max.ms": int(_RECONNECT_BACKOFF_MAX * _MILLISECONDS),
        **{name: value for name, value in optional.items() if value is not None},
    }


class ErrorRecord:
    """
    The last error that the connections of a client have reported, as `error_cb`.

    A refusal stays when a connection to another address of the server is not accepted at all.
    """

    def __init__(self) -> None:
        self.last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Record an error, unless it says less than the one before."""
        if self.last is None or _how_much_it_says(error) >= _how_much_it_says(self.last):
            self.last = error


def _how_much_it_says(error: KafkaError) -> int:
    """Return 0 for "all brokers are down", 1 for a connection that failed, 2 for a refusal."""
    if error.name() == "_ALL_BROKERS_DOWN":
        return 0
    return 1 if _meaning(error) is _UNAVAILABLE else 2


def reason_of(error: KafkaError, errors: ErrorRecord) -> KafkaError:
    """Return why a request has failed: that a connection was refused says more than a timeout."""
    return errors.last if error.name() in _MEANINGLESS and errors.last else error


def refused_settings(error: KafkaException) -> ConfigurationError:
    """Return the error of a client that cannot be made, because of a file that is missing, say."""
    return ConfigurationError(
        f"librdkafka does not accept the settings of Kafka: {error.args[0].str()}. Correct the"
        " SAGA_ENGINE_KAFKA_ settings."
    )


def problem_of(error: KafkaError, topic: str) -> str:
    """Return what an error of a feed or a consumer means and what to do, in a few sentences."""
    text, meaning = _text(error), _meaning(error)
    if meaning is None:
        return f"Kafka refuses a request for topic {topic!r}: {text} ({error.name()})."
    problem, fix = meaning
    sentences = f"{problem}: {text}. {fix}"
    return sentences.replace(_TOPIC, f"topic {topic!r}")


def _text(error: KafkaError) -> str:
    """Return what librdkafka says, without the milliseconds, so that it is reported once."""
    text: str = error.str()
    return text.partition(" (after ")[0].rstrip(".")


def _meaning(error: KafkaError) -> tuple[str, str] | None:
    """
    Return what an error means, by its text before its code.

    librdkafka reports a TLS handshake that fails while it connects as `_TRANSPORT`, and one that
    fails later as `_SSL`, with the same text.
    """
    text = _text(error)
    if any(each in text for each in _CUT_OFF):
        return _UNAVAILABLE
    by_text = next((meaning for part, meaning in _TEXTS if part in text), None)
    return by_text or _MEANINGS.get(error.name())


_MEANINGLESS = ("_ALL_BROKERS_DOWN", "_TIMED_OUT", "_TRANSPORT")
"""Errors of a request whose reason only the connections have reported."""
_TOPIC = "<topic>"
"""Stands for the topic in the texts below."""
_UNAVAILABLE = (
    "Kafka is unavailable",
    "If this lasts, check SAGA_ENGINE_KAFKA_BOOTSTRAP_SERVERS and the network.",
)
_REFUSED_LOGIN = (
    "Kafka refuses the login",
    "Correct SAGA_ENGINE_KAFKA_SASL_USERNAME, _SASL_PASSWORD or _SASL_MECHANISM.",
)
_FAILED_TLS = (
    "TLS to Kafka failed",
    "Correct SAGA_ENGINE_KAFKA_CA_FILE, or the port in SAGA_ENGINE_KAFKA_BOOTSTRAP_SERVERS.",
)
_REFUSED_CERTIFICATE = (
    "Kafka refuses the certificate of this client",
    "Correct SAGA_ENGINE_KAFKA_CERTIFICATE_FILE and SAGA_ENGINE_KAFKA_KEY_FILE.",
)
_CUT_OFF = ("unexpected eof", "Connection reset", "Broker transport failure")
"""What is said of a connection that was cut during a handshake or a login: neither was refused."""
_TEXTS = (
    ("alert bad certificate", _REFUSED_CERTIFICATE),
    ("alert certificate", _REFUSED_CERTIFICATE),  # required, expired, revoked, unknown
    ("alert unknown ca", _REFUSED_CERTIFICATE),
    ("SSL routines", _FAILED_TLS),
    ("SSL handshake failed", _FAILED_TLS),
    ("SASL authentication", _REFUSED_LOGIN),
    ("SASL SCRAM authentication", _REFUSED_LOGIN),
    ("mechanism handshake failed", _REFUSED_LOGIN),
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
    "_SSL": _FAILED_TLS,
    "TOPIC_AUTHORIZATION_FAILED": (
        "Kafka refuses the user at <topic>",
        "A consumer needs DESCRIBE and READ, a feed DESCRIBE, DESCRIBE_CONFIGS, WRITE and CREATE.",
    ),
    "GROUP_AUTHORIZATION_FAILED": (
        "Kafka refuses the consumer's user at the group that has the consumer's name",
        "It needs DESCRIBE on the group saga-engine.<its name>.",
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
