"""A whole engine in this process, for the command to talk to."""

import pytest

from saga_engine.settings import Settings
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
