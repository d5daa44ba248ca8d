"""A participant and its executor without a database, and the database of its user."""

import pytest

from tests.kit.events import EventRecorder
from tests.kit.payments_participant import DirectExecutor, PaymentsParticipant, bookings_engine


@pytest.fixture
async def user_engine(database_url):
    """The user's engine, on a database with their table."""
    async with bookings_engine(database_url) as engine:
        yield engine


@pytest.fixture
def payments():
    return PaymentsParticipant()


@pytest.fixture
def executor(payments):
    """Executes the commands of `payments`."""
    return DirectExecutor(payments, None, EventRecorder())
