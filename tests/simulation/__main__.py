"""
Runs many simulations: `make simulate SEEDS=2000 RUNS=100 BASE=7`.

Prints a summary. A seed that breaks a promise is reduced and written to regressions/.
"""

import os
import sys
import time

from tests.simulation.campaign import run_campaign, save_regression

base = int(os.environ.get("BASE") or time.time())
seeds = int(os.environ.get("SEEDS") or 1000)
runs = int(os.environ.get("RUNS") or 100)
summary = run_campaign(base, seeds, runs)
sys.stdout.write(f"{summary}\n")
for repro in summary.repros:
    sys.stdout.write(f"kept as {save_regression(repro)}\n")
sys.exit(bool(summary.repros))
