"""
One version of the tables of a projection, as this process fills it.

The versions of tables are numbered apart from those of the code: each rebuild makes a new one, also
with the same code.
"""

from dataclasses import dataclass

from saga_engine.events.projections.projection import Projection


@dataclass(frozen=True, slots=True)
class ProjectionVersion:
    """
    One version of the tables of a projection.

    Args:
        declaration: the code that fills them.
        version: of the tables.
    """

    declaration: Projection
    version: int

    @property
    def name(self) -> str:
        """The name of the projection."""
        return self.declaration.name
