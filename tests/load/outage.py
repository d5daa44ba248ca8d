"""A participant is away for ten minutes: its commands wait, the others do not."""

import pytest

from examples.place_order.effect_log import count_effects
from saga_engine.protocol.topology import participant_queue
from tests.kit.load_environment import load_environment, print_table
from tests.kit.programs import sleep

PAYMENTS = participant_queue("payments")
RUNS = 50


async def run_outage(load, url, seconds, *, copies_max, environment):
    """Stop the payments, ask for orders and reservations all the time, bring them back."""
    load.environment.update(environment)
    await load.worker("tests.load.outage_sagas")
    services = "examples.place_order.services"
    await load.participant(f"{services}:inventory", name="inventory")
    payments = await load.participant(f"{services}:payments", name="payments")
    assert await payments.drain() == 0  # its queue is there from now on
    waited = await measure_other_runs(load, seconds)
    [(begun,)] = await load.ask("SELECT count(*) FROM saga_engine.run WHERE finished_at IS NULL")
    depth = (await load.depths(PAYMENTS))[PAYMENTS]
    began = load.clock()
    await load.participant(f"{services}:payments", name="payments-again")
    await load.all_ended(patience=120)
    ended = await load.ended("patient-order")
    figures = {
        "runs that need it": RUNS,
        "of them under way": begun,
        "copies in its queue": depth,
        "copies of each": round(depth / begun, 1),
        "other runs meanwhile": len(waited),
        "slowest of those, s": round(max(waited), 2),
        "seconds to settle afterwards": round(load.clock() - began, 1),
        **ended,
    }
    print_table(f"A participant away for {seconds} s", figures)
    assert begun <= depth <= begun * copies_max
    assert dict(ended) == {"completed": RUNS}
    assert len(waited) > 5
    for order_id, done in (await count_effects(url)).items():
        assert set(done.values()) == {1}, f"P4: {order_id} {done}"


async def measure_other_runs(load, seconds):
    """Ask for what must wait, and for that long one by one for what need not; what those took."""
    waited: list[float] = []
    await load.start(RUNS, saga="patient-order")
    until = load.clock() + seconds
    while load.clock() < until:
        began = load.clock()
        await load.start(1, saga="reserve-only")
        await load.ends("reserve-only", len(waited) + 1)
        waited.append(load.clock() - began)
        await sleep(0.2)
    return waited


@pytest.mark.rabbitmq
@pytest.mark.timeout(1800)
async def test_a_participant_that_is_away_for_ten_minutes_holds_up_its_own_runs_only(
    rabbitmq_url, migrated_url, tmp_path
):
    """
    Sent again after 78 to 90 s each time: 30 to time out, and a lasting of 60 less its jitter.

    Those are 7 or 8 copies in ten minutes; a ninth is due after 624 s, when a busy machine may
    still be counting.
    """
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as place:
        await run_outage(place, migrated_url, 600, copies_max=9, environment={})
