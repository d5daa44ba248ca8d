"""
`make faults`: injects every kind of fault, then mixtures, and prints a table.

Exits with 1 if a promise was violated, and keeps the logs then; with 2 if no fault has the name.

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
from tests.faults.fault import Fault
from tests.faults.load_generator import LoadGenerator
from tests.faults.suite import HEADER, FaultSuite, find_leaks, format_table
from tests.kit.rabbitmq import RabbitMQServer

RUNS = 10_000
MIXTURE_SIZE, MIN_MIXTURES = 12, 2  # Faults in one mixture, and the number of mixtures.


async def run(seed, only, times, runs, directory):
    """Run the faults of a single RabbitMQ node, then those of a cluster."""
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


def _is_chosen(fault: Fault, only):
    if fault.unavailable_reason:
        print(f"skipped: {fault.name}, because {fault.unavailable_reason}")
    return re.fullmatch(only, fault.name) and not fault.unavailable_reason


async def run_on(broker, seed, chosen, times, runs, directory):
    async with (
        fault_environment(directory, seed, broker=broker) as environment,
        LoadGenerator(environment, Random(seed)) as load,
    ):
        suite = FaultSuite(environment, load, Random(seed))
        print(f"          {HEADER}")
        for group in filter(None, chosen):
            for fault in group:
                await suite.run_fault(fault, times or fault.times)
            await suite.check_promises()
        mixable = [
            fault for group in chosen for fault in group if fault.exclusive_resources is not None
        ]
        mixtures = 0
        while runs and len(mixable) > 1 and (mixtures < MIN_MIXTURES or len(load.requested) < runs):
            await suite.run_mixed(mixable, MIXTURE_SIZE)
            await suite.check_promises()
            mixtures += 1
        await suite.recheck_all()
        leaks = find_leaks(environment)
    print(format_table(suite))
    for each in [*suite.violations, *leaks]:
        print(each)
    print(f"seed {seed}")
    return 1 if suite.violations or leaks else 0


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--only", default=".*", help="a regular expression for names of faults")
    parser.add_argument(
        "--times", type=int, default=0, help="how often to inject each, instead of its own number"
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=RUNS,
        help="inject mixtures until so many runs were requested; 0: no mixtures",
    )
    options = parser.parse_args()
    if not any(re.fullmatch(options.only, fault.name) for fault in (*ALL, *CLUSTER)):
        parser.error(f"no fault has the name {options.only!r}")
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # as on a terminal, so that a file can be followed
    # aiormq would log each cut of the load's own connections.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    directory = Path(tempfile.mkdtemp(prefix="saga-faults-"))
    code = asyncio.run(run(options.seed, options.only, options.times, options.runs, directory))
    if not code:
        shutil.rmtree(directory)
    sys.exit(code)


if __name__ == "__main__":
    main()
