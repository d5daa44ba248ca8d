"""The command line with keys: it encrypts what it sends, and decrypts only on request."""

import json

import pytest

from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.telemetry.events import IncidentOpened, RunFinished
from tests.encryption.card_saga import SECRET, all_written_rows, contains_secret, record_all_writes
from tests.kit.command_line import CliEngine, saga_engine
from tests.kit.encryption_keys import encryption_settings, keys_setting
from tests.kit.greeter import run_services, service, worker

KEYS = {"payload_codec": "aes-gcm", "payload_encryption_keys": keys_setting("k1")}
WHY = ("--reason", "seen on the phone", "--operator", "ann")


class EncryptingEngine(CliEngine):
    """A running engine, and its database."""

    database: Database


@pytest.fixture
async def engine(rabbitmq_url, migrated_url):
    own = Settings(
        database_url=migrated_url,
        broker_url=rabbitmq_url,
        poll_interval=0.02,
        **encryption_settings("k1"),
    )
    made = EncryptingEngine(own)
    async with (
        Database(migrated_url, own) as database,
        worker(own, made.events) as working,
        service(own, made.greeter) as serving,
        run_services(working, serving),
    ):
        made.database = database
        yield made
        made.greeter.may_finish.set()


async def test_a_start_is_encrypted_and_decrypted_only_on_request(engine):
    await record_all_writes(engine.database)
    given = json.dumps({"name": SECRET})
    ran = await engine("start", "greet", "--input", given, "--wait", "--json", **KEYS)
    assert ran.json["result"] == {"say": {"said": f"Hello, {SECRET}"}}, ran.err
    run_id = ran.json["run_id"]
    for keys in ({}, KEYS):
        shown = await engine("show", run_id, "--json", **keys)
        assert not contains_secret([shown.out])
    decrypted = (await engine("show", run_id, "--decrypt", "--json", **KEYS)).json
    assert decrypted["input"]["name"] == SECRET
    assert decrypted["result"]["say"] == decrypted["steps"][0]["reply"]
    assert not contains_secret([json.dumps(decrypted["journal"])])
    keyless = (await engine("show", run_id, "--decrypt", "--json")).json
    assert keyless["input"].keys() == {"$encrypted"}
    for table, rows in (await all_written_rows(engine.database)).items():
        assert not contains_secret(rows), table


async def test_a_rejection_is_decrypted_only_on_request(engine):
    ran = await engine("start", "greet", "--input", '{"name": "unknown"}', "--wait", **KEYS)
    assert (ran.exit_code, "unknown_name: There is no such person." in ran.err) == (6, True)
    run_id = ran.out.split()[0]
    assert "There is no such person" not in (await engine("show", run_id, **KEYS)).out
    assert "There is no such person." in (await engine("show", run_id, "--decrypt", **KEYS)).out


@pytest.mark.parametrize("keys", [KEYS, {}])
async def test_a_manually_given_result_is_encrypted(engine, keys):
    ran = await engine("start", "stuck", "--input", '{"name": "Ann"}', **KEYS)
    run_id = ran.out.strip()
    await engine.events.wait_for_next(IncidentOpened)
    await record_all_writes(engine.database)
    result = ("--result", json.dumps({"said": SECRET}))
    done = await engine("resolve", f"{run_id}/1", "complete", *result, *WHY, **keys)
    assert done.exit_code == 0, done.err
    await engine.events.wait_for_next(RunFinished)
    shown = (await engine("show", run_id, "--decrypt", "--json", **KEYS)).json
    assert shown["result"]["lose"] == {"said": SECRET}
    written = await all_written_rows(engine.database)
    tables = (
        written if keys else written.keys() - {"saga_engine.pending_request"}
    )  # where it waits as given
    assert not any(contains_secret(written[table]) for table in tables)


async def test_the_runs_that_a_key_is_needed_for_are_listed(engine):
    run_id = (await engine("start", "greet", "--input", '{"name": "Ann"}', **KEYS)).out.strip()
    await engine.events.wait_for_next(RunFinished)
    found = (await engine("list", "--encrypted-with", "k1", "--json")).json["runs"]
    assert [each["run_id"] for each in found] == [run_id]
    for others in (("--encrypted-with", "k2"), ("--encrypted-with", "k1", "--status", "running")):
        assert (await engine("list", *others, "--json")).json["runs"] == []


async def test_the_settings_are_shown_without_the_keys():
    for flags in ((), ("--json",)):
        ran = await saga_engine("config", "show", *flags, **KEYS)
        assert ran.exit_code == 0, ran.err
        assert keys_setting("k1").partition("=")[2] not in ran.out
        assert "***" in ran.out


async def test_an_unusable_codec_is_reported_before_anything_runs(engine):
    for command in (
        ("worker", "examples.place_order.sagas"),
        ("participant", "examples.place_order.services"),
        ("start", "greet", "--input", "{}"),
    ):
        ran = await engine(*command, payload_codec="aes-gcm")
        assert (ran.exit_code, "SAGA_ENGINE_PAYLOAD_ENCRYPTION_KEYS is not set" in ran.err) == (
            2,
            True,
        ), ran.err
