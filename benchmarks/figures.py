"""Figures with their intervals, and the report that a benchmark prints."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.costs import confidence_interval


@dataclass(frozen=True, slots=True)
class Figure:
    """
    A measured value, and an interval that contains its median with a probability of 95 %.

    With fewer than six measurements the interval is the whole range.
    """

    value: float
    low: float
    high: float

    @property
    def rounded(self) -> Mapping[str, float]:
        """Its numbers with four significant digits, to print."""
        return {name: float(f"{value:.4g}") for name, value in asdict(self).items()}


def figure_of(values: Sequence[float]) -> Figure:
    """Return the median of some values, and its interval."""
    low, high, _ = confidence_interval(values)
    return Figure(median(values), low, high)


def ratios(ones: Sequence[float], others: Sequence[float]) -> Figure:
    """Return the median of the ratios of values that were measured in the same rounds."""
    return figure_of([one / other for one, other in zip(ones, others, strict=True)])


class Report:
    """Prints each figure as one JSON line, and keeps those that have targets for a table."""

    def __init__(self, print_line: Callable[[str], object] = print) -> None:
        self.figures: dict[str, Figure] = {}
        self.remarks: dict[str, str] = {}
        self._print_line = print_line

    def add(self, case: str, name: str, figure: Figure, *, remark: str = "") -> None:
        """Report a figure that has a target."""
        self.figures[name] = figure
        if remark:
            self.remarks[name] = remark
        remarks = {"remark": remark} if remark else {}
        self.print(case=case, figure=name, **figure.rounded, **remarks)

    def print(self, **fields: object) -> None:
        """Print one JSON line."""
        self._print_line(json.dumps(fields))
