"""What docs/protocol.md says a participant remembers, the barrier of the kit remembers."""

from pathlib import Path

from saga_engine.vocabulary import Outcome
from tests.kit.payments_participant import direct_executor, ledger_engine, ledger_rows, make_command

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "protocol.md").read_text().split())


async def test_a_failed_is_not_remembered_and_the_same_key_is_performed_when_it_comes_again(
    database_url,
):
    assert (
        "Remember `succeeded` and `rejected`; a `failed` is not remembered: the engine sends the"
        " same key again because it wants the command tried again."
    ) in PAGE
    async with ledger_engine(database_url) as engine, direct_executor(engine) as (_, desk):
        broken = make_command(payload={"order_id": "o-1", "card": "broken"})
        outcomes = [(await desk(broken))[0] for _ in range(2)]
        assert outcomes == [Outcome.FAILED] * 2
        mended = make_command(broken.run_id, attempt=2)
        assert (await desk(mended))[0] is Outcome.SUCCEEDED
        again = await desk(make_command(broken.run_id, attempt=3))
        assert again == await desk(mended)
        assert await ledger_rows(engine) == [("o-1", 1)]
