"""A whole engine in this process, for the command to talk to."""

import pytest

from saga_engine.settings import Settings
from saga_engine.store import dead_letters
from saga_engine.store.database import Database
from tests.kit.command_line import CliEngine
from tests.kit.greeter import run_services, service, worker


@pytest.fixture
def settings(rabbitmq_url, migrated_url):
    """Settings of a worker that polls often."""
    return Settings(database_url=migrated_url, broker_url=rabbitmq_url, poll_interval=0.02)


@pytest.fixture
def urls(migrated_url, rabbitmq_url):
    """The URLs that a process of the engine needs."""
    return {"database_url": migrated_url, "broker_url": rabbitmq_url}


@pytest.fixture
async def engine(settings):
    """A running engine."""
    engine = CliEngine(settings)
    async with (
        worker(settings, engine.events) as running_worker,
        service(settings, engine.greeter) as participant,
        run_services(running_worker, participant),
    ):
        yield engine
        engine.greeter.may_finish.set()


@pytest.fixture
async def recorded(settings):
    """Record dead letters directly; no engine runs."""

    async def record(*letters):
        async with (
            Database(settings.require_database_url(), settings) as database,
            database.transaction() as tx,
        ):
            await dead_letters.record(tx, letters, settings.max_dead_letter_body_bytes)

    return record
