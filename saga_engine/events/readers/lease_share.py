"""
Which leases a process should have, so that each process has its share of them.

It only saves work: two processes that decide at the same time, from what they have read a moment
ago, may both want one lease, and one of them gets it. Their next look corrects the numbers.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil
from zlib import crc32

LeaseKey = tuple[str, str]
"""What a lease is of: a name, and the version of a projection or the sink of a feed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """
    The lease of one projection or feed that is active.

    Args:
        key: what it is of.
        owner: the process that has it; None: it is free.
        ends_in: seconds until it ends; below 0: since then it is free.
        wanted_by: the process that the owner shall give it to; None: it may keep it.
    """

    key: LeaseKey
    owner: str | None
    ends_in: float
    wanted_by: str | None

    @property
    def holder(self) -> str | None:
        """The process that has it, or gets it next."""
        return self.wanted_by or self.owner


@dataclass(frozen=True, slots=True)
class Share:
    """
    What one process does about the leases.

    Args:
        takes: those that are free, or given to it, and that it takes.
        wants: those that it wants from their owners, who have more; again those that it wanted
            before.
        gives: those that it has and another process wants.
    """

    takes: Collection[LeaseKey]
    wants: Collection[LeaseKey]
    gives: Collection[LeaseKey]


def share_of(process: str, leases: Sequence[Lease], patience: float) -> Share:
    """
    Decide what a process does about the leases that it can have.

    It takes free ones up to the share of each process, and wants one of a process that has two more
    than it, until no process has more than one more than another. One that has been free for
    *patience* seconds it takes in any case: the others may not be able to run it.
    """
    held = Counter(each.holder for each in leases if each.holder)
    processes = held.keys() | {process}
    room = ceil(len(leases) / len(processes)) - held[process]
    free = [each for each in leases if each.holder is None]
    free.sort(key=lambda each: crc32(f"{process} {each.key}".encode()))  # others begin elsewhere
    taken = [each.key for n, each in enumerate(free) if n < room or each.ends_in < -patience]
    own = [each.key for each in leases if each.holder == process and _is_ready(each, process)]
    waited_for = [
        each.key for each in leases if each.wanted_by == process and not _is_ready(each, process)
    ]
    held[process] += len(taken)
    return Share(
        takes=frozenset([*own, *taken]),
        wants=frozenset([*waited_for, *_surplus(process, leases, held)]),
        gives=frozenset(
            each.key
            for each in leases
            if each.owner == process and each.wanted_by not in (None, process)
        ),
    )


def _is_ready(lease: Lease, process: str) -> bool:
    """Whether no other process has it."""
    return lease.owner in (None, process)


def _surplus(process: str, leases: Sequence[Lease], held: Counter[str]) -> list[LeaseKey]:
    """Leases of those who have most, until none has two more than the process."""
    surplus: list[LeaseKey] = []
    while True:
        most, number = max(held.items(), key=lambda each: (each[1], each[0]))
        if number < held[process] + 2:
            return surplus
        candidates = [e.key for e in leases if e.holder == most and e.key not in surplus]
        surplus.append(candidates[-1])
        held[most] -= 1
        held[process] += 1
