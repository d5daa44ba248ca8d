"""A participant is unavailable for ten minutes: only its own commands wait."""

import pytest

from examples.place_order.effect_log import count_effects
from saga_engine.protocol.topology import participant_queue
from tests.kit.figures import print_table
from tests.kit.load_environment import LoadEnvironment, load_environment
from tests.kit.programs import sleep

PAYMENTS = participant_queue("payments")
RUNS = 50


async def run_outage(
    load: LoadEnvironment, url, seconds, *, copies_max, environment: dict[str, str]
):
    """Stop the payments participant, keep starting runs, and start the participant again."""
    load.environment.update(environment)
    await load.start_worker("tests.load.outage_sagas")
    services = "examples.place_order.services"
    await load.start_participant(f"{services}:inventory", name="inventory")
    payments = await load.start_participant(f"{services}:payments", name="payments")
    assert await payments.terminate() == 0  # its queue exists from now on
    durations = await measure_other_runs(load, seconds)
    [(waiting,)] = await load.query(
        "SELECT count(*) FROM saga_engine.run WHERE finished_at IS NULL"
    )
    depth = (await load.queue_depths(PAYMENTS))[PAYMENTS]
    started_at = load.clock()
    await load.start_participant(f"{services}:payments", name="payments-again")
    await load.wait_for_all_ended(patience=120)
    ended = await load.ended_by_status("patient-order")
    figures = {
        "runs that need it": RUNS,
        "of them in flight": waiting,
        "copies in its queue": depth,
        "copies of each": round(depth / waiting, 1),
        "other runs meanwhile": len(durations),
        "slowest of those, s": round(max(durations), 2),
        "seconds to finish afterwards": round(load.clock() - started_at, 1),
        **ended,
    }
    print_table(f"A participant unavailable for {seconds} s", figures)
    assert waiting <= depth <= waiting * copies_max
    assert dict(ended) == {"completed": RUNS}
    assert len(durations) > 5
    for order_id, effects in (await count_effects(url)).items():
        assert set(effects.values()) == {1}, f"P4: {order_id} {effects}"


async def measure_other_runs(load: LoadEnvironment, seconds):
    """Start runs that must wait, then others one by one; the durations of the others."""
    durations: list[float] = []
    await load.start_runs(RUNS, saga="patient-order")
    until = load.clock() + seconds
    while load.clock() < until:
        started_at = load.clock()
        await load.start_runs(1, saga="reserve-only")
        await load.wait_for_ended("reserve-only", len(durations) + 1)
        durations.append(load.clock() - started_at)
        await sleep(0.2)
    return durations


@pytest.mark.rabbitmq
@pytest.mark.timeout(1800)
async def test_a_ten_minute_outage_of_a_participant_delays_only_its_own_runs(
    rabbitmq_url, migrated_url, tmp_path
):
    """
    A command is sent again every 78 to 90 s: a timeout of 30 s, and a backoff of 60 s with jitter.

    That is 7 or 8 copies in ten minutes; a ninth is due after 624 s, when a busy machine may still
    count.
    """
    async with load_environment(migrated_url, rabbitmq_url, tmp_path) as load:
        await run_outage(load, migrated_url, 600, copies_max=9, environment={})
