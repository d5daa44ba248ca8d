"""
Switch a projection to other tables: one transaction renames the live ones and those that follow.

The live version stands still while its row is locked. The other one catches up with it, so readers
never see an older state; then the names change, in milliseconds. A reader waits for that, and finds
the new tables. While long statements read the tables, a switch gives up its place in the queue and
tries again.

A switch that is repeated after its answer was lost finds that it was done.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from saga_engine.errors import Conflict, NotFound, SerializationFailure, StoreLockTimeout
from saga_engine.events.event_store import positions
from saga_engine.events.projections import projection_failures, projection_rebuild, projection_table
from saga_engine.events.projections.projection_actions import audited, not_found
from saga_engine.events.projections.projection_table import (
    ProjectionRole,
    ProjectionState,
    StoredProjection,
)
from saga_engine.events.projections.table_exchange import exchange_tables
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Action, Operator
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database, SqlAlchemyTransaction

Versions = Mapping[ProjectionRole, StoredProjection]

_VERSION_ACTIONS = (Action.REBUILD, Action.DISCARD, Action.SWITCH, Action.BACK)
"""Actions on the versions of the tables; one that is repeated finds itself as the last of these."""


@dataclass(frozen=True, slots=True)
class Switched:
    """
    A switch that is done.

    Args:
        version: of the tables that are live now.
        previous: of the tables that were live before; None: they were removed meanwhile.
        position: up to which the live ones have all events.
    """

    version: int
    previous: int | None
    position: int


@dataclass(frozen=True, slots=True)
class Switch:
    """
    Exchanges the live tables for those of a rebuild, or for the previous ones.

    Args:
        database: of the projection.
        settings: how far behind the other version may be, and how long to try.
        operator: who does it, and why.
    """

    database: Database
    settings: Settings
    operator: Operator

    async def run(self, name: str, action: Action) -> Switched:
        """
        Switch, as soon as the tables can be locked.

        Args:
            name: of the projection.
            action: SWITCH to newer tables, or BACK to those before.

        Raises:
            NotFound: there is no such projection, or nothing to switch to.
            Conflict: it is not ready, other objects depend on the tables, or the tables could not
                be locked in time. Nothing has changed.
            StoreUnavailable: whether it was done is unknown; run it again.
        """
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self.settings.projection_switch_timeout
        while True:
            try:
                async with self.database.transaction() as tx:
                    return await self._switch(tx, name, action)
            except (StoreLockTimeout, SerializationFailure):
                if clock() >= give_up_at:
                    raise Conflict(
                        f"Projection {name!r} was not switched: for"
                        f" {self.settings.projection_switch_timeout:g} s other transactions have"
                        " held locks of its tables or its row. Nothing has changed; try again when"
                        " fewer long transactions read them."
                    ) from None
            # The readers that have waited behind this attempt are served first.
            await asyncio.sleep(self.settings.projection_switch_lock_timeout)

    async def _switch(self, tx: SqlAlchemyTransaction, name: str, action: Action) -> Switched:
        live = await projection_table.lock_role(tx, name, ProjectionRole.LIVE)
        if live is None:
            raise await not_found(tx, name)
        versions = {each.role: each for each in await projection_table.read(tx, name)}
        target = _target(versions, action)
        if target is None:
            return await _done_before(tx, versions, action)
        await self._require_ready(tx, live, target)
        await self._wait_for_position(tx, target, live.position)
        other = await projection_table.lock_role(tx, name, target.role)
        if other is None or other.state is not target.state:
            raise Conflict(
                f"Version {target.version} of projection {name!r} was stopped, paused or removed"
                " meanwhile. Nothing has changed."
            )
        if target.role is ProjectionRole.REBUILD:
            await _remove_previous(tx, name)
        lock_timeout = self.settings.projection_switch_lock_timeout
        await exchange_tables(tx, live, other, lock_timeout)
        parameters = {"name": name, "live": other.version, "previous": live.version}
        await tx.execute(_SET_ROLES, parameters)
        await operator_audit.record(tx, audited(name, other.version), action, self.operator)
        return Switched(other.version, live.version, other.position)

    async def _require_ready(
        self, tx: SqlAlchemyTransaction, live: StoredProjection, target: StoredProjection
    ) -> None:
        """Raise Conflict unless a version is complete, but for a window."""
        version = f"Version {target.version} of projection {target.name!r}"
        show = f"`saga-engine projections show {target.name} --version {target.version}`"
        if target.state is not ProjectionState.ACTIVE:
            raise Conflict(f"{version} is {target.state}. See {show}.")
        if target.rebuild_problem:
            raise Conflict(f"{version} is not kept up to date: {target.rebuild_problem}")
        behind = max(0, await positions.horizon(tx) - target.position)
        if not target.has_tables or behind > self.settings.projection_switch_window:
            raise Conflict(
                f"{version} is not ready: {behind} positions are left. Wait until `saga-engine"
                " projections list` shows it as ready; a projector with version"
                f" {target.code_version} of the code has to run."
            )
        parked = await projection_failures.parked_streams(tx, target)
        missing = parked.keys() - await projection_failures.parked_streams(tx, live)
        if missing:
            raise Conflict(
                f"{version} has parked {len(missing)} streams that the live one has not, for"
                f" example {min(missing)}. See {show}; retry or skip their events first."
            )

    async def _wait_for_position(
        self, tx: SqlAlchemyTransaction, target: StoredProjection, position: int
    ) -> None:
        """Wait until a version is at the position at which the live one stands still."""
        parameters = {"name": target.name, "version": target.version, "position": position}
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self.settings.projection_switch_catch_up_timeout
        while (await tx.execute(_IS_BEHIND, parameters)).scalar():
            if clock() >= give_up_at:
                raise Conflict(
                    f"Version {target.version} of projection {target.name!r} did not catch up with"
                    " the live one, which has waited for"
                    f" {self.settings.projection_switch_catch_up_timeout:g} s. Nothing has changed."
                    f" Is a projector with version {target.code_version} of the code running?"
                )
            await asyncio.sleep(self.settings.event_poll_interval)


def _target(versions: Versions, action: Action) -> StoredProjection | None:
    """The version to switch to: back is an older one, so a repeated command returns nowhere."""
    if action is Action.SWITCH and ProjectionRole.REBUILD in versions:
        return versions[ProjectionRole.REBUILD]
    previous = versions.get(ProjectionRole.PREVIOUS)
    if previous is None:
        return None
    is_older = previous.version < versions[ProjectionRole.LIVE].version
    return previous if is_older == (action is Action.BACK) else None


async def _done_before(tx: SqlAlchemyTransaction, versions: Versions, action: Action) -> Switched:
    """
    What the last action has done, if it was the same one.

    Raises:
        NotFound: it was not.
    """
    live = versions[ProjectionRole.LIVE]
    last = await operator_audit.read(tx, audited(live.name), 1, _VERSION_ACTIONS)
    if last and (last[0].action, last[0].version) == (action, live.version):
        previous = versions.get(ProjectionRole.PREVIOUS)
        return Switched(live.version, previous.version if previous else None, live.position)
    if action is Action.BACK:
        raise NotFound(
            f"Projection {live.name!r} has no previous tables: it was not switched, or so long ago"
            " that they were removed."
        )
    raise NotFound(
        f"Projection {live.name!r} has no rebuild. Begin one with"
        f" `saga-engine projections rebuild {live.name}`."
    )


async def _remove_previous(tx: SqlAlchemyTransaction, name: str) -> None:
    """Remove the tables before the last switch: those of this one are kept instead."""
    previous = await projection_table.lock_role(tx, name, ProjectionRole.PREVIOUS)
    if previous is not None:
        await projection_rebuild.remove(tx, previous)


_IS_BEHIND = text(
    """
    SELECT position < :position FROM saga_engine.projection
    WHERE name = :name AND version = :version"""
)
_SET_ROLES = text(
    """
    UPDATE saga_engine.projection
    SET role = CASE version WHEN :live THEN 'live' ELSE 'previous' END,
        updated_at = clock_timestamp(),
        replaced_at = CASE version WHEN :previous THEN clock_timestamp() END
    WHERE name = :name AND version IN (:live, :previous)"""
)
