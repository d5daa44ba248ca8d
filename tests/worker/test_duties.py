"""The duties of a worker: one read finds out whether there is work."""

import pytest
from sqlalchemy import text

from saga_engine.errors import StoreUnavailable
from saga_engine.postgres import pgbouncer
from tests.worker.steps import idle_duties


async def test_an_idle_worker_polls_with_two_statements(engine, monkeypatch):
    """It polls many times a second."""
    duties, statements = await idle_duties(engine), []

    def record_calls_of(name):
        original = getattr(pgbouncer.PoolerAwareConnection, name)

        async def recorded(self, statement, *arguments, **options):
            statements.append(str(statement).split()[0].strip(";"))
            return await original(self, statement, *arguments, **options)

        monkeypatch.setattr(pgbouncer.PoolerAwareConnection, name, recorded)

    record_calls_of("execute")
    record_calls_of("execute_statement")
    assert not await duties.process_due_and_pending()
    assert statements == ["SELECT", "SELECT"]


async def test_an_idle_worker_notices_a_read_only_server(engine):
    """After a failover the old connections may lead to a standby."""
    duties = await idle_duties(engine)
    read_only = text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    async with engine.database.transaction() as tx:
        await tx.execute(read_only)
    with pytest.raises(StoreUnavailable, match="25006"):
        await duties.process_due_and_pending()
    assert not await duties.process_due_and_pending(), "over a new connection"
