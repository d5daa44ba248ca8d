"""
`make faults`: every kind of fault, then a mixture of them, and a table; 1 when a promise broke.

    python -m tests.faults --seed 7 --only 'SIGKILL.*'
"""

import argparse
import asyncio
import logging
import re
import secrets
import sys
import tempfile
from pathlib import Path
from random import Random

from saga_engine.embedded.rabbitmq import RabbitServer
from tests.faults.catalogue import ALL, CLUSTER
from tests.faults.cluster import RabbitCluster
from tests.faults.load import Load
from tests.faults.site import site
from tests.faults.suite import HEADER, Suite, leaks, table

RUNS = 10_000
MIX = 12  # Faults in one helping of the mixture.


async def run(seed, only, times, runs, directory):
    """Every fault on a site with one node of RabbitMQ, and then those of a cluster on another."""
    print(f"seed {seed}, logs in {directory}")
    code = 0
    for name, broker, faults in (("node", RabbitServer, ALL), ("cluster", RabbitCluster, CLUSTER)):
        for fault in faults:
            if fault.obstacle:
                print(f"left out: {fault.name}, because {fault.obstacle}")
        chosen = [each for each in faults if re.fullmatch(only, each.name) and not each.obstacle]
        if chosen:
            logs = directory / name
            logs.mkdir(exist_ok=True)
            code |= await run_on(broker, seed, chosen, times, runs if faults is ALL else 0, logs)
    return code


async def run_on(broker, seed, chosen, times, runs, directory):
    async with site(directory, seed, broker=broker) as place, Load(place, Random(seed)) as load:
        suite = Suite(place, load, Random(seed))
        print(f"          {HEADER}", flush=True)
        for fault in chosen:
            await suite.endure(fault, times or fault.times)
        mixing = [fault for fault in chosen if fault.mixes]
        while len(load.asked) < runs and len(mixing) > 1:
            await suite.mix(mixing, MIX)
        printed = leaks(place)
    print(table(suite))
    for each in [*suite.violations, *printed]:
        print(each)
    print(f"seed {seed}")
    return 1 if suite.violations or printed else 0


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--only", default=".*", help="a regular expression for names of faults")
    parser.add_argument("--times", type=int, default=0, help="how often each, instead of its own")
    parser.add_argument("--runs", type=int, default=RUNS, help="mix faults until so many runs")
    given = parser.parse_args()
    # The load's own connections are cut like all others, and aiormq would say so each time.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="saga-faults-") as directory:
        code = asyncio.run(run(given.seed, given.only, given.times, given.runs, Path(directory)))
    sys.exit(code)


if __name__ == "__main__":
    main()
