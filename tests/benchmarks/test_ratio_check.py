"""`make bench-check` fails if a ratio is more than 20 % worse than the recorded one."""

from pathlib import Path

import pytest

from benchmarks.figures import Figure
from benchmarks.load_generator import Measurement
from benchmarks.runs.ratio_check import RATIO_NAMES, quiet_rounds, read_ratios, verdict
from benchmarks.runs.sides import Rounds
from benchmarks.runs.targets import Goal

RECORDED = dict.fromkeys(RATIO_NAMES, 2.0)
ROOT = Path(__file__).parents[2]


def measured(**changed):
    return {name: Figure(value, value, value) for name, value in {**RECORDED, **changed}.items()}


def worse(name, factor):
    """The recorded ratio, worse by a factor."""
    return 2.0 * factor if RATIO_NAMES[name].goal is Goal.AT_MOST else 2.0 / factor


def test_the_recorded_ratios_pass():
    assert verdict(RECORDED, measured()) == ""


@pytest.mark.parametrize("name", RATIO_NAMES)
def test_a_loss_of_more_than_20_percent_fails(name):
    assert verdict(RECORDED, measured(**{name: worse(name, 1.19)})) == ""
    assert RATIO_NAMES[name].what in verdict(RECORDED, measured(**{name: worse(name, 1.21)}))


@pytest.mark.parametrize("name", RATIO_NAMES)
def test_a_gain_passes(name):
    assert verdict(RECORDED, measured(**{name: worse(name, 0.5)})) == ""


def rounds(*noises):
    """Rounds of two sides, the first of which has a noise."""
    one, other = (
        [
            Measurement(runs=number, seconds=1.0, latencies=[], noise=noise)
            for number, noise in enumerate(each)
        ]
        for each in (noises, [0.0] * len(noises))
    )
    return Rounds({"one": one, "other": other})


def test_a_round_with_noise_on_one_side_does_not_count():
    quiet = quiet_rounds(rounds(0.1, 0.6, 0.2, 0.5))
    assert quiet is not None
    for measured in quiet.measurements.values():
        assert [each.runs for each in measured] == [0, 2, 3]


def test_too_few_quiet_rounds_are_not_compared():
    assert quiet_rounds(rounds(0.1, 0.1, 0.6, 0.6)) is None
    assert verdict(RECORDED, {}) == ""


def test_the_repository_has_each_ratio():
    assert read_ratios().keys() == RATIO_NAMES.keys()


def test_make_runs_it():
    assert "benchmarks.runs.ratio_check" in (ROOT / "Makefile").read_text()
