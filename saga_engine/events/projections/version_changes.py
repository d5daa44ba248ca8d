"""
What happens to the versions of projections: a rebuild is ready, or has become live.

Each is reported once, by the process that runs the version. What was so before a process has looked
for the first time is not reported by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.events.projections.projection_table import (
    ProjectionRole,
    ProjectionState,
    StoredProjection,
)
from saga_engine.telemetry.events import ProjectionSwitched, ProjectionVersionReady

VersionChange = ProjectionVersionReady | ProjectionSwitched


@dataclass(frozen=True, slots=True)
class _Seen:
    role: ProjectionRole
    is_ready: bool


class VersionChanges:
    """
    Compares the versions with how they were at the last look.

    Args:
        owner: this process.
        window: a rebuild that is at most so many positions behind the horizon is ready.
    """

    def __init__(self, owner: str, window: int) -> None:
        self._owner = owner
        self._window = window
        self._seen: dict[tuple[str, int], _Seen] = {}

    def find(self, stored: Sequence[StoredProjection], horizon: int) -> list[VersionChange]:
        """
        Return what has changed of the versions that this process runs.

        Args:
            stored: the versions of the code of this process, as they are now.
            horizon: up to which position there are events.
        """
        changes: list[VersionChange] = []
        seen: dict[tuple[str, int], _Seen] = {}
        for each in stored:
            key = (each.name, each.version)
            before = self._seen.get(key)
            is_known_as_ready = before is not None and before.is_ready
            now = _Seen(each.role, is_known_as_ready or self._is_ready(each, horizon))
            is_between_owners = before is not None and each.owner is None
            seen[key] = before if before and is_between_owners else now
            if before and each.owner == self._owner:
                changes += self._changes(each, before, now)
        self._seen = seen
        return changes

    def _changes(self, stored: StoredProjection, before: _Seen, now: _Seen) -> list[VersionChange]:
        name, version = stored.name, stored.version
        changes: list[VersionChange] = []
        if now.is_ready and not before.is_ready:
            command = f"saga-engine projections switch {name}"
            changes.append(
                ProjectionVersionReady(projection=name, version=version, next_command=command)
            )
        if now.role is ProjectionRole.LIVE and before.role is not ProjectionRole.LIVE:
            changes.append(ProjectionSwitched(projection=name, version=version))
        return changes

    def _is_ready(self, stored: StoredProjection, horizon: int) -> bool:
        is_filled = stored.has_tables and stored.state is ProjectionState.ACTIVE
        is_rebuild = stored.role is ProjectionRole.REBUILD
        return is_rebuild and is_filled and horizon - stored.position <= self._window
