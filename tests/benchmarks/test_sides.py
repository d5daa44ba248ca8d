"""Sides take turns, and only rounds are compared."""

from benchmarks.load_generator import SUCCESS, Measurement, Workload
from benchmarks.runs.sides import IN_FLIGHT, Segment, runs_per_s, take_turns


class CountedSide:
    """A side whose throughput is given; it records its turns."""

    def __init__(self, name, turns, seconds):
        self._name, self._turns, self._seconds = name, turns, iter(seconds)

    async def measure(
        self, runs: int, *, max_in_flight: int, workload: Workload = SUCCESS
    ) -> Measurement:
        assert (max_in_flight, workload) == (IN_FLIGHT, SUCCESS)
        self._turns.append(self._name)
        return Measurement(runs=runs, seconds=next(self._seconds), latencies=[1.0])


async def test_the_next_round_is_in_the_reverse_order():
    turns: list[str] = []
    segments = [
        Segment(name=name, side=CountedSide(name, turns, [1, 1, 1]), runs=1) for name in "ab"
    ]
    await take_turns(segments, 3)
    assert "".join(turns) == "abbaab"


async def test_a_ratio_compares_the_sides_of_the_same_round():
    turns: list[str] = []
    one = CountedSide("one", turns, [1, 10, 100])  # the machine becomes slower
    other = CountedSide("other", turns, [2, 20, 200])
    measured = await take_turns(
        [Segment(name="one", side=one, runs=100), Segment(name="other", side=other, runs=100)], 3
    )
    ratio = measured.ratio("one", "other", runs_per_s)
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 2.0)
