"""Settings of the connections to RabbitMQ: URL, heartbeat, confirms, reconnects, checks."""

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, field_validator

from saga_engine import tls
from saga_engine.settings.field_types import Seconds


class BrokerSettings(BaseModel):
    """How workers, participants and clients reach RabbitMQ."""

    broker_url: SecretStr | None = Field(
        None,
        description="URL of RabbitMQ, as amqp://user:password@host:port/vhost, or amqps:// for TLS."
        " For a cluster, list the nodes: one:port,two:port,three:port",
    )
    broker_stream_url: SecretStr | None = Field(
        None,
        description="URL of RabbitMQ for feeds that publish to streams, as"
        " rabbitmq-stream://user:password@host:port/vhost, or rabbitmq-stream+tls:// for TLS. The"
        " default is that of broker_url, with port 5552, or 5551 for TLS",
    )
    broker_connect_timeout: Seconds = Field(
        5.0,
        description="Seconds to connect to a node and log in. After that the next node of the URL"
        " is tried",
    )
    broker_heartbeat: Annotated[int, Field(ge=5, le=60)] = Field(
        10,
        description="AMQP heartbeat interval in seconds. Values below 5 cause false alarms; with"
        " 60, a dead connection is detected only after 183 seconds",
    )
    broker_confirm_timeout: Seconds = Field(
        5.0,
        description="Seconds to wait for a publisher confirm. After that the outcome of the publish"
        " counts as unknown",
    )
    broker_reconnect_backoff: Seconds = Field(
        0.2, description="Seconds before the first reconnect attempt; doubles with each attempt"
    )
    broker_reconnect_backoff_max: Seconds = Field(
        5.0, description="Maximum number of seconds between two reconnect attempts"
    )
    broker_topology_check_interval: Seconds = Field(
        3.0,
        description="Seconds between checks that the queues, bindings and consumers still exist. A"
        " deleted binding is restored within this interval; until then commands are returned as"
        " unroutable",
    )

    @field_validator("broker_url", "broker_stream_url", mode="before")
    @classmethod
    def _strip_broker_url(cls, url: object) -> object:
        """Remove the line end that a Kubernetes Secret made with `echo URL | base64` contains."""
        return url.strip() if isinstance(url, str) else url

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith(("amqp://", "amqps://")):
            raise ValueError("must begin with amqp:// or amqps://")
        if url:
            tls.broker_tls_files(url.get_secret_value())
        return url

    @field_validator("broker_stream_url")
    @classmethod
    def _check_broker_stream_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith(
            ("rabbitmq-stream://", "rabbitmq-stream+tls://")
        ):
            raise ValueError("must begin with rabbitmq-stream:// or rabbitmq-stream+tls://")
        if url:
            tls.broker_tls_files(url.get_secret_value())
        return url
