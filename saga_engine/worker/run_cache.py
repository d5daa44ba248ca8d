"""
The runs that this worker has read or decided last, kept in memory between two steps.

A run in the cache may be older than its journal: another worker may have decided it since. The
fence of `store.batch_append` finds that out, and the run is read again. So the cache saves reading
and never decides anything. It is bounded by the bytes that the runs take, and forgets the run first
that was not used for the longest time.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable

from saga_engine.store.runs import StoredRun

MEMORY_FACTOR = 4
"""Bytes of memory for a byte of JSON: Python's objects for small texts and numbers."""

RUN_OVERHEAD_BYTES = 4000
"""Bytes of memory for a run of three steps without payloads, and for its entry."""


class RunCache:
    """
    The runs by id, each as of the revision that was read or appended last.

    Args:
        max_bytes: how much memory the runs may take, as estimated; 0: none is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._runs: OrderedDict[str, StoredRun] = OrderedDict()
        self._bytes = 0
        self._epoch: int | None = None

    def __len__(self) -> int:
        return len(self._runs)

    def find(self, run_ids: Iterable[str]) -> dict[str, StoredRun]:
        """Those of *run_ids* that are in the cache."""
        found = {}
        for run_id in run_ids:
            stored = self._runs.get(run_id)
            if stored is not None:
                self._runs.move_to_end(run_id)
                found[run_id] = stored
        return found

    def enter(self, epoch: int | None) -> None:
        """
        Forget all runs if the server may be another one than before.

        After a failover that lost commits the journal may have other rows than those remembered.
        """
        if epoch is None or epoch != self._epoch:
            self.clear()
            self._epoch = epoch

    def keep(self, stored: StoredRun, epoch: int | None) -> None:
        """
        Keep a run as a batch has read or appended it, unless the epoch of that batch is over.

        A finished run is forgotten, because it hardly gets messages, and so is one that alone is
        too large.
        """
        if epoch is None or epoch != self._epoch:
            return
        run_id = stored.run.run_id
        known = self._runs.get(run_id)
        if known is not None and known.revision > stored.revision:
            return  # another batch of this worker has appended since
        self.discard((run_id,))
        if stored.run.status.is_finished or _memory_of(stored) > self._max_bytes:
            return
        self._runs[run_id] = stored
        self._bytes += _memory_of(stored)
        while self._bytes > self._max_bytes:
            _, oldest = self._runs.popitem(last=False)
            self._bytes -= _memory_of(oldest)

    def discard(self, run_ids: Collection[str]) -> None:
        """Forget runs, so that they are read again."""
        for run_id in run_ids:
            stored = self._runs.pop(run_id, None)
            if stored is not None:
                self._bytes -= _memory_of(stored)

    def clear(self) -> None:
        """Forget all runs: after a failover the database may be behind them."""
        self._runs.clear()
        self._bytes = 0


def _memory_of(stored: StoredRun) -> int:
    return RUN_OVERHEAD_BYTES + MEMORY_FACTOR * stored.size
