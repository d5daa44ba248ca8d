"""What the figures should be on two cores that nothing else uses, and whether they are."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound of one figure of a case: the least events a second, or the most milliseconds."""

    figure: str
    bound: int

    def is_reached(self, line: Mapping[str, object]) -> bool:
        """Whether the figure of a line is within the bound."""
        found = float(str(line[self.figure]))
        return found >= self.bound if self.figure == "events_per_s" else found <= self.bound


AIMS: Mapping[str, Aim] = {
    "append-50": Aim("events_per_s", 10_000),
    "append-1000": Aim("events_per_s", 10_000),
    "rebuild-folded": Aim("events_per_s", 15_000),
    "rebuild-copied": Aim("events_per_s", 40_000),
    "lag": Aim("p99_ms", 200),
    "lag-in-rebuild": Aim("p99_ms", 200),
    "feed-exchange": Aim("events_per_s", 2_500),
    "feed-stream": Aim("events_per_s", 8_000),
    "feed-stream-10": Aim("events_per_s", 8_000),
    "feed-kafka": Aim("events_per_s", 15_000),
    "feed-exchange-lag": Aim("p99_ms", 200),
    "feed-stream-lag": Aim("p99_ms", 200),
    "feed-stream-10-lag": Aim("p99_ms", 200),
    "feed-kafka-lag": Aim("p99_ms", 200),
}
"""The aim of each line by its case; a webhook and consumers have none."""


def judged(line: Mapping[str, object]) -> Mapping[str, object]:
    """Add the aim of its case to a line, if there is one, and whether it is reached."""
    aim = AIMS.get(str(line["case"]))
    if aim is None:
        return line
    return {**line, "aim": {aim.figure: aim.bound}, "aim_reached": aim.is_reached(line)}


def missed(line: Mapping[str, object]) -> str:
    """Say that a judged line misses its aim; empty if it reaches it."""
    if line.get("aim_reached", True):
        return ""
    aim = AIMS[str(line["case"])]
    return f"{line['case']} misses its aim: {aim.figure} is {line[aim.figure]}, not {aim.bound}."
