import json
from datetime import timedelta
from uuid import uuid4

from saga_engine.store import pending_requests
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest, RequestKind
from tests.kit.command_line import saga_engine

START_DELAY = timedelta(seconds=5)
"""How long the start is delayed; longer than the command takes to send its request."""

ANN = '{"name": "Ann"}'


async def test_start_with_wait_prints_one_document_with_the_result(engine):
    ran = await engine("start", "greet", "--input", ANN, "--key", "a", "--wait", "--json")
    assert ran.exit_code == 0, ran.err
    document = ran.json
    assert document["run_id"]
    assert {
        name: document[name] for name in document if name not in ("run_id", "schema_version")
    } == {
        "saga": "greet",
        "version": 1,
        "key": "a",
        "status": "completed",
        "result": {"say": {"said": "Hello, Ann"}},
        "error": None,
        "existing": False,
    }


async def test_a_compensated_run_exits_6_with_the_reason(engine):
    ran = await engine("start", "greet", "--input", '{"name": "unknown"}', "--wait", "--json")
    assert ran.exit_code == 6
    assert ran.json["status"] == "compensated"
    assert ran.json["error"]["code"] == "unknown_name"
    waited = await engine("wait", ran.json["run_id"])
    assert (waited.exit_code, waited.out) == (6, f"{ran.json['run_id']} compensated\n")
    assert "unknown_name: There is no such person." in waited.err


async def test_start_prints_the_run_id_and_the_same_key_the_same_id(engine):
    first = await engine.start_run("greet", "Ann", "--key", "a")
    again = await engine("start", "greet", "--input", ANN, "--key", "a", "--json")
    assert (again.json["run_id"], again.json["existing"]) == (first, True)


async def test_an_invalid_start_is_one_sentence_with_its_exit_code(engine):
    unknown = await engine("start", "greets", "--input", ANN)
    assert (unknown.exit_code, "No worker has ever loaded saga 'greets'" in unknown.err) == (
        3,
        True,
    )
    wrong = await engine("start", "greet", "--input", '{"name": 7}')
    assert (wrong.exit_code, "name: string_type" in wrong.err) == (2, True)
    await engine.start_run("greet", "Ann", "--key", "a")
    conflict = await engine("start", "greet", "--input", '{"name": "Bob"}', "--key", "a")
    assert (conflict.exit_code, "with another input" in conflict.err) == (4, True)
    large = await engine("start", "greet", "--input", "-", stdin=json.dumps({"name": "x" * 10**6}))
    assert (large.exit_code, "max_body_bytes allows 262144" in large.err) == (2, True)
    for ran in (unknown, wrong, conflict, large):
        assert ran.out == ""
        assert len(ran.err.splitlines()) == 1


async def test_wait_times_out_with_124_and_the_run_goes_on(engine):
    run_id = await engine.start_run("held")
    ran = await engine("wait", run_id, "--timeout", 0.3)
    assert ran.exit_code == 124
    assert "it goes on" in ran.err
    engine.greeter.may_finish.set()
    assert (await engine("wait", run_id)).exit_code == 0


async def test_wait_waits_for_an_accepted_start(engine):
    run_id = str(uuid4())
    start = NewRequest(
        kind=RequestKind.START,
        run_id=run_id,
        body={"input": {"name": "Ann"}},
        saga="greet",
        delay=START_DELAY,
    )
    settings = engine.settings
    async with Database(settings.require_database_url(), settings) as database:
        async with database.transaction() as tx:
            await pending_requests.record(tx, [start])
        ran = await engine("wait", run_id)
    assert (ran.exit_code, ran.out) == (0, f"{run_id} completed\n"), ran.err


async def test_waiting_for_an_unknown_run_exits_3(engine):
    ran = await engine("wait", uuid4())
    assert (ran.exit_code, "There is no run" in ran.err) == (3, True)


async def test_an_unusable_broker_is_one_sentence(rabbitmq_url):
    none = await saga_engine("start", "greet", "--input", ANN)
    assert (none.exit_code, "SAGA_ENGINE_BROKER_URL is not set" in none.err) == (2, True)
    unused = await saga_engine(
        "start", "greet", "--input", ANN, broker_url=rabbitmq_url, client_timeout="1"
    )
    assert (unused.exit_code, "No worker has ever run on this broker" in unused.err) == (5, True)
    unreachable = await saga_engine(
        "start", "greet", "--input", ANN, broker_url="amqp://127.0.0.1:1/"
    )
    assert (unreachable.exit_code, "out of reach" in unreachable.err) == (5, True)
    wrong = rabbitmq_url.replace("guest:guest", "guest:secret7")
    refused = await saga_engine("start", "greet", "--input", ANN, broker_url=wrong)
    assert (refused.exit_code, "refuses this user or password" in refused.err) == (2, True)
    assert "secret7" not in refused.err
    for ran in (none, unused, unreachable, refused):
        assert len(ran.err.splitlines()) == 1
