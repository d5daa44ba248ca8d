"""
Every limit, timeout, batch and retry of the engine, with its unit and the reason for its default.

Read once, by the command line or by the code that embeds the engine, and passed down; nothing else
reads the environment. Order: argument, then `SAGA_ENGINE_*` in the environment, then the default.
Durations are seconds, sizes are bytes; the names say so.
"""

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from saga_engine import tls
from saga_engine.environment import PREFIX, find_unknown_setting, settings_from
from saga_engine.errors import ConfigurationError

# PostgreSQL and timers count in milliseconds or less; a shorter time becomes 0 there, which means
# that there is no timeout.
Seconds = Annotated[float, Field(ge=0.001, le=86_400)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Bytes = Annotated[int, Field(ge=1, le=134_217_728)]
AuthorizedUsers = Mapping[str, tuple[str, ...]]


class Settings(BaseModel):
    """One frozen object; each field is the environment variable `SAGA_ENGINE_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL, as postgresql+asyncpg://user:password@host:port/database"
    )
    broker_url: SecretStr | None = Field(
        None,
        description="RabbitMQ, as amqp://user:password@host:port/vhost, or amqps://; of a cluster"
        " each node, as one:port,two:port,three:port",
    )

    http_host: str = Field("127.0.0.1", description="Address of /livez, /readyz and /metrics")
    http_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        9464, description="Port of the same; 9464 is OpenTelemetry's usual one. 0 picks a free one"
    )
    http_cache_ttl: Seconds = Field(
        1.0,
        description="Seconds for which an answer of /readyz or /metrics is given again: so often at"
        " most is checked and rendered, however many ask",
    )

    database_pool_size: Count = Field(
        6, description="Connections a worker holds: the batches in flight and two for its duties"
    )
    database_connect_timeout: Seconds = Field(
        3.0,
        description="Seconds to open a connection, and for one that has rested to answer; less than"
        " database_transaction_timeout, which what is then done over a new one needs the rest of",
    )
    database_transaction_timeout: Seconds = Field(
        5.0,
        description="Seconds one transaction may take before it is cut and tried again with half as"
        " much; a connection that leads nowhere costs as long, and work is to go on within 10",
    )
    database_lock_timeout: Seconds = Field(
        2.0,
        description="Seconds to wait for a row that somebody else holds, before what needs it is"
        " put by; a batch holds its rows for milliseconds",
    )
    migrate_lock_timeout: Seconds = Field(
        1.0,
        description="Seconds `migrate` waits for a table before it lets the workers pass and tries"
        " again: all that comes after it waits as well",
    )
    migrate_lock_retry_timeout: Seconds = Field(
        60.0, description="Seconds `migrate` goes on trying while somebody holds a table"
    )

    broker_connect_timeout: Seconds = Field(
        5.0,
        description="Seconds to connect to the broker, and for it to answer; a node that is silent"
        " for longer is given up for the next",
    )
    broker_heartbeat: Annotated[int, Field(ge=5, le=60)] = Field(
        10, description="Seconds; below 5 gives false alarms, at 60 a dead peer is seen after 183"
    )
    broker_confirm_timeout: Seconds = Field(
        5.0, description="Seconds to wait for confirms; after that a publish counts as unknown"
    )
    broker_reconnect_backoff: Seconds = Field(
        0.2, description="Seconds before the first reconnect; doubles"
    )
    broker_reconnect_backoff_max: Seconds = Field(
        5.0, description="Seconds between reconnects at the most"
    )
    broker_topology_check_interval: Seconds = Field(
        3.0,
        description="Seconds between checks that our queues and bindings still exist and we consume"
        " them; so long may commands come back for a binding that was deleted",
    )
    reply_prefetch: Count = Field(
        500,
        description="Replies that a worker holds unacknowledged; times max_body_bytes it bounds its"
        " memory, and is more than its batches in flight take",
    )
    request_prefetch: Count = Field(
        200,
        description="Requests that a worker holds unacknowledged: they are of strangers, and one"
        " batch is enough",
    )
    dead_letter_prefetch: Count = Field(
        50, description="Dead letters that a worker holds unacknowledged; none of them is urgent"
    )

    batch_size: Count = Field(
        200, description="Triggers in one transaction; the curve is flat from 200 to 500"
    )
    max_batch_bytes: Bytes = Field(
        4_194_304,
        description="Bytes of the bodies, or of the runs, in one transaction and one write to the"
        " broker; 200 messages of 20 KB. One message or run that is larger comes alone",
    )
    max_batch_json_values: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        20_000,
        description="JSON values of the bodies in one transaction, as max_body_json_values counts:"
        " 200 messages of 100 values. Reading and checking them takes about 0.1 seconds",
    )
    max_concurrent_batches: Count = Field(
        4, description="Transactions at once: one computes while others wait for commit"
    )
    max_concurrent_runs: Count = Field(
        1000,
        description="Runs of one saga that may be under way at once, at the most; further starts"
        " wait in PostgreSQL for their turn. Below it the engine finds the right number by how"
        " soon replies come; see docs/operations.md",
    )
    max_pending_requests_per_run: Count = Field(
        10,
        description="Requests, such as cancels, that are kept for one accepted run that has not"
        " begun; the first decides, further ones are refused",
    )
    idle_run_threshold: Seconds = Field(
        60.0,
        description="Seconds within which something must be due of a run for it to count as under"
        " way, or the longest timeout of its saga, up to an hour, if that is more; one that waits"
        " longer, or for a person, takes no place",
    )
    poll_interval: Seconds = Field(
        0.1, description="Seconds between looks for due timers and recorded requests when idle"
    )
    outbox_cleanup_interval: Seconds = Field(
        1.0, description="Seconds after which confirmed outbox rows are deleted without a batch"
    )
    outbox_resend_after: Seconds = Field(
        8.0,
        description="Seconds after which an outbox row is taken to be left behind by a worker that"
        " died, and sent again; more than broker_confirm_timeout, or live ones are sent twice",
    )
    maintenance_interval: Seconds = Field(
        60.0, description="Seconds between counts for the gauges and looks at partitions"
    )
    worker_heartbeat_interval: Seconds = Field(
        30.0,
        description="Seconds between two writes with which a worker says that it runs and which"
        " definitions it has: one small UPDATE, which workers with the same ones share",
    )
    worker_heartbeat_timeout: Seconds = Field(
        120.0,
        description="Seconds without such a write after which no worker counts as having a"
        " definition: start_in by name takes another version then, and saga_starts_stranded counts"
        " what is pinned to it. At least 3 times worker_heartbeat_interval, so that a worker"
        " may miss"
        " one write",
    )
    token_key_activation_delay: Seconds = Field(
        120.0,
        description="Seconds before a rotated token key signs commands: two times maintenance, at"
        " which each worker reads it, so that every worker knows it before a reply comes with it",
    )
    max_gauge_count: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        10_000,
        description="Rows counted for one value of a gauge of what is in PostgreSQL; a gauge that"
        " shows it means at least as many",
    )
    partition_months_ahead: Annotated[int, Field(ge=1, le=60)] = Field(
        12,
        description="Months beyond this one that have their partitions: workers may be away for as"
        " long before runs go to the default partition, which is never dropped",
    )
    partition_lock_timeout: Seconds = Field(
        0.2,
        description="Seconds to wait for a table when a month is made or dropped, before workers"
        " pass and it is tried again: all that comes after it waits as well",
    )
    partition_lock_attempts: Count = Field(
        20, description="Tries to lock a table for that, before it is left to the next round"
    )
    max_run_id_age_days: Annotated[int, Field(ge=1, le=28)] = Field(
        7,
        description="Days since a client made a run id after which its start is refused: requests"
        " may wait in the queue for as long. Older ids belong to months that may be gone",
    )
    max_run_id_clock_skew: Seconds = Field(
        86_400.0,
        description="Seconds a run id may be ahead of the database's clock: clients' clocks differ",
    )
    run_retention_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        0, description="Days finished runs are kept, at least; 0 keeps them for ever"
    )
    max_open_dead_letters_per_source: Count = Field(
        10_000,
        description="Open dead letters kept of one queue, reason and sender; what comes beyond that"
        " is counted in dead_letter_dropped and not kept, so that nobody can fill the database",
    )
    dead_letter_retention_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        30,
        description="Days dead letters are kept after they were sent again or discarded; 0 keeps"
        " them for ever. Open ones wait for a person; `dead-letters purge` deletes those too",
    )
    audit_retention_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        730, description="Days the record of who did what is kept; 0 keeps it for ever"
    )
    shutdown_timeout: Seconds = Field(
        25.0, description="Seconds to finish on SIGTERM; below Kubernetes' grace of 30"
    )

    mapping_timeout: Seconds = Field(
        2.0,
        description="Seconds a mapping function or a validator may take before it is interrupted"
        " and counts as mapping_failed. It only maps data, which takes microseconds; the batch"
        " waits for it",
    )
    import_timeout: Seconds = Field(
        60.0,
        description="Seconds the import of a module with sagas, participants or a codec may take;"
        " the largest libraries take a few",
    )
    mapping_hard_timeout: Seconds = Field(
        10.0,
        description="Seconds after which a mapping function or validator that cannot be"
        " interrupted ends the worker; more than mapping_timeout, less than drain",
    )

    max_body_bytes: Bytes = Field(262_144, description="Largest body the engine reads")
    max_body_depth: Annotated[int, Field(ge=1, le=500)] = Field(
        64, description="Deepest nesting of a body the engine reads"
    )
    max_body_json_values: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        10_000,
        description="Values in a body the engine reads, inner ones included. One value takes up to"
        " 3 bytes on the wire and 250 in memory, and its checks 1 microsecond or more",
    )
    max_header_bytes: Annotated[int, Field(ge=4096, le=131_072)] = Field(
        32_768,
        description="Bytes of all headers of a message the engine reads: twice what it sends, for"
        " what tracing and the broker add",
    )
    max_header_count: Annotated[int, Field(ge=20, le=10_000)] = Field(
        100, description="Headers of a message the engine reads; a command has 9"
    )
    max_name_bytes: Annotated[int, Field(ge=64, le=2000)] = Field(
        255,
        description="Longest name, id or key a participant takes over from a command: what AMQP"
        " allows a routing key; far below the 2,700 bytes of a row in PostgreSQL's indexes",
    )
    max_request_text_bytes: Annotated[int, Field(ge=64, le=2000)] = Field(
        1000,
        description="Longest saga name, key, reason or person in a request; keys are in an index,"
        " as above",
    )
    max_dead_letter_body_bytes: Bytes = Field(
        262_144,
        description="Bytes of a dead letter's body that are kept; dead_letter_prefetch times this,"
        " and prefetch and request_prefetch times max_body_bytes, bound a worker's memory",
    )
    max_listing_total: Count = Field(
        10_000,
        description="Rows a listing of the command line counts for its total; where there are more,"
        " it says so and counts no further",
    )
    max_incident_reply_bytes: Annotated[int, Field(ge=0, le=262_144)] = Field(
        4096,
        description="Bytes of an unreadable reply that are kept with its incident for a person to"
        " look at; the whole message is a dead letter",
    )

    authorized_reply_users: AuthorizedUsers = Field(
        {},
        description="Which RabbitMQ users may answer which commands, as JSON:"
        ' {"payment.*": ["payments"]}. The first pattern that fits decides, * is any characters,'
        " what none fits is not checked",
    )
    authorized_request_users: AuthorizedUsers = Field(
        {},
        description='The same for requests: {"start place-order": ["shop"], "cancel *": ["desk"]}',
    )
    payload_codec: str | None = Field(
        None,
        description="What seals payloads in RabbitMQ and PostgreSQL: aes-gcm, or MODULE:NAME of a"
        " codec; the same for workers, participants, clients and the command line",
    )
    payload_encryption_keys: SecretStr | None = Field(
        None,
        description="Keys of aes-gcm as id=base64,... of 32 bytes each, or @FILE; the first seals,"
        " all unseal; none in the first place seals nothing",
    )

    participant_concurrency: Count = Field(
        20, description="Handlers running at once in one participant process"
    )
    participant_handler_timeout: Seconds = Field(
        60.0, description="Seconds one handler may take; far below RabbitMQ's consumer timeout"
    )

    participant_cancel_timeout: Seconds = Field(
        5.0,
        description="Seconds a handler that was cancelled may take to end; after that its command"
        " is answered, and it keeps its place among the handlers until it ends",
    )
    participant_database_probe_interval: Seconds = Field(
        0.5,
        description="Seconds between looks whether a participant's database that was away is back",
    )

    participant_statement_check_after: Seconds = Field(
        2.0,
        description="Seconds without an answer after which a participant asks PostgreSQL, over"
        " another connection, whether a statement is still at work; if not, it is lost, and ended",
    )

    client_timeout: Seconds = Field(
        10.0, description="Seconds a client waits for a worker to answer a request"
    )
    client_poll_interval: Seconds = Field(
        2.0,
        description="Seconds between asking the same again: answers and announcements of"
        " finished runs are best effort",
    )

    participant_prefetch: Count = Field(
        100,
        description="Commands a participant process holds: in its handlers, next in line, and"
        " answered but not confirmed",
    )
    participant_reply_retry_timeout: Seconds = Field(
        60.0,
        description="Seconds a reply that no queue takes is tried again before its command is"
        " set aside; far below RabbitMQ's consumer timeout",
    )

    log_format: Annotated[str, Field(pattern="^(auto|json|console)$")] = Field(
        "auto", description="json, console, or auto: console on a terminal"
    )
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = Field(
        "info", description="Lowest level that is written"
    )

    log_throttle_interval: Seconds = Field(
        60.0,
        description="Seconds between two warnings of the same failure of a handler, and in which a"
        " connection that comes and goes has 5 lines of a kind; the others are counted, and written"
        " at debug",
    )

    def __init__(self, **arguments: Any) -> None:
        field_names = type(self).model_fields
        from_environment = settings_from(os.environ)
        super().__init__(
            **{name: from_environment[name] for name in from_environment if name in field_names}
            | arguments
        )

    @field_validator("database_url", "broker_url", mode="before")
    @classmethod
    def _strip_url(cls, url: object) -> object:
        """A Secret that was made of `echo URL | base64` ends with a line end."""
        return url.strip() if isinstance(url, str) else url

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        """Refuse limits that contradict each other: the shorter must have its effect first."""
        if self.mapping_timeout >= self.mapping_hard_timeout:
            raise ValueError("mapping_timeout must be less than mapping_hard_timeout")
        if self.worker_heartbeat_timeout < 3 * self.worker_heartbeat_interval:
            raise ValueError(
                "worker_heartbeat_timeout must be at least 3 times worker_heartbeat_interval"
            )
        return self

    @field_validator("authorized_reply_users", "authorized_request_users", mode="before")
    @classmethod
    def _parse_authorized_users(cls, rules: object) -> object:
        if not isinstance(rules, str):
            return rules
        try:
            parsed = json.loads(rules)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict) or not all(map(_is_user_list, parsed.values())):
            raise ValueError('must be JSON of the form {"payment.*": ["payments"]}')
        return parsed

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith("postgresql+asyncpg://"):
            raise ValueError("must begin with postgresql+asyncpg://")
        if url:
            tls.database_tls_files(url.get_secret_value())
        return url

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith(("amqp://", "amqps://")):
            raise ValueError("must begin with amqp:// or amqps://")
        if url:
            tls.broker_tls_files(url.get_secret_value())
        return url

    @classmethod
    def load(cls, **arguments: object) -> Self:
        """
        Read the settings.

        Raises:
            ConfigurationError: a value does not fit, or the environment has a `SAGA_ENGINE_*` name
                that is no setting (a typo, most likely).
        """
        reject_unknown_settings(os.environ)
        try:
            return cls(**arguments)
        except ValidationError as error:
            raise ConfigurationError(_validation_message(error)) from None

    def require_database_url(self) -> str:
        """The URL of PostgreSQL, or a ConfigurationError that says what to set."""
        return _require_url(
            self.database_url, "DATABASE_URL", "postgresql+asyncpg://user@host/saga"
        )

    def require_broker_url(self) -> str:
        """The URL of RabbitMQ, or a ConfigurationError that says what to set."""
        return _require_url(
            self.broker_url, "BROKER_URL", "amqp://host:5672/, with user:password@ before the host"
        )


def _is_user_list(users: object) -> bool:
    return isinstance(users, list) and all(isinstance(user, str) and user for user in users)


def reject_unknown_settings(environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError for the first `SAGA_ENGINE_*` name that is not a setting."""
    if unknown := find_unknown_setting(environment, set(Settings.model_fields)):
        name, suggestion = unknown
        hint = f" Did you mean {suggestion}?" if suggestion else ""
        raise ConfigurationError(
            f"{name} is no setting.{hint} `saga-engine config show` lists them all."
        )


def _require_url(url: SecretStr | None, name: str, example: str) -> str:
    if url is None or not url.get_secret_value():  # empty is what an unset variable of compose is
        raise ConfigurationError(f"{PREFIX}{name} is not set. Set it, for example to {example}")
    return url.get_secret_value()


def _validation_message(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else "The settings"
    problem = first["msg"].removeprefix("Value error, ").rstrip(".")  # pydantic's, before ours
    return f"{name} does not fit: {problem}. `saga-engine config show` explains it."
