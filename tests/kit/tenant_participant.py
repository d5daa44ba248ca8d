"""A participant whose handler runs the statements of its command, as the tenant of a database."""

from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from saga_engine.participant import Participant
from saga_engine.participant.database import (
    ParticipantDatabase,
)
from saga_engine.settings import Settings
from tests.kit.events import EventRecorder
from tests.kit.payments_participant import DirectExecutor, bookings_engine, make_command


class TenantCommand(BaseModel):
    """A payload with the statements that the handler runs."""

    order_id: str
    statements: list[str] = []


class TenantExecutor(DirectExecutor):
    """Executes the commands of a tenant; it keeps the participant and its databases."""

    role: str
    tenant: "TenantParticipant"
    user_engine: AsyncEngine
    database: ParticipantDatabase


class TenantParticipant:
    """A participant whose handler writes a booking and runs the statements of the command."""

    def __init__(self, database):
        self.participant = Participant("payments", database=database)
        self.seen: list[Any] = []

        async def charge(asked: TenantCommand, tx: AsyncConnection) -> str:
            self.seen.append((await tx.execute(_SESSION)).one())
            await tx.execute(
                text("INSERT INTO public.bookings VALUES (:o, 1)"), {"o": asked.order_id}
            )
            for statement in asked.statements:
                await self.run(statement, tx)
            return "charged"

        async def refund(asked: TenantCommand, tx: AsyncConnection) -> None:
            await tx.execute(text("DELETE FROM public.bookings"))
            for statement in asked.statements:
                await self.run(statement, tx)

        self.participant.command("payment.charge")(charge)
        self.participant.compensation("payment.refund", of="payment.charge")(refund)

    async def run(self, statement, tx):
        """Execute a statement, over the driver after `driver:`, or do what its name says."""
        if statement == "close":
            await tx.close()
        elif statement == "terminate":
            (await tx.get_raw_connection()).driver_connection.terminate()
        elif statement.startswith("driver:"):
            driver = (await tx.get_raw_connection()).driver_connection
            await driver.execute(statement.removeprefix("driver:"))
        elif statement == "nested":
            await tx.begin_nested()
        elif statement == "swallow":
            try:
                await tx.execute(text("SELECT 1/0"))
            except Exception:  # noqa: BLE001 - as a careless handler does
                return
        else:
            await tx.execute(text(statement))


_SESSION = text(
    "SELECT current_setting('role') AS role, current_setting('search_path') AS path,"
    " current_setting('default_transaction_read_only') AS read_only"
)


@asynccontextmanager
async def tenants(database_url, given, **settings):
    """A database with the schema and the role of a tenant, and a participant's executor on it."""
    async with bookings_engine(database_url) as user_engine:
        role = f"tenant_{make_url(database_url).database}"
        async with user_engine.begin() as tx:
            for statement in (
                "CREATE SCHEMA tenant",
                f"CREATE ROLE {role}",
                f"GRANT USAGE ON SCHEMA tenant TO {role}",
                f"GRANT SELECT, INSERT ON bookings TO {role}",
            ):
                await tx.execute(text(statement))
        engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
        database = ParticipantDatabase(
            database_url if given == "a URL" else engine, Settings(participant_concurrency=1)
        )
        await database.prepare(create_barrier=True, **settings)
        tenant = TenantParticipant(database_url)
        executor = TenantExecutor(tenant, database, EventRecorder())
        executor.role, executor.tenant, executor.user_engine, executor.database = (
            role,
            tenant,
            user_engine,
            database,
        )
        try:
            yield executor
        finally:
            await database.close()
            await engine.dispose()
            async with user_engine.begin() as tx:
                await tx.execute(text(f"DROP OWNED BY {role}"))
                await tx.execute(text(f"DROP ROLE {role}"))


def make_tenant_command(*statements, executor=None):
    """A command whose handler runs the statements; TENANT stands for the role of the executor."""
    named = (
        [each.replace("TENANT", executor.role) for each in statements]
        if executor
        else [*statements]
    )
    return make_command(payload={"order_id": "o-1", "statements": named})
