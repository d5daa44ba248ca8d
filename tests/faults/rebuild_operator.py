"""An operator who rebuilds a projection, and repeats each command until it is done."""

from saga_engine.errors import Conflict, StoreError
from saga_engine.events.projections import projection_rebuild
from saga_engine.events.projections.projection_switch import Switch, Switched
from saga_engine.events.readers.operator_audit import Action, Operator
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.faults.environment import FaultEnvironment
from tests.faults.event_workload import changed
from tests.kit.programs import wait_until_true

COMMAND_INTERVAL_S, COMMAND_TIMEOUT_S = 0.5, 180.0
"""How often a command is repeated that the database refuses, and when it is given up."""

_OPERATOR = Operator("faults", "rebuilt under faults")


class RebuildOperator:
    """Rebuilds the projection `changed`, as the role that owns its tables."""

    def __init__(self, environment: FaultEnvironment):
        self._environment = environment
        self._refusal = ""

    async def rebuild_and_switch(self, *, back: bool):
        """Begin a rebuild, switch to it as soon as it is ready, and perhaps switch back."""
        await self._repeat(self._begin)
        rebuilt = await self._switch(Action.SWITCH)
        if back:
            before = await self._switch(Action.BACK)
            assert (before.version, before.previous) == (rebuilt.previous, rebuilt.version)

    async def _switch(self, action: Action) -> Switched:
        done: list[Switched] = []

        async def switch(database: Database):
            done.append(await Switch(database, Settings(), _OPERATOR).run(changed.name, action))

        await self._repeat(switch)
        return done[-1]

    async def _begin(self, database: Database):
        async with database.transaction() as tx:
            found = await tx.execute(_REBUILD, {"name": changed.name})
            if found.first() is None:  # else it was started, and only the answer was lost
                await projection_rebuild.begin(tx, changed.name, _OPERATOR)

    async def _repeat(self, command):
        async def is_done():
            url = self._environment.as_role(self._environment.engine_url)
            try:
                async with Database(url, Settings()) as database:
                    await command(database)
            except (Conflict, StoreError) as error:
                self._refusal = str(error)
                return False
            return True

        try:
            await wait_until_true(is_done, patience=COMMAND_TIMEOUT_S, interval=COMMAND_INTERVAL_S)
        except TimeoutError:
            raise AssertionError(
                f"E6: {COMMAND_TIMEOUT_S:g} s of a rebuild were not enough: {self._refusal}"
            ) from None


_REBUILD = text("SELECT FROM saga_engine.projection WHERE name = :name AND role = 'rebuild'")
