"""A participant and its executor without a database, and the database of its user."""

import pytest

from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from tests.kit.events import EventRecorder
from tests.kit.payments_participant import DirectExecutor, PaymentsParticipant, bookings_engine


@pytest.fixture
async def user_engine(database_url):
    """The user's engine, on a database with their table."""
    async with bookings_engine(database_url) as engine:
        yield engine


@pytest.fixture
async def url_database(database_url):
    """The same database, given to the participant as a URL, with the barrier's table."""
    database = ParticipantDatabase(database_url, Settings())
    await database.prepare(create_barrier=True)
    yield database
    await database.close()


@pytest.fixture
def payments():
    return PaymentsParticipant()


@pytest.fixture
def executor(payments):
    """Executes the commands of `payments`."""
    return DirectExecutor(payments, None, EventRecorder())
