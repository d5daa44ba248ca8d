"""A duration in the settings is at least 1 ms: less becomes 0 in PostgreSQL and in timers."""

import pytest
from sqlalchemy import text

from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings
from saga_engine.store.database import Database

DURATIONS = [
    name
    for name, field in Settings.model_fields.items()
    if field.annotation is float and not name.endswith("_days")
]


def test_durations_are_found():
    assert {
        "participant_handler_timeout",
        "database_transaction_timeout",
        "mapping_timeout",
    } <= set(DURATIONS)


@pytest.mark.parametrize("name", DURATIONS)
def test_a_duration_that_would_become_0_is_refused(name):
    for value in ("0", "0.0009", "1e-9"):
        with pytest.raises(ConfigurationError, match=f"SAGA_ENGINE_{name.upper()} is invalid"):
            Settings.load(**{name: value})


async def test_the_shortest_duration_is_a_timeout_of_the_database(migrated_url):
    settings = Settings(database_url=migrated_url, database_lock_timeout=0.001)
    async with Database(migrated_url, settings) as database, database.transaction() as tx:
        assert (await tx.execute(text("SHOW lock_timeout"))).scalar_one() == "1ms"
