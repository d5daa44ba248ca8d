"""
Measure the engine: `make bench BENCH="runs --case peers --case cli"`.

There are two families of cases, `runs` and `events`; without a name both are measured. `runs`
starts a private RabbitMQ (quorum queues, confirms) and a private PostgreSQL (fsync), workers and
participants as processes, and sends them place-order runs. It prints JSON lines, and at the end a
table with each figure, its target, and the first figure; docs/performance.md describes the rows.
Sides of a ratio are measured in turns. A benchmark checks its runs in PostgreSQL, and fails if one
is wrong.

    peers         success path, rollback and latency against the pipeline and Restate
    barrier       participants with the barrier
    two-workers   two workers on the same cores
    statements    round trips to PostgreSQL, statements, WAL
    cli           commands of the command line
    waiting-runs  an idle worker, and 100,000 runs in flight
    kept-runs     a database with many finished runs
    hostile       see `benchmarks.hostile`

`python -m benchmarks.peers --install` downloads Restate. `events` appends events, fills read models
from them, publishes and consumes them, see `benchmarks.events`:

    make bench BENCH="events --events 100000 --case rebuild-folded --case feed-kafka"

`benchmarks.compare` compares two checkouts.
"""

import argparse
import asyncio

from benchmarks.events import cases as event_cases
from benchmarks.runs import cases as run_cases


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("family", nargs="?", choices=["runs", "events"])
    parser.add_argument("--runs", type=int, default=1500, help="runs of a side in each round")
    parser.add_argument("--rounds", type=int, default=8, help="how often each side has its turn")
    parser.add_argument(
        "--kept-runs", type=int, default=200_000, help="finished runs of the case kept-runs"
    )
    parser.add_argument(
        "--waiting-runs", type=int, default=100_000, help="runs in flight of the case waiting-runs"
    )
    parser.add_argument(
        "--events",
        type=int,
        default=1_000_000,
        help="events of a rebuild, even; the other cases have fewer",
    )
    of_family = {"runs": run_cases.NAMES, "events": event_cases.NAMES}
    parser.add_argument("--case", action="append", choices=[*run_cases.NAMES, *event_cases.NAMES])
    arguments = parser.parse_args()
    families = [arguments.family] if arguments.family else [*of_family]
    names = {name for family in families for name in of_family[family]}
    if arguments.case and not names.issuperset(arguments.case):
        parser.error(f"{arguments.family} has the cases {', '.join(of_family[arguments.family])}")
    arguments.names = set(arguments.case or names)
    return arguments


async def main() -> None:
    """Measure the cases named on the command line, or all of a family, or all."""
    arguments = parse_arguments()
    sizes = run_cases.Sizes(
        runs=arguments.runs,
        rounds=arguments.rounds,
        kept_runs=arguments.kept_runs,
        waiting_runs=arguments.waiting_runs,
    )
    await run_cases.measure(arguments.names, sizes)
    await event_cases.measure(arguments.names, arguments.events)


asyncio.run(main())
