"""The identity of the engine, and the rotation of its token key."""

from datetime import timedelta
from uuid import uuid4

from sqlalchemy import text

from saga_engine.protocol.token import CommandRef, new_signing_key, redact_token, sign_token
from saga_engine.store import engine_identity
from saga_engine.store.database import Database
from saga_engine.vocabulary import Direction


async def test_all_workers_read_the_same_token_key_and_engine_id(database: Database):
    async with database.transaction() as tx:
        first = await engine_identity.token_keys(tx), await engine_identity.engine_id(tx)
    async with database.transaction() as tx:
        assert (await engine_identity.token_keys(tx), await engine_identity.engine_id(tx)) == first
    assert first[0].accepted == (first[0].signing,)
    assert len(first[0].signing) == engine_identity.TOKEN_KEY_BYTES


async def test_a_new_token_key_signs_after_its_delay_and_the_previous_one_is_accepted(
    database: Database,
):
    hour, now = timedelta(hours=1), timedelta()
    async with database.transaction() as tx:
        [first] = (await engine_identity.token_keys(tx)).accepted
        assert await engine_identity.rotate_token_key(tx, hour) is not None
        waiting = await engine_identity.token_keys(tx)
        assert await engine_identity.rotate_token_key(tx, now) is None, (
            "the last one does not sign yet"
        )
        await tx.execute(
            text("UPDATE saga_engine.engine_identity SET token_key_active_from = '-infinity'")
        )
        second = await engine_identity.token_keys(tx)
        assert await engine_identity.rotate_token_key(tx, now) is not None
        third = await engine_identity.token_keys(tx)
    assert (waiting.signing, waiting.accepted[1]) == (first, first)
    assert second.accepted == waiting.accepted
    assert second.signing == waiting.accepted[0] != first
    assert third.accepted == (third.signing, second.signing), "the first is accepted no more"
    assert first.hex() not in repr(third) + repr(second)


async def test_a_token_key_that_workers_may_still_sign_with_is_not_rotated_out(database: Database):
    """A worker that has not read the key of the last rotation yet signs with the one before."""
    two, ago = (
        timedelta(minutes=2),
        text(
            "UPDATE saga_engine.engine_identity"
            " SET token_key_active_from = clock_timestamp() - interval '90 s'"
        ),
    )
    async with database.transaction() as tx:
        await engine_identity.rotate_token_key(tx, two)
        await tx.execute(ago)
        before = await engine_identity.token_keys(tx)
        assert await engine_identity.rotate_token_key(tx, two) is None
        assert await engine_identity.token_keys(tx) == before
        at, now = (
            await tx.execute(
                text("SELECT token_key_active_from, now() FROM saga_engine.engine_identity")
            )
        ).one()
        assert await engine_identity.next_rotation_at(tx, two) == at + two > now
        assert await engine_identity.rotate_token_key(tx, two - timedelta(seconds=31)) is not None


async def test_the_database_signs_tokens_as_the_engine_does(database: Database):
    key, ref = new_signing_key(), CommandRef(str(uuid4()), "charge-é", Direction.COMPENSATION, 12)
    async with database.transaction() as tx:
        signed = await tx.execute(
            text("SELECT saga_engine.sign_token(:key, :said)"),
            {"key": key, "said": redact_token(sign_token(key, ref))},
        )
    assert signed.scalar_one() == sign_token(key, ref)
