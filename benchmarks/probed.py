"""
A worker that measures how late its event loop comes round, and how much memory it takes.

    python -m benchmarks.probed REPORT

runs the sagas of `benchmarks.flood` until SIGTERM, then writes one line of JSON to the file REPORT.
"""

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.flood import bulk, orders
from saga_engine.settings import Settings
from saga_engine.telemetry import events
from saga_engine.telemetry.events import Fact, Tell
from saga_engine.worker.worker import Worker

EVERY = 0.005
"""Seconds between two looks at the clock."""


class Probe:
    """Looks at the clock again and again; and counts what the worker tells."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.counts: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()

    async def look(self) -> None:
        """Go on for ever."""
        while True:
            due = time.perf_counter() + EVERY
            await asyncio.sleep(EVERY)
            self.late.append(time.perf_counter() - due)

    def told(self, fact: Fact) -> None:
        """Count a fact."""
        match fact:
            case events.LinkChanged():
                self.counts["reconnects"] += fact.epoch > 1
            case events.MessagesConsumed():
                self.counts["redelivered"] += fact.redelivered
                self.largest[fact.queue] = max(self.largest[fact.queue], fact.messages)
            case events.MessageDeadLettered():
                self.counts["dead letters"] += 1
            case events.FaultFound() | events.DatabaseTroubled():
                self.counts["faults"] += 1
                print(fact, file=sys.stderr, flush=True)
            case _:
                pass

    def report(self) -> dict[str, object]:
        """What was measured, in milliseconds, MB and numbers."""
        ordered = sorted(self.late)
        status = Path("/proc/self/status").read_text()
        return {
            "lag_max_ms": round(ordered[-1] * 1000, 1),
            "lag_p99_ms": round(ordered[len(ordered) * 99 // 100] * 1000, 1),
            "rss_mb": int(status.split("VmHWM:")[1].split()[0]) // 1024,
            "largest_batch": dict(self.largest),
            **{
                name: self.counts[name]
                for name in ("reconnects", "redelivered", "dead letters", "faults")
            },
        }


async def main() -> dict[str, object]:
    """Run until SIGTERM; what was measured."""
    probe, stop = Probe(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Worker([orders, bulk], Settings.load(), Tell(probe.told)) as worker:
        looking = asyncio.ensure_future(probe.look())
        await worker.run(stop)
        looking.cancel()
    return probe.report()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(asyncio.run(main())))
