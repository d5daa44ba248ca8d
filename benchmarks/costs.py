"""What runs cost relative to RabbitMQ, and how two sides of a comparison differ."""

from collections.abc import Callable, Mapping, Sequence
from math import comb
from statistics import median


def relative_cost(cpu_ms: Mapping[str, float]) -> float:
    """Return the cost of the engine and PostgreSQL, relative to RabbitMQ's in the same runs."""
    return (cpu_ms["worker"] + cpu_ms["participants"] + cpu_ms["postgresql"]) / cpu_ms["rabbitmq"]


def engine_cost(cpu_ms: Mapping[str, float]) -> float:
    """Return the cost of the worker and PostgreSQL, relative to RabbitMQ's in the same runs."""
    return (cpu_ms["worker"] + cpu_ms["postgresql"]) / cpu_ms["rabbitmq"]


def engine_cost_with_readers(cpu_ms: Mapping[str, float]) -> float:
    """Return the same, with the process of the feed."""
    return engine_cost(cpu_ms) + cpu_ms.get("feed", 0.0) / cpu_ms["rabbitmq"]


def confidence_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the shortest interval of ordered ratios that contains the median with 95 %."""
    ordered, count_of_ratios = sorted(ratios), len(ratios)
    rank, outside_probability = 0, 2.0 / 2**count_of_ratios
    while (
        outside_probability + 2 * comb(count_of_ratios, rank + 1) / 2**count_of_ratios <= 0.05
        and 2 * (rank + 2) < count_of_ratios
    ):
        rank += 1
        outside_probability += 2 * comb(count_of_ratios, rank) / 2**count_of_ratios
    return ordered[rank], ordered[count_of_ratios - 1 - rank], 1 - outside_probability


def ratio_fields(
    name: str,
    measurements: Mapping[str, Sequence[Mapping[str, float]]],
    cost: Callable[[Mapping[str, float]], float],
) -> dict[str, object]:
    """Return the median of the ratios after/before of a cost, and its interval, to print."""
    ratios = [
        cost(after) / cost(before)
        for before, after in zip(measurements["before"], measurements["after"], strict=True)
    ]
    low, high, coverage = confidence_interval(ratios)
    return {
        name: round(median(ratios), 3),
        "interval": [round(low, 3), round(high, 3)],
        "coverage": round(coverage, 3),
    }
