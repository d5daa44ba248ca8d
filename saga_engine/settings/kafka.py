"""Settings of the connection to Kafka: servers, TLS, login, timeouts."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from saga_engine.settings.field_types import Seconds

KafkaSocketSeconds = Annotated[float, Field(ge=2, le=300)]
"""
A server holds back its answer for up to half a second while it has no messages, and librdkafka
wants a second more; it takes no more than 300.
"""


class KafkaSecurity(StrEnum):
    """How connections to Kafka are secured; the names are those of Kafka's `security.protocol`."""

    PLAINTEXT = "plaintext"
    SSL = "ssl"  # TLS, without a login
    SASL_PLAINTEXT = "sasl_plaintext"  # a login, without TLS
    SASL_SSL = "sasl_ssl"  # a login over TLS

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted and the server's certificate is verified."""
        return self in (KafkaSecurity.SSL, KafkaSecurity.SASL_SSL)

    @property
    def uses_login(self) -> bool:
        """Whether the client logs in with a user and a password."""
        return self in (KafkaSecurity.SASL_PLAINTEXT, KafkaSecurity.SASL_SSL)


class SaslMechanism(StrEnum):
    """How a user logs in to Kafka."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


class KafkaSettings(BaseModel):
    """How feeds reach Kafka, and what they may create there."""

    kafka_bootstrap_servers: str | None = Field(
        None,
        description="Servers of the Kafka cluster, as host:port,host:port. One that answers is"
        " enough to find the others",
    )
    kafka_security_protocol: KafkaSecurity = Field(
        KafkaSecurity.PLAINTEXT,
        description="plaintext, ssl, sasl_plaintext or sasl_ssl. With ssl and sasl_ssl the"
        " certificate and the host name of each server are verified",
    )
    kafka_sasl_mechanism: SaslMechanism = Field(
        SaslMechanism.SCRAM_SHA_512,
        description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. PLAIN sends the password to the server",
    )
    kafka_sasl_username: str | None = Field(None, description="User that logs in to Kafka")
    kafka_sasl_password: SecretStr | None = Field(None, description="Password of that user")
    kafka_ca_file: str | None = Field(
        None,
        description="PEM file with the authorities that have signed the servers' certificates;"
        " without it those of the system are trusted",
    )
    kafka_certificate_file: str | None = Field(
        None, description="PEM file with the certificate that this client shows"
    )
    kafka_key_file: str | None = Field(
        None, description="PEM file with the key of that certificate, without a passphrase"
    )
    kafka_client_id: Annotated[str, Field(min_length=1, max_length=249)] = Field(
        "saga-engine",
        description="Name of this client in the logs, metrics and quotas of the Kafka servers",
    )
    kafka_replication: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Replication factor of the topics that feeds create, instead of the one that"
        " they declare: 1 for a single server, as in tests. The difference is shown",
    )
    kafka_request_timeout: Seconds = Field(
        5.0,
        description="Seconds to create a topic, or to read its partitions and its configuration",
    )
    kafka_delivery_timeout: Seconds = Field(
        10.0,
        description="Seconds after which events that Kafka has not confirmed are published again,"
        " by a new producer. It includes the time to connect; below shutdown_timeout, so that a"
        " process can stop while Kafka is unavailable",
    )
    kafka_socket_timeout: KafkaSocketSeconds = Field(
        10.0,
        description="Seconds without an answer, or without a connection, after which a client of"
        " Kafka connects again: feeds and consumers notice a half-open connection by it. Messages"
        " come in answers of up to 1 MiB, or of one batch that is larger: raise it if the network"
        " takes longer for that",
    )

    @field_validator("kafka_bootstrap_servers", "kafka_sasl_username", mode="before")
    @classmethod
    def _strip_kafka_text(cls, text: object) -> object:
        """Remove the line end of a Kubernetes Secret; Compose passes an unset variable as empty."""
        return (text.strip() or None) if isinstance(text, str) else text

    @field_validator("kafka_sasl_password", mode="before")
    @classmethod
    def _strip_kafka_password(cls, password: object) -> object:
        return (password.rstrip("\r\n") or None) if isinstance(password, str) else password

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _check_kafka_servers(cls, servers: str | None) -> str | None:
        if servers is None:
            return None
        given = [each.strip() for each in servers.split(",")]
        for server in given:
            host, _, port = server.rpartition(":")
            if not host or not port.isdecimal() or "/" in host or "@" in host:
                raise ValueError("must be host:port, or several separated by commas")
        return ",".join(given)

    @model_validator(mode="after")
    def _check_kafka_login(self) -> Self:
        security = self.kafka_security_protocol
        has_login = bool(self.kafka_sasl_username and self.kafka_sasl_password)
        if security.uses_login and not has_login:
            raise ValueError(
                f"kafka_security_protocol is {security}, so set kafka_sasl_username and"
                " kafka_sasl_password"
            )
        if not security.uses_login and (self.kafka_sasl_username or self.kafka_sasl_password):
            raise ValueError(
                f"kafka_sasl_username or kafka_sasl_password is set, and kafka_security_protocol is"
                f" {security}. Set it to sasl_ssl, or unset them"
            )
        return self

    @model_validator(mode="after")
    def _check_kafka_files(self) -> Self:
        files = (self.kafka_ca_file, self.kafka_certificate_file, self.kafka_key_file)
        if any(files) and not self.kafka_security_protocol.uses_tls:
            raise ValueError(
                "kafka_ca_file, kafka_certificate_file or kafka_key_file is set, and"
                f" kafka_security_protocol is {self.kafka_security_protocol}, without TLS. Set it"
                " to ssl or sasl_ssl, or unset them"
            )
        if bool(self.kafka_certificate_file) != bool(self.kafka_key_file):
            raise ValueError("kafka_certificate_file and kafka_key_file must be set together")
        return self
