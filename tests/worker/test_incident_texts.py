"""The text of an incident contains no value of a payload."""

import json

import pytest
from pydantic import BaseModel

from saga_engine.protocol.reply import encode_reply
from saga_engine.saga.definition import Saga
from saga_engine.vocabulary import Outcome
from tests.kit.command_line import saga_engine
from tests.kit.encryption_keys import encryption_settings
from tests.kit.secret_leaks import find_leaks, make_canary

CODECS = {"without a codec": {}, "with a codec": encryption_settings("k1")}


class Card(BaseModel):
    number: int


def quotes_its_input(parcel):
    """Raise a ValidationError, whose text quotes the value."""
    return {"card": str(Card(number=parcel["card"]).number)}


def raises_its_input(parcel):
    raise RuntimeError(parcel["card"])


def returns_what_cannot_travel(parcel):
    return {parcel["card"]: float("nan")}


def fails_deeper(parcel):
    try:
        return quotes_its_input(parcel)
    except ValueError as error:
        raise KeyError(str(error)) from error


def fits(_parcel):
    return {"card": 1}


def saga_with(mapping):
    saga = Saga("parcel", version=1, input=dict[str, str])

    @saga.step(command="parcel.pack", reply=Card)
    def pack(parcel: dict[str, str]) -> dict[str, float]:
        found: dict[str, float] = mapping(parcel)
        return found

    @pack.compensation(command="parcel.unpack")
    def unpack(parcel: dict[str, str]) -> dict[str, str]:
        return parcel

    return saga


async def texts_of(engine, run_id, codec_settings):
    """What the command line shows of the incident and of the journal."""
    url = {"database_url": engine.database_url}
    listed = await saga_engine("incidents", "--json", **url, **codec_settings)
    table = await saga_engine("incidents", **url, **codec_settings)
    grouped = await saga_engine(
        "incidents", "--group-by", "cause", "--json", **url, **codec_settings
    )
    shown = (await saga_engine("show", run_id, "--json", **url, **codec_settings)).json
    journal = [json.dumps(each) for each in shown["journal"]]
    opened = [each for each in journal if "incident_opened" in each]
    assert listed.json["incidents"]
    assert opened
    said = {
        "incidents --json": listed.out,
        "incidents": table.out,
        "incidents --group-by cause": grouped.out,
        "the journal": "\n".join(opened),
        "the incidents of show": json.dumps(shown["incidents"]),
    }
    return said, "\n".join(journal)


@pytest.mark.parametrize(
    "codec", ["without a codec", pytest.param("with a codec", marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    "mapping", [quotes_its_input, raises_its_input, returns_what_cannot_travel, fails_deeper]
)
async def test_an_incident_of_a_mapping_shows_no_value_of_its_payload(engine, mapping, codec):
    codec_settings, secret = CODECS[codec], make_canary("card")
    worker = await engine.start_worker(saga_with(mapping), **codec_settings)
    client = await engine.connect_client()
    run_id = await client.start(input={"card": secret})
    await worker.events.wait_for_incident(run_id, cause="mapping_failed")
    said, journal = await texts_of(engine, run_id, codec_settings)
    if (
        codec_settings or mapping is not returns_what_cannot_travel
    ):  # its problem names the key of the value
        assert find_leaks(said, [secret]) == []
    assert find_leaks({"the events": str(worker.events)}, [secret]) == []
    if codec_settings:
        assert find_leaks({"the whole journal": journal}, [secret]) == []


@pytest.mark.parametrize("codec", CODECS)
async def test_an_incident_of_a_reply_shows_no_value_of_it(engine, codec):
    codec_settings, secret = CODECS[codec], make_canary("number")
    worker, participant = (
        await engine.start_worker(saga_with(fits), **codec_settings),
        await engine.start_participant(),
    )
    participant.reply_makers["parcel.pack"] = lambda command: [
        encode_reply(command, Outcome.SUCCEEDED, {"number": secret})
    ]
    client = await engine.connect_client()
    run_id = await client.start(input={"card": "c"})
    await worker.events.wait_for_incident(run_id, cause="reply_invalid")
    said, journal = await texts_of(engine, run_id, codec_settings)
    del (
        said["the journal"],
        said["the incidents of show"],
    )  # these show the reply to those who may read the run
    assert find_leaks(said, [secret]) == []
    assert find_leaks({"the events": str(worker.events)}, [secret]) == []
    if codec_settings:
        assert find_leaks({"the whole journal": journal}, [secret]) == []
