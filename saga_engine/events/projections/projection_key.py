"""What identifies a projection in the database: its name and its version."""

from typing import Protocol

ENGINE_PREFIX = "saga-engine-"
"""The names of the engine's own projections begin with it; no declared one may."""


class ProjectionKey(Protocol):
    """A declared projection, a stored one, or a read model of the engine."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def version(self) -> int:
        """Its version."""


def show_command(projection: ProjectionKey) -> str:
    """Return the command that shows the events which a projection could not apply."""
    return f"saga-engine projections show {projection.name} --version {projection.version}"
