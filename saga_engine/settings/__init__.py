"""
Every setting of the engine: one frozen object, read once and passed down.

    field_types   seconds, counts and bytes, with the bounds they share
    database      PostgreSQL: URL, pool, timeouts, the locks of `migrate`
    broker        RabbitMQ: URL, heartbeat, confirms, reconnects, topology checks
    batches       how much a worker takes at once: prefetch, batches, concurrent runs
    duties        what a worker does periodically: timers, outbox, heartbeat, token keys
    retention     partitions, run ids, and how long rows are kept
    limits        the largest message, header, name and text that is read or stored
    events        the event store: sizes of events, appends and pages
    projections   projections: batches, leases, and how soon they see an event
    feeds         feeds: how many events they publish at once
    webhooks      webhooks: timeouts, retries, and which addresses are allowed
    consumers     consumers: batches, what they remember, what waits for a correction
    kafka         Kafka: servers, TLS, login, timeouts
    user_code     how long imports, mapping functions and validators may take
    security      who may send what, and the encryption of payloads
    participant   handlers, their timeouts, and a participant's database
    client        how long a client waits
    process       the HTTP port, logging, and the time for a graceful shutdown

A value comes from an argument, else from `SAGA_ENGINE_<NAME>` in the environment, else from the
default. No other module reads the environment, except for secrets of webhooks, whose variables an
author names. Durations are seconds, sizes are bytes.

To add a setting: add a field with a description (what it is, its unit, the reason for its default)
to the module of its topic, use it, and run `make reference`.
"""

import os
from collections.abc import Mapping
from typing import Any, Self

from pydantic import ConfigDict, SecretStr, ValidationError

from saga_engine.environment import PREFIX, find_unknown_setting, settings_from
from saga_engine.errors import ConfigurationError
from saga_engine.settings.batches import BatchSettings
from saga_engine.settings.broker import BrokerSettings
from saga_engine.settings.client import ClientSettings
from saga_engine.settings.consumers import ConsumerSettings
from saga_engine.settings.database import DatabaseSettings
from saga_engine.settings.duties import DutySettings
from saga_engine.settings.events import EventSettings
from saga_engine.settings.feeds import FeedSettings
from saga_engine.settings.kafka import KafkaSettings
from saga_engine.settings.limits import LimitSettings
from saga_engine.settings.participant import ParticipantSettings
from saga_engine.settings.process import ProcessSettings
from saga_engine.settings.projections import ProjectionSettings
from saga_engine.settings.retention import RetentionSettings
from saga_engine.settings.security import SecuritySettings
from saga_engine.settings.user_code import UserCodeSettings
from saga_engine.settings.webhooks import WebhookSettings


class Settings(
    # pydantic lists the fields of the last base first; docs/reference.md shows them in that order.
    ProcessSettings,
    ClientSettings,
    ParticipantSettings,
    SecuritySettings,
    LimitSettings,
    WebhookSettings,
    ConsumerSettings,
    KafkaSettings,
    FeedSettings,
    ProjectionSettings,
    EventSettings,
    UserCodeSettings,
    RetentionSettings,
    DutySettings,
    BatchSettings,
    BrokerSettings,
    DatabaseSettings,
):
    """All settings, flat; each field is the environment variable `SAGA_ENGINE_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **arguments: Any) -> None:
        field_names = type(self).model_fields
        from_environment = settings_from(os.environ)
        super().__init__(
            **{name: from_environment[name] for name in from_environment if name in field_names}
            | arguments
        )

    @classmethod
    def load(cls, **arguments: object) -> Self:
        """
        Read the settings.

        Raises:
            ConfigurationError: a value is invalid, or the environment has a `SAGA_ENGINE_*` name
                that is not a setting (most likely a typing error).
        """
        reject_unknown_settings(os.environ)
        try:
            return cls(**arguments)
        except ValidationError as error:
            raise ConfigurationError(_validation_message(error)) from None

    def require_database_url(self) -> str:
        """Return the URL of PostgreSQL, or raise a ConfigurationError that names the variable."""
        return _require_url(
            self.database_url, "DATABASE_URL", "postgresql+asyncpg://user@host/saga"
        )

    def require_broker_url(self) -> str:
        """Return the URL of RabbitMQ, or raise a ConfigurationError that names the variable."""
        return _require_url(
            self.broker_url, "BROKER_URL", "amqp://host:5672/, with user:password@ before the host"
        )

    def require_kafka_bootstrap_servers(self) -> str:
        """Return the servers of Kafka, or raise a ConfigurationError that names the variable."""
        if not self.kafka_bootstrap_servers:
            raise ConfigurationError(
                f"{PREFIX}KAFKA_BOOTSTRAP_SERVERS is not set. Set it, for example to"
                " kafka-1:9092,kafka-2:9092"
            )
        return self.kafka_bootstrap_servers


def reject_unknown_settings(environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError for the first `SAGA_ENGINE_*` name that is not a setting."""
    if unknown := find_unknown_setting(environment, set(Settings.model_fields)):
        name, suggestion = unknown
        hint = f" Did you mean {suggestion}?" if suggestion else ""
        raise ConfigurationError(
            f"{name} is not a setting.{hint} `saga-engine config show` lists them all."
        )


def _require_url(url: SecretStr | None, name: str, example: str) -> str:
    if url is None or not url.get_secret_value():  # Compose passes an unset variable as empty
        raise ConfigurationError(f"{PREFIX}{name} is not set. Set it, for example to {example}")
    return url.get_secret_value()


def _validation_message(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    subject = f"{PREFIX}{str(first['loc'][0]).upper()} is" if first["loc"] else "The settings are"
    problem = first["msg"].removeprefix("Value error, ").rstrip(".")  # pydantic adds the prefix
    return f"{subject} invalid: {problem}. `saga-engine config show` explains it."
