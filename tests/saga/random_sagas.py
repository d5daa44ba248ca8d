"""Sound sagas of any shape, for the property tests."""

import inspect
from collections.abc import Sequence
from datetime import timedelta

from hypothesis import strategies as st

from saga_engine import Retry, Saga
from saga_engine.saga.rules import check

BROKEN: set[str] = set()
"""The steps whose mapping functions raise just now; the tests break and mend them."""

delays = st.sampled_from([timedelta(), timedelta(seconds=1), timedelta(seconds=5)])
timeouts = st.sampled_from([timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=20)])
retries = st.builds(
    Retry,
    attempts=st.integers(1, 3),
    initial=delays,
    maximum=st.just(timedelta(seconds=10)),
    factor=st.sampled_from([1, 2.5]),
    jitter=st.sampled_from([0, 0.5, 1]),
)


def mapping(name: str, needs: dict[str, type]):
    """A mapping function of that name, with a parameter for each reply it needs."""

    def function(**values: object) -> dict:
        if name in BROKEN:
            raise LookupError(name)
        return {"from": sorted(values)}

    plain = inspect.Parameter.KEYWORD_ONLY
    function.__name__ = name
    function.__annotations__ = {"order": dict, **needs, "return": dict}
    function.__signature__ = inspect.Signature(
        [inspect.Parameter(each, plain) for each in ("order", *needs)]
    )
    return function


@st.composite
def sagas(draw: st.DrawFn) -> Saga:
    """Up to seven steps in a row or as a graph, with or without a pivot, some read-only."""
    deadline = draw(st.sampled_from([None, None, timedelta(seconds=60), timedelta(seconds=2)]))
    saga = Saga("random", version=1, input=dict, deadline=deadline)
    before = [f"a{n}" for n in range(draw(st.sampled_from([2, 3, 4, 1, 0])))]
    for n, name in enumerate(before):
        after = draw(st.sampled_from([None, []])) if n == 0 else _some(draw, before[:n])
        _add(draw, saga, name, after)
    if not before or draw(st.booleans()):
        _add(draw, saga, "pivot", before, pivot=True)
        behind = [f"z{n}" for n in range(draw(st.integers(0, 2)))]
        for n, name in enumerate(behind):
            _add(draw, saga, name, ["pivot", *_some(draw, behind[:n])], undo=False)
    check(saga)
    return saga


def _some(draw: st.DrawFn, names: Sequence[str]) -> list[str]:
    return [name for name in names if draw(st.booleans())]


def _add(
    draw: st.DrawFn,
    saga: Saga,
    name: str,
    after: Sequence[str] | None,
    *,
    pivot: bool = False,
    undo: bool = True,
) -> None:
    read_only = draw(st.sampled_from([False, False, False, True]))
    needs = {}
    for earlier in _ancestors(saga, after or ()):
        if draw(st.sampled_from([False, False, True])):
            needs[earlier] = draw(st.sampled_from([int, int | None]))
    step = saga.step(
        command=f"do.{name}",
        reply=int,
        timeout=draw(timeouts),
        retry=draw(retries),
        after=after,
        pivot=pivot,
        read_only=read_only,
    )(mapping(name, needs))
    if undo and not read_only and (not pivot or draw(st.booleans())):
        own = {name: int | None} if draw(st.booleans()) else {}
        step.compensation(command=f"undo.{name}", timeout=draw(timeouts), retry=draw(retries))(
            mapping(name, needs | own)
        )


def _ancestors(saga: Saga, after: Sequence[str]) -> list[str]:
    found = set(after)
    for name in reversed(list(saga.steps)):
        if name in found:
            found.update(saga.steps[name].after or ())
    return sorted(found)
