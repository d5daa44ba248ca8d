"""Databases with event tables, as services have them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.events import Events
from saga_engine.events.feeds import feed_table
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.certificates import CertificateAuthority
from tests.kit.databases import Databases
from tests.kit.feeds import ORDERS
from tests.kit.servers import running_postgres
from tests.kit.streams import STREAM_ORDERS
from tests.kit.webhook_receiver import SECRET, WebhookReceiver, running_receiver
from tests.kit.webhooks import HOOKS, VARIABLE

_DELETE_FEEDS = text("DELETE FROM saga_engine.feed")


@pytest.fixture(scope="session")
async def event_server() -> AsyncIterator[PostgresServer]:
    """A PostgreSQL that knows prepared transactions; see `postgres` for the other settings."""
    settings = {"max_prepared_transactions": "64", "fsync": "off", "full_page_writes": "off"}
    async with running_postgres(settings=settings) as server:
        yield server


@pytest.fixture(scope="session")
async def event_databases(event_server: PostgresServer) -> AsyncIterator[Databases]:
    """The databases of that PostgreSQL."""
    async with Databases(event_server) as databases:
        yield databases


@pytest.fixture(scope="session")
async def event_template(event_databases: Databases) -> str:
    """The name of a database with event tables only, made once; its copies have its event log."""
    return await event_databases.migrated_template(EVENT_DATABASE)


@pytest.fixture
async def event_url(event_databases: Databases, event_template: str) -> AsyncIterator[str]:
    """The URL of a new database, with event tables only."""
    async with event_databases.copy_of(event_template) as url:
        yield url


@pytest.fixture(scope="session")
async def tcp_server() -> AsyncIterator[PostgresServer]:
    """A PostgreSQL that a proxy can be placed before."""
    async with running_postgres(use_tcp=True) as server:
        yield server


@pytest.fixture(scope="session")
async def tcp_databases(tcp_server: PostgresServer) -> AsyncIterator[Databases]:
    """The databases of that PostgreSQL."""
    async with Databases(tcp_server) as databases:
        yield databases


@pytest.fixture(scope="session")
async def tcp_template(tcp_databases: Databases) -> str:
    """The name of a database with event tables only, made once."""
    return await tcp_databases.migrated_template(EVENT_DATABASE)


@pytest.fixture
async def tcp_url(tcp_databases: Databases, tcp_template: str) -> AsyncIterator[str]:
    """The URL of a new database of that one, with event tables only."""
    async with tcp_databases.copy_of(tcp_template) as url:
        yield url


@pytest.fixture
async def events(event_url: str) -> AsyncIterator[Events]:
    """A client of that database, which waits for a loaded machine."""
    async with Events(event_url, settings=Settings(database_transaction_timeout=60.0)) as client:
        yield client


@pytest.fixture
async def feed_database(event_url: str) -> AsyncIterator[Database]:
    """That database, with the feed `orders` at its beginning."""
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:
        async with database.transaction() as tx:
            await feed_table.register(tx, [ORDERS])
        yield database


@pytest.fixture(scope="session")
def webhook_authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The authority that the feeds of tests trust."""
    directory: Path = tmp_path_factory.mktemp("webhooks")
    return CertificateAuthority(directory, "webhooks")


@pytest.fixture
def receiver(
    webhook_authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebhookReceiver]:
    """A receiver of webhooks over https, whose authority and secret are in the environment."""
    monkeypatch.setenv("SSL_CERT_FILE", str(webhook_authority.ca))
    monkeypatch.setenv(VARIABLE, SECRET)
    with running_receiver(webhook_authority.issue("receiver")) as running:
        yield running


@pytest.fixture
async def webhook_database(event_url: str) -> AsyncIterator[Database]:
    """The database of the events, with a feed to a webhook at its beginning."""
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:
        async with database.transaction() as tx:
            await feed_table.register(tx, [HOOKS])
        yield database


@pytest.fixture
async def stream_database(feed_database):
    """The database of `events`, with the feed `orders` to a stream at its beginning."""
    async with feed_database.transaction() as tx:
        await tx.execute(_DELETE_FEEDS)
        await feed_table.register(tx, [STREAM_ORDERS])
    return feed_database


@pytest.fixture
async def user_engine(event_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of the user's code for that database."""
    engine = create_async_engine(event_url, poolclass=NullPool)
    yield engine
    await engine.dispose()
