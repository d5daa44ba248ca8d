"""Every process gets its share of the leases when others join and leave, and none stays free."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from saga_engine.events.readers.lease_share import Lease, Share, share_of

FRESH, PATIENCE = 5.0, 1.0


def lease(
    n: int, owner: str | None = None, wanted_by: str | None = None, ends_in: float = FRESH
) -> Lease:
    return Lease(key=(f"p{n}", "1"), owner=owner, wanted_by=wanted_by, ends_in=ends_in)


def numbers(share: Share) -> tuple[int, int, int]:
    return len(share.takes), len(share.wants), len(share.gives)


def test_the_only_process_takes_everything():
    assert numbers(share_of("a", [lease(n, ends_in=-0.1) for n in range(5)], PATIENCE)) == (5, 0, 0)


def test_a_process_with_none_wants_half_of_what_another_has():
    assert numbers(share_of("b", [lease(n, "a") for n in range(6)], PATIENCE)) == (0, 3, 0)
    assert numbers(share_of("b", [lease(n, "a") for n in range(5)], PATIENCE)) == (0, 2, 0)
    assert numbers(share_of("b", [lease(1, "a")], PATIENCE)) == (0, 0, 0)


def test_a_process_takes_free_ones_up_to_its_share():
    leases = [lease(1, "a"), lease(2, "b"), *(lease(n, ends_in=-0.1) for n in (3, 4))]
    assert numbers(share_of("a", leases, PATIENCE)) == (2, 0, 0)  # with the one that it has


def test_a_process_takes_what_no_other_has_taken_for_long():
    """The others may have other modules."""
    leases = [lease(1, "a"), lease(2, "b"), *(lease(n, ends_in=-1.1) for n in (3, 4))]
    assert numbers(share_of("a", leases, PATIENCE)) == (3, 0, 0)


def test_an_owner_gives_what_is_wanted_and_does_not_want_it_back():
    leases = [lease(1, "a"), lease(2, "a", wanted_by="b")]
    assert numbers(share_of("a", leases, PATIENCE)) == (1, 0, 1)
    assert numbers(share_of("b", leases, PATIENCE)) == (0, 1, 0)  # it still wants it


def test_what_a_dead_owner_had_is_taken_by_the_process_that_wants_it():
    assert numbers(share_of("b", [lease(1, None, "b", ends_in=-0.1)], PATIENCE)) == (1, 0, 0)
    assert numbers(share_of("c", [lease(1, None, "b", ends_in=-0.1)], PATIENCE)) == (0, 0, 0)


class Processes:
    """Processes that look one after the other, and do what their shares say."""

    def __init__(self, number: int) -> None:
        self.leases = [lease(n, ends_in=-0.1) for n in range(number)]
        self.moves = 0

    def end(self, process: str) -> None:
        self.leases = [
            replace(each, owner=None, ends_in=-0.1) if each.owner == process else each
            for each in self.leases
        ]
        for n, each in enumerate(self.leases):
            if each.wanted_by == process:
                self.leases[n] = replace(each, wanted_by=None)

    def look(self, process: str, seen: list[Lease]) -> None:
        """Act on what was *seen*, which others may have changed since."""
        share = share_of(process, seen, PATIENCE)
        for n, each in enumerate(self.leases):
            is_unchanged = each.holder == seen[n].holder
            if each.key in share.takes and each.owner is None and each.holder in (None, process):
                self.leases[n] = lease(n, process)
            elif each.key in share.wants and is_unchanged:
                self.leases[n] = replace(each, wanted_by=process)
            elif each.key in share.gives and each.owner == process and each.wanted_by:
                self.leases[n] = lease(n, each.wanted_by)
                self.moves += 1

    def rounds(self, processes: list[str], rng: Random, number: int = 12) -> None:
        for _ in range(number):
            seen = list(self.leases)
            for process in rng.sample(processes, len(processes)):
                self.look(process, seen if rng.random() < 0.5 else list(self.leases))

    def check(self, processes: list[str]) -> None:
        held = Counter(each.owner for each in self.leases)
        assert None not in held
        assert held.keys() <= set(processes)
        counts = [held[each] for each in processes]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("seed", range(200))
def test_shares_are_equal_but_for_one_after_any_joins_and_leaves(seed):
    """Also when processes act on what they have read before others have acted."""
    rng = Random(seed)
    all_leases = Processes(rng.randint(1, 12))
    processes = ["a"]
    for n in range(6):
        all_leases.rounds(processes, rng)
        all_leases.check(processes)
        moves = all_leases.moves
        all_leases.rounds(processes, rng, 3)
        assert all_leases.moves == moves  # nothing moves without end
        if len(processes) > 1 and rng.random() < 0.4:
            all_leases.end(processes.pop(rng.randrange(len(processes))))
        else:
            processes.append(f"p{n}")
