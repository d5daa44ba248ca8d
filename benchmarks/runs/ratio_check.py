"""
`make bench-check`: fails if a ratio is more than 20 % worse than the one in the repository.

    python -m benchmarks.runs.ratio_check [--rounds 6] [--runs 400] [--record]

It takes about a minute. The ratios are those that depend least on the machine and on what else
runs on it: processor time relative to that of RabbitMQ or of the pipeline of bare messages in the
same rounds, and counts. `ratios.json` has each with the interval of its rounds. A ratio that is
worse is measured once more, with twice as many rounds, before the check fails. `--record` writes
what was measured into `ratios.json`; commit it with the change that explains it.

Rounds in which other programs used half of the machine do not count: batches become small, and the
time of polls is divided by fewer runs. If too few rounds are left, only the counts are compared.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.baseline import run_pipeline
from benchmarks.figures import Figure, Report, figure_of
from benchmarks.load_generator import Measurement
from benchmarks.runs.sides import IN_FLIGHT, Rounds, Segment, run_engine_side, take_turns
from benchmarks.runs.statements import run_cost_meter
from benchmarks.runs.targets import Goal
from benchmarks.runs.throughput import relative_cpu
from benchmarks.servers import SharedServers, start_shared_servers

RATIOS = Path(__file__).with_name("ratios.json")

MAX_LOSS = 0.2
"""Ratios of one commit differ by less."""

MAX_NOISE, MIN_ROUNDS = 0.5, 3
"""The share of the machine that other programs may use in a round, and how many must be left."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """What a ratio is, and which direction is better."""

    what: str
    goal: Goal


RATIO_NAMES: Mapping[str, Ratio] = {
    "worker_cpu": Ratio("processor time of the worker / of RabbitMQ", Goal.AT_MOST),
    "participant_cpu": Ratio("processor time of the participant / of RabbitMQ", Goal.AT_MOST),
    "pipeline_cpu": Ratio(
        "processor time of the pipeline / of the success path, all processes", Goal.AT_LEAST
    ),
    "round_trips": Ratio("round trips to PostgreSQL for each batch", Goal.AT_MOST),
    "statements": Ratio("statements for each batch", Goal.AT_MOST),
}


def losses(recorded: Mapping[str, float], measured: Mapping[str, Figure]) -> dict[str, float]:
    """Return by how much each measured ratio is worse, as a share of the recorded one; or < 0."""
    return {
        name: (
            figure.value / recorded[name] - 1
            if RATIO_NAMES[name].goal is Goal.AT_MOST
            else recorded[name] / figure.value - 1
        )
        for name, figure in measured.items()
    }


def verdict(recorded: Mapping[str, float], measured: Mapping[str, Figure]) -> str:
    """Return a sentence for each ratio that is too much worse; empty if none is."""
    return "\n".join(
        f"{RATIO_NAMES[name].what}: {measured[name].value:.3g} instead of {recorded[name]:.3g},"
        f" {loss:.0%} worse. At most {MAX_LOSS:.0%} are allowed."
        for name, loss in losses(recorded, measured).items()
        if loss > MAX_LOSS
    )


def read_ratios() -> dict[str, float]:
    """Read the recorded ratios."""
    return {name: each["value"] for name, each in json.loads(RATIOS.read_text()).items()}


async def measure(*, runs: int, rounds: int) -> dict[str, Figure]:
    """Measure all ratios."""
    async with start_shared_servers() as servers:
        figures = await _processor_time(servers, runs, rounds)
        return {**figures, **await _statements(servers, runs)}


async def _processor_time(servers: SharedServers, runs: int, rounds: int) -> dict[str, Figure]:
    async with (
        servers.isolated_urls() as engine_urls,
        servers.isolated_urls() as pipeline_urls,
        run_engine_side(engine_urls) as engine,
        run_pipeline(pipeline_urls) as pipeline,
    ):
        segments = [
            Segment(name="pipeline", side=pipeline, runs=runs * 2),
            Segment(name="success", side=engine, runs=runs),
        ]
        measured = await take_turns(segments, rounds)
    measured.print_to(Report(_print_now), "ratios")
    quiet = quiet_rounds(measured)
    if quiet is None:
        _print_now(f"Processor time is not compared: the noise is above {MAX_NOISE:g}.")
        return {}
    return {
        "worker_cpu": relative_cpu(quiet, "worker"),
        "participant_cpu": relative_cpu(quiet, "participants"),
        "pipeline_cpu": quiet.ratio("pipeline", "success", _cpu_per_run),
    }


def quiet_rounds(measured: Rounds) -> Rounds | None:
    """Return the rounds in which no side had too much noise; None if they are too few."""
    rounds = [
        each
        for each in zip(*measured.measurements.values(), strict=True)
        if max(side.noise for side in each) <= MAX_NOISE
    ]
    if len(rounds) < MIN_ROUNDS:
        return None
    return Rounds(dict(zip(measured.measurements, zip(*rounds, strict=True), strict=True)))


async def _statements(servers: SharedServers, runs: int) -> dict[str, Figure]:
    async with servers.isolated_urls() as urls, run_cost_meter(urls) as meter:
        costs = [await meter.measure(runs, IN_FLIGHT) for _ in range(2)]
    return {
        "round_trips": figure_of([each.round_trips_per_batch for each in costs]),
        "statements": figure_of([each.statements_per_batch for each in costs]),
    }


def _cpu_per_run(measured: Measurement) -> float:
    return measured.cpu_s / measured.runs


async def main() -> None:
    """Measure, and compare with the recorded ratios or record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runs.ratio_check")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--runs", type=int, default=400, help="runs of the engine in each round")
    parser.add_argument("--record", action="store_true", help="write ratios.json")
    arguments = parser.parse_args()
    measured = await measure(runs=arguments.runs, rounds=arguments.rounds)
    if arguments.record:
        if missing := RATIO_NAMES.keys() - measured.keys():
            sys.exit(f"Nothing is recorded without {', '.join(sorted(missing))}.")
        rounded = {name: figure.rounded for name, figure in measured.items()}
        RATIOS.write_text(json.dumps(rounded, indent=2) + "\n")
        return
    recorded = read_ratios()
    if verdict(recorded, measured):
        measured = await measure(runs=arguments.runs, rounds=arguments.rounds * 2)
    _print(recorded, measured)
    if sentences := verdict(recorded, measured):
        sys.exit(f"{sentences}\nIf the loss is intended, record it with --record and say why.")


def _print(recorded: Mapping[str, float], measured: Mapping[str, Figure]) -> None:
    worse = losses(recorded, measured)
    for name, figure in measured.items():
        fields = {"recorded": recorded[name], "loss_percent": round(worse[name] * 100)}
        _print_now(json.dumps({"ratio": name, **figure.rounded, **fields}))


def _print_now(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
