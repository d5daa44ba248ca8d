"""What a reader of one version does not accept of a writer of another: where, and why."""

from dataclasses import dataclass
from enum import StrEnum


class Problem(StrEnum):
    """Why a written value may be refused by its reader."""

    MISSING = "missing"  # the reader requires a field that is never written
    OPTIONAL = "optional"  # the reader requires a field that may be absent
    UNKNOWN_FIELD = "unknown_field"  # the reader refuses fields that it does not declare
    TYPE = "type"  # the value has another JSON type
    VALUE = "value"  # the reader accepts some values only
    LIMIT = "limit"  # a length, a size, a number or its digits may be beyond the reader's limit
    FORMAT = "format"  # a text has another format, or another pattern
    UNION = "union"  # no member of the reader's union accepts the value
    UPCAST = "upcast"  # an upcaster fails, or gives what the reader refuses
    AVRO = "avro"  # Avro's own checker says that the reader does not read it
    NOT_UNDERSTOOD = "not_understood"  # a keyword decides that this check does not understand
    TOO_LARGE = "too_large"  # the schemas are too large, or nested too deep, to be compared


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """
    One value that is written and may be refused when it is read.

    Args:
        path: of the value: `lines[].qty`; `tags.*` of a map, `pair[0]` of a tuple, `body` at the
            top.
        problem: why it may be refused.
        written: what the writer's schema says of it, as the end of a sentence: `is absent`.
        read: what the reader's schema says of it: `is required`.
    """

    path: str
    problem: Problem
    written: str
    read: str

    def sentence(self, writer: str, reader: str) -> str:
        """
        Describe it, without a full stop.

        Args:
            writer: the name of the version that writes, such as `version 2`.
            reader: the name of the version that reads.
        """
        if self.problem in (Problem.UPCAST, Problem.AVRO):
            return self.read
        if self.problem in (Problem.NOT_UNDERSTOOD, Problem.TOO_LARGE):
            return f"`{self.path}` {self.read}"
        if self.problem is Problem.UNION:
            return f"`{self.path}` {self.written} in {writer}, and {self.read} in {reader}"
        return f"`{self.path}` {self.read} in {reader} and {self.written} in {writer}"
