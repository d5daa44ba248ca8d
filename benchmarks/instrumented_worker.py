"""
A worker that measures the lag of its event loop and its memory.

    python -m benchmarks.instrumented_worker REPORT

It runs the sagas of `benchmarks.costly_messages` until SIGTERM, then writes one JSON object to the
file REPORT.
"""

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.costly_messages import costly_input, place_order
from saga_engine.settings import Settings
from saga_engine.telemetry import events
from saga_engine.telemetry.events import Emitter, TelemetryEvent
from saga_engine.worker.worker import Worker

SAMPLE_INTERVAL = 0.005
"""Seconds between two samples."""


class WorkerProbe:
    """Samples the lag of the event loop, and counts events of the worker."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.counts: Counter[str] = Counter()
        self.largest_batches: Counter[str] = Counter()

    async def sample_lag(self) -> None:
        """Sample without end."""
        while True:
            due = time.perf_counter() + SAMPLE_INTERVAL
            await asyncio.sleep(SAMPLE_INTERVAL)
            self.lags.append(time.perf_counter() - due)

    def on_event(self, event: TelemetryEvent) -> None:
        """Count one telemetry event."""
        match event:
            case events.BrokerConnectionChanged():
                self.counts["reconnects"] += event.generation > 1
            case events.MessagesConsumed():
                self.counts["redelivered"] += event.redelivered
                self.largest_batches[event.queue] = max(
                    self.largest_batches[event.queue], event.messages
                )
            case events.MessageDeadLettered():
                self.counts["dead_letters"] += 1
            case events.InternalErrorCaught() | events.DatabaseUnavailable():
                self.counts["internal_errors"] += 1
                print(event, file=sys.stderr, flush=True)
            case _:
                pass

    def report(self) -> dict[str, object]:
        """Return the figures: milliseconds, MB and counts."""
        ordered = sorted(self.lags)
        status = Path("/proc/self/status").read_text()
        return {
            "lag_max_ms": round(ordered[-1] * 1000, 1),
            "lag_p99_ms": round(ordered[len(ordered) * 99 // 100] * 1000, 1),
            "rss_mb": int(status.split("VmHWM:")[1].split()[0]) // 1024,
            "largest_batch": dict(self.largest_batches),
            **{
                name: self.counts[name]
                for name in ("reconnects", "redelivered", "dead_letters", "internal_errors")
            },
        }


async def main() -> dict[str, object]:
    """Run until SIGTERM; return the figures."""
    probe, stop = WorkerProbe(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Worker(
        [place_order, costly_input], Settings.load(), Emitter(probe.on_event)
    ) as worker:
        lag_task = asyncio.ensure_future(probe.sample_lag())
        await worker.run(stop)
        lag_task.cancel()
    return probe.report()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(asyncio.run(main())))
