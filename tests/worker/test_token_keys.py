"""Token keys: tokens are signed with a key that can be rotated, and are not stored."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from sqlalchemy import text

from saga_engine.cli.redrive import rebuild_message
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.message import Message
from saga_engine.protocol.token import redact_token, sign_token, verify_token
from saga_engine.store import dead_letter_actions, engine_identity
from saga_engine.store.sql_store import SqlStore
from saga_engine.telemetry.events import Emitter, MessageDeadLettered
from saga_engine.vocabulary import Status
from saga_engine.worker import token_keys
from saga_engine.worker.token_keys import TokenKeyReader
from tests.kit.engine import forge_token, no_reply, succeed

NOW = timedelta()


async def rotate(engine):
    """Rotate the keys; return the one that signs from now on."""
    async with engine.database.transaction() as tx:
        assert await engine_identity.rotate_token_key(tx, NOW) is not None
        return (await engine_identity.token_keys(tx)).signing


async def signed_with(key, client, participant):
    """Start runs until a command is signed with that key."""
    participant.reply_makers["parcel.pack"] = no_reply
    for _ in range(1000):
        await client.start()
        count = participant.command_names.count("parcel.pack") + 1
        command = (await participant.wait_for_commands("parcel.pack", count - 1 or 1))[-1]
        if verify_token(key, command.correlation_id):
            return command
    raise AssertionError("the worker has not read the new key")


async def test_a_running_worker_uses_a_new_key_and_accepts_the_previous_one(engine):
    worker = await engine.start_worker(maintenance_interval=0.02)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    before = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    key = await rotate(engine)
    assert verify_token(key, command.correlation_id) is None
    later = await signed_with(key, client, participant)
    await participant.publish(*succeed(command), *succeed(later))
    assert await worker.events.wait_for_end(before) == Status.COMPLETED
    await participant.wait_for_commands("parcel.send", 2)
    assert not worker.events.matching(MessageDeadLettered)


async def test_a_reply_signed_two_keys_ago_costs_a_retry(engine):
    worker = await engine.start_worker(maintenance_interval=0.02)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    await rotate(engine)
    await signed_with(await rotate(engine), client, participant)
    await participant.publish(*succeed(command))
    letter = await worker.events.wait_for_dead_letter("uncorrelated_reply")
    assert letter.correlation_id == redact_token(command.correlation_id) != command.correlation_id


async def test_no_digest_of_a_token_is_stored_or_emitted(engine):
    worker = await engine.start_worker(authorized_reply_users={"parcel.notify": ["another"]})
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.notify"] = succeed
    await client.start()
    await participant.wait_for_commands("parcel.notify")
    correlation_id = participant.received[0].correlation_id
    await engine.publish_raw(b"{", correlation_id=correlation_id)
    for reason in ("unauthorized_sender", "malformed_json"):
        await worker.events.wait_for_dead_letter(reason)
    digests = {each.correlation_id.partition(".")[0] for each in participant.received}
    assert not [each for each in worker.events if any(one in repr(each) for one in digests)]
    async with engine.database.transaction() as tx:
        tables = await tx.execute(
            text("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'"
                 " AND relnamespace = 'saga_engine'::regnamespace")
        )  # fmt: skip
        for table in list(tables.scalars()):
            query = text(f"SELECT count(*) FROM {table} AS r WHERE r::text LIKE ANY (:digests)")
            found = await tx.execute(query, {"digests": [f"%{each}%" for each in digests]})
            assert found.scalar_one() == 0, table


async def test_a_dead_lettered_reply_is_redriven_with_the_current_key(engine):
    strict = await engine.start_worker(authorized_reply_users={"parcel.notify": ["desk"]})
    participant, client = await engine.start_participant(), await engine.connect_client()
    run_id = await client.start()
    await strict.events.wait_for_dead_letter("unauthorized_sender", run_id=run_id)
    [command] = await participant.wait_for_commands("parcel.notify")
    await engine.publish_raw(b"{}", correlation_id=forge_token(command))
    await strict.events.wait_for_dead_letter("uncorrelated_reply")
    await strict.stop()
    await rotate(engine)
    await rotate(engine)
    async with engine.database.transaction() as tx:
        letters = {
            each.message.reason: rebuild_message(each)
            for each in await dead_letter_actions.lock_open(tx, [1, 2])
        }
    foreign = letters[DeadLetterReason.UNCORRELATED_REPLY]
    assert isinstance(foreign, Message), foreign
    assert foreign.correlation_id == forge_token(command), (
        "it is unknown whether the engine has signed it"
    )
    worker = await engine.start_worker()
    await participant.publish(
        letters[DeadLetterReason.UNCORRELATED_REPLY], letters[DeadLetterReason.UNAUTHORIZED_SENDER]
    )
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await worker.events.wait_for_dead_letter("uncorrelated_reply")


async def test_a_token_of_a_new_key_is_accepted_before_the_next_maintenance(engine):
    """Another worker has read a rotated key and signs with it; this one has not."""
    worker = await engine.start_worker(maintenance_interval=3600.0)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    async with engine.database.transaction() as tx:
        ref = verify_token((await engine_identity.token_keys(tx)).signing, command.correlation_id)
    assert ref is not None
    token = sign_token(await rotate(engine), ref)
    await participant.publish(*[replace(reply, correlation_id=token) for reply in succeed(command)])
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert not worker.events.matching(MessageDeadLettered)


async def test_a_flood_of_forged_tokens_reads_the_keys_once_a_second(engine, monkeypatch):
    outbox_publisher: Any = SimpleNamespace()
    async with engine.database.transaction() as tx:
        outbox_publisher.token_keys = before = await engine_identity.token_keys(tx)
    reader = TokenKeyReader(SqlStore(engine.database), outbox_publisher, Emitter())
    monkeypatch.setattr(token_keys, "MIN_READ_INTERVAL", 3600.0)
    assert not await reader.refresh_if_unchanged(before)
    key = await rotate(engine)
    assert not await reader.refresh_if_unchanged(before), "the keys were just read"
    monkeypatch.setattr(token_keys, "MIN_READ_INTERVAL", 0.0)
    assert await reader.refresh_if_unchanged(before)
    assert outbox_publisher.token_keys.signing == key
