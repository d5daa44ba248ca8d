"""
Which versions of a schema must read each other.

A version has two JSON Schemas: `writes` is what its code writes, `reads` is what its code accepts.
They differ: a decimal number is written as a text, and read from a number as well.
"""

from dataclasses import dataclass
from enum import StrEnum

from saga_engine.vocabulary import Json


class Compatibility(StrEnum):
    """Which versions read what which others have written."""

    BACKWARD = "backward"  # a version reads what the one before it has written
    BACKWARD_TRANSITIVE = "backward_transitive"  # it reads what every earlier one has written
    FORWARD = "forward"  # the version before it reads what it writes
    FORWARD_TRANSITIVE = "forward_transitive"  # every earlier one reads what it writes
    FULL = "full"  # both, with the one before it
    FULL_TRANSITIVE = "full_transitive"  # both, with every earlier one
    NONE = "none"  # nothing is compared

    @property
    def is_transitive(self) -> bool:
        """Whether every earlier version counts, not only the last one."""
        return self.value.endswith("_transitive")

    @property
    def is_backward(self) -> bool:
        """Whether a version must read what earlier ones have written."""
        return self.value.startswith(("backward", "full"))

    @property
    def is_forward(self) -> bool:
        """Whether earlier versions must read what a version writes."""
        return self.value.startswith(("forward", "full"))


@dataclass(frozen=True, slots=True)
class VersionSchema:
    """
    One version of a schema.

    Args:
        version: as its author has declared it, from 1.
        writes: the JSON Schema of what its code writes.
        reads: the JSON Schema of what its code accepts.
    """

    version: int
    writes: Json
    reads: Json
