"""
Time to decide one run, in microseconds: `python -m benchmarks.decisions [--rounds 200]`.

The runs are place-order: one that completes in four decisions, and one whose last step is rejected,
which is compensated in six. Each decision is followed by the commands to send and the time to wake
up, as in the worker. The time of a run is the shortest of all rounds, which alternate.
"""

import argparse
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from examples.place_order.sagas import place_order
from saga_engine.decider.commands import commands_to_send, wake_at
from saga_engine.decider.decide import decide
from saga_engine.decider.run import Run
from saga_engine.decider.triggers import ReplyReceived, Start, Trigger
from saga_engine.vocabulary import Direction, Failure, Json, Outcome

RUNS_PER_ROUND = 20
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORDER: Json = {"order_id": "o-1", "sku": "A1", "quantity": 1, "amount": "10.00", "card": "ok"}


def _reply(step: str, direction: Direction, body: Json = None) -> ReplyReceived:
    return ReplyReceived(
        step=step, direction=direction, attempt=1, outcome=Outcome.SUCCEEDED, body=body
    )


_FORWARD = (
    Start("r-1", "k-1", ORDER),
    _reply("reserve", Direction.ACTION, {"reservation_id": "s-1"}),
    _reply("charge", Direction.ACTION, {"charge_id": "c-1"}),
)
_REJECTION = ReplyReceived(
    step="confirm",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.REJECTED,
    failure=Failure("closed"),
)
CASES: dict[str, Sequence[Trigger]] = {
    "completed": (*_FORWARD, _reply("confirm", Direction.ACTION, {"order_id": "o-1"})),
    "compensated": (
        *_FORWARD,
        _REJECTION,
        _reply("charge", Direction.COMPENSATION),
        _reply("reserve", Direction.COMPENSATION),
    ),
}


def _decide_run(triggers: Sequence[Trigger]) -> Run:
    run: Run | None = None
    for trigger in triggers:
        decision = decide(place_order, run, trigger, NOW)
        run = decision.run
        assert run is not None
        list(commands_to_send(run, decision.events))
        wake_at(place_order, run)
    assert run is not None
    return run


def measure(rounds: int) -> None:
    """Print the time of one run of each case."""
    best = dict.fromkeys(CASES, float("inf"))
    for _ in range(rounds):
        for status, triggers in CASES.items():
            before = time.perf_counter()
            runs = [_decide_run(triggers) for _ in range(RUNS_PER_ROUND)]
            seconds = (time.perf_counter() - before) / RUNS_PER_ROUND
            assert {run.status for run in runs} == {status}
            best[status] = min(best[status], seconds)
    for status, triggers in CASES.items():
        figures = {"decisions": len(triggers), "us_per_run": round(best[status] * 1e6, 1)}
        print(json.dumps({"case": status, **figures}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    measure(parser.parse_args().rounds)
