"""What the tests of the client run against: a whole engine, on real servers."""

import pytest

from saga_engine.client import Client
from saga_engine.settings import Settings
from tests.kit.greeter import GreeterParticipant, run_services, service, worker


@pytest.fixture
def settings(rabbitmq_url, migrated_url):
    """Settings for everything in this process; clients ask again soon."""
    return Settings(
        database_url=migrated_url,
        broker_url=rabbitmq_url,
        poll_interval=0.02,
        client_poll_interval=0.2,
    )


@pytest.fixture
async def greeter(settings):
    """A running engine, and the participant at its other end."""
    greeter = GreeterParticipant()
    async with (
        worker(settings) as engine,
        service(settings, greeter) as serving,
        run_services(engine, serving),
    ):
        yield greeter
        greeter.may_finish.set()


@pytest.fixture
async def client(settings, greeter):  # noqa: ARG001 - an engine has to run
    """A client of that engine."""
    async with Client(settings=settings) as client:
        yield client
