"""The processor time of some processes during a measurement, and what others used meanwhile."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.load_generator import Measurement
from benchmarks.processes import CLOCK_TICKS_PER_SECOND, cpu_seconds

_IDLE_COLUMNS = (3, 4)  # idle and iowait, in the first line of /proc/stat after its name (proc(5))
_BUSY_COLUMNS = 8  # the columns after them count guests, which are in the others too


class CpuMeter:
    """Measures the processor time of processes, by role; the children of a process count too."""

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        self._pids = pids
        self._before: dict[str, float] = {}
        self._machine_before = self._own_before = self._started_at = 0.0

    def start(self) -> None:
        """Begin a measurement."""
        self._before = self._seconds_by_process()
        self._machine_before, self._own_before = _busy_seconds(), time.process_time()
        self._started_at = time.perf_counter()

    def stop(self, measured: Measurement) -> None:
        """End the measurement: write the processor times and the noise into *measured*."""
        elapsed = time.perf_counter() - self._started_at
        after = self._seconds_by_process()
        measured.cpu_by_process = {name: after[name] - self._before[name] for name in after}
        used = _busy_seconds() - self._machine_before
        own = time.process_time() - self._own_before + measured.cpu_s
        measured.noise = max(0.0, used - own) / (elapsed * (os.cpu_count() or 1))

    def _seconds_by_process(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self._pids.items()}


def _busy_seconds() -> float:
    """Return the seconds for which the processors have been busy since the machine started."""
    columns = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    busy = sum(columns[:_BUSY_COLUMNS]) - sum(columns[each] for each in _IDLE_COLUMNS)
    return busy / CLOCK_TICKS_PER_SECOND
