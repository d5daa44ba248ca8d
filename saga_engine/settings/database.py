"""Settings of the connection to PostgreSQL: the URL, the pool, timeouts, the locks of `migrate`."""

import re

from pydantic import BaseModel, Field, SecretStr, field_validator

from saga_engine import tls
from saga_engine.settings.field_types import Count, Seconds

_SCHEME = re.compile("[a-z][a-z0-9+.-]{0,30}://")


class DatabaseSettings(BaseModel):
    """How a worker, a client and the command line reach PostgreSQL."""

    database_url: SecretStr | None = Field(
        None,
        description="URL of PostgreSQL, as postgresql+asyncpg://user:password@host:port/database",
    )
    registry_database_url: SecretStr | None = Field(
        None,
        description="URL of the PostgreSQL database with the schemas of messages in Avro that"
        " consumers read: that of the feed's events. By default it is database_url",
    )
    database_pool_size: Count = Field(
        6,
        description="Maximum number of connections of one worker. The default serves"
        " 4 concurrent batches and leaves 2 connections for periodic duties. A projector may open"
        " four for each projection and one more, so that a slow projection delays no other; a"
        " process of consumers, consumer_concurrency for each consumer and three more",
    )
    database_connect_timeout: Seconds = Field(
        3.0,
        description="Seconds to open a connection, and to ping an idle one. Keep it below"
        " database_transaction_timeout, which also has to cover the transaction",
    )
    database_transaction_timeout: Seconds = Field(
        5.0,
        description="Seconds one transaction may take. After that it is aborted and retried with"
        " half the batch. The default lets a worker continue within 10 seconds of a stale"
        " connection",
    )
    database_lock_timeout: Seconds = Field(
        2.0,
        description="Seconds to wait for a row that another transaction has locked. After that the"
        " work that needs the row is deferred. A batch holds its locks for milliseconds",
    )
    migrate_lock_timeout: Seconds = Field(
        1.0,
        description="Seconds one attempt of `migrate` waits for a table lock. Statements of the"
        " workers queue behind a waiting lock, so `migrate` releases it and tries again",
    )
    migrate_lock_retry_timeout: Seconds = Field(
        60.0,
        description="Seconds after which `migrate` gives up when another transaction keeps a"
        " table locked",
    )

    @field_validator("database_url", "registry_database_url", mode="before")
    @classmethod
    def _strip_database_url(cls, url: object) -> object:
        """Remove the line end that a Kubernetes Secret made with `echo URL | base64` contains."""
        return url.strip() if isinstance(url, str) else url

    @field_validator("registry_database_url")
    @classmethod
    def _unset_empty_registry(cls, url: SecretStr | None) -> SecretStr | None:
        """Compose passes an unset variable as empty."""
        return url if url and url.get_secret_value() else None

    @field_validator("database_url", "registry_database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith("postgresql+asyncpg://"):
            scheme = _SCHEME.match(url.get_secret_value())
            given = f", and not with {scheme[0]}" if scheme else ""
            raise ValueError(f"must begin with postgresql+asyncpg://{given}")
        if url:
            tls.database_tls_files(url.get_secret_value())
        return url
