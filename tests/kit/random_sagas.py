"""Valid sagas of any shape, for the property tests and the simulation."""

import inspect
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import strategies as st

from saga_engine import Retry, Saga
from saga_engine.saga.rules import check

RAISING_STEPS: set[str] = set()
"""The steps whose mapping functions raise now; the tests break and fix them."""

DELAYS = [timedelta(), timedelta(seconds=1), timedelta(seconds=5)]
TIMEOUTS = [timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=20)]
FIRST_STEP_AFTER: list[list[str] | None] = [None, []]
DEADLINES = [None, None, timedelta(seconds=60), timedelta(seconds=2)]


def mapping(name: str, parameters: dict[str, Any]) -> Callable[..., dict]:
    """A mapping function of that name, with a parameter for each reply it needs."""

    def function(**values: object) -> dict:
        if name in RAISING_STEPS:
            raise LookupError(name)
        return {"from": sorted(values)}

    plain = inspect.Parameter.KEYWORD_ONLY
    function.__name__ = name
    function.__annotations__ = {"order": dict, **parameters, "return": dict}
    made: Any = function  # a function has no such attribute until one is set
    made.__signature__ = inspect.Signature(
        [inspect.Parameter(each, plain) for each in ("order", *parameters)]
    )
    return function


@st.composite
def sagas(draw: st.DrawFn) -> Saga:
    """A `random_saga` that hypothesis draws and shrinks."""
    return random_saga(draw(st.randoms(use_true_random=False)))


def random_saga(rng: Random, name: str = "random", version: int = 1) -> Saga:
    """Up to seven steps in sequence or as a graph, with or without a pivot, some read-only."""
    saga = Saga(name, version=version, input=dict, deadline=rng.choice(DEADLINES))
    before = [f"a{n}" for n in range(rng.choice([2, 3, 4, 1, 0]))]
    for n, step in enumerate(before):
        after: list[str] | None = (
            rng.choice(FIRST_STEP_AFTER) if n == 0 else _subset(rng, before[:n])
        )
        _add_step(rng, saga, step, after)
    if not before or _flip(rng):
        _add_step(rng, saga, "pivot", before, pivot=True)
        behind = [f"z{n}" for n in range(rng.randint(0, 2))]
        for n, step in enumerate(behind):
            _add_step(rng, saga, step, ["pivot", *_subset(rng, behind[:n])], compensated=False)
    check(saga)
    return saga


def _flip(rng: Random) -> bool:
    return rng.choice([False, True])


def _subset(rng: Random, names: Sequence[str]) -> list[str]:
    return [name for name in names if _flip(rng)]


def _retry(rng: Random) -> Retry:
    return Retry(
        attempts=rng.randint(1, 3),
        initial=rng.choice(DELAYS),
        maximum=timedelta(seconds=10),
        factor=rng.choice([1, 2.5]),
        jitter=rng.choice([0, 0.5, 1]),
    )


def _add_step(
    rng: Random,
    saga: Saga,
    name: str,
    after: Sequence[str] | None,
    *,
    pivot: bool = False,
    compensated: bool = True,
) -> None:
    read_only = rng.choice([False, False, False, True])
    needs = {}
    for earlier in _ancestors(saga, after or ()):
        if rng.choice([False, False, True]):
            needs[earlier] = rng.choice([int, int | None])
    commands = saga.name if saga.version == 1 else f"{saga.name}.v{saga.version}"
    step = saga.step(
        command=f"{commands}.do.{name}",
        reply=int,
        timeout=rng.choice(TIMEOUTS),
        retry=_retry(rng),
        after=after,
        pivot=pivot,
        read_only=read_only,
    )(mapping(name, needs))
    if compensated and not read_only and (not pivot or _flip(rng)):
        own = {name: int | None} if _flip(rng) else {}
        step.compensation(
            command=f"{commands}.undo.{name}", timeout=rng.choice(TIMEOUTS), retry=_retry(rng)
        )(mapping(name, needs | own))


def _ancestors(saga: Saga, after: Sequence[str]) -> list[str]:
    found = set(after)
    for name in reversed(list(saga.steps)):
        if name in found:
            found.update(str(each) for each in saga.steps[name].after or ())
    return sorted(found)
