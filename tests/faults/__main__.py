"""
`make faults`: every kind of fault, then a mixture of them, and a table.

1 when a promise broke, and then the logs stay; 2 when there is no such fault.

    python -m tests.faults --seed 7 --only 'SIGKILL.*'
"""

import argparse
import asyncio
import io
import logging
import re
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.faults.catalogue import ALL, CLUSTER, GROUPS
from tests.faults.cluster import RabbitCluster
from tests.faults.environment import fault_environment
from tests.faults.load_generator import LoadGenerator
from tests.faults.suite import HEADER, FaultSuite, find_leaks, format_table
from tests.kit.rabbitmq import RabbitMQServer

RUNS = 10_000
MIX, HELPINGS = 12, 2  # Faults in one helping of the mixture, and helpings at the least.


async def run(seed, only, times, runs, directory):
    """The faults on a site with one node of RabbitMQ, and then those of a cluster on another."""
    print(f"seed {seed}, logs in {directory}")
    code = 0
    for name, broker, groups in (
        ("node", RabbitMQServer, GROUPS),
        ("cluster", RabbitCluster, (CLUSTER,)),
    ):
        chosen = [[each for each in group if _is_chosen(each, only)] for group in groups]
        if any(chosen):
            logs = directory / name
            logs.mkdir(exist_ok=True)
            code |= await run_on(broker, seed, chosen, times, runs if groups is GROUPS else 0, logs)
    return code


def _is_chosen(fault, only):
    if fault.obstacle:
        print(f"left out: {fault.name}, because {fault.obstacle}")
    return re.fullmatch(only, fault.name) and not fault.obstacle


async def run_on(broker, seed, chosen, times, runs, directory):
    async with (
        fault_environment(directory, seed, broker=broker) as place,
        LoadGenerator(place, Random(seed)) as load,
    ):
        suite = FaultSuite(place, load, Random(seed))
        print(f"          {HEADER}")
        for group in filter(None, chosen):
            for fault in group:
                await suite.run_fault(fault, times or fault.times)
            await suite.check_promises()
        mixing = [fault for group in chosen for fault in group if fault.mixes is not None]
        helpings = 0
        while runs and len(mixing) > 1 and (helpings < HELPINGS or len(load.requested) < runs):
            await suite.run_mixed(mixing, MIX)
            await suite.check_promises()
            helpings += 1
        await suite.recheck_all()
        printed = find_leaks(place)
    print(format_table(suite))
    for each in [*suite.violations, *printed]:
        print(each)
    print(f"seed {seed}")
    return 1 if suite.violations or printed else 0


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--only", default=".*", help="a regular expression for names of faults")
    parser.add_argument("--times", type=int, default=0, help="how often each, instead of its own")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="mix faults until so many runs; 0: not at all"
    )
    given = parser.parse_args()
    if not any(re.fullmatch(given.only, fault.name) for fault in (*ALL, *CLUSTER)):
        parser.error(f"no fault is called {given.only!r}")
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # as on a terminal, so that a file can be followed
    # The load's own connections are cut like all others, and aiormq would say so each time.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    directory = Path(tempfile.mkdtemp(prefix="saga-faults-"))
    code = asyncio.run(run(given.seed, given.only, given.times, given.runs, directory))
    if not code:
        shutil.rmtree(directory)
    sys.exit(code)


if __name__ == "__main__":
    main()
