"""Payloads in a run, its journal and its commands are sealed, and a key that is away loses none."""

from dataclasses import replace

import orjson
import pytest
from pydantic import BaseModel

from saga_engine import Saga
from saga_engine.decider.decide import decide
from saga_engine.decider.events import serialize_event
from saga_engine.decider.triggers import ReplyReceived, Start
from saga_engine.payload.encryption import (
    NO_ENCRYPTION,
    EncryptionError,
    PayloadEncryption,
    command_associated_data,
    failure_associated_data,
    input_associated_data,
    is_encrypted,
    key_associated_data,
    reply_associated_data,
)
from saga_engine.payload.ports import PayloadPorts
from saga_engine.store.snapshot import to_snapshot
from saga_engine.vocabulary import EngineFailureCode, Failure, IncidentCause, Outcome
from tests.kit.decider_scenario import ACTION, COMPENSATION, NOON, TWO_ATTEMPTS, DeciderScenario
from tests.kit.encryption_keys import payload_encryption

CANARY = "canary-4711"


class Order(BaseModel):
    id: int
    card: str


class Charge(BaseModel):
    number: str


def shop():
    """`charge` needs the input, `ship` the reply of `charge`, and so does what undoes it."""
    saga = Saga("shop", version=1, input=Order)

    @saga.step(command="do.charge", reply=Charge, retry=TWO_ATTEMPTS)
    def charge(order: Order) -> Order:
        return order

    @charge.compensation(command="undo.charge", retry=TWO_ATTEMPTS)
    def refund(order: Order, charge: Charge | None) -> dict:
        return {"number": charge.number if charge else None}

    @saga.step(command="do.ship", reply=dict, retry=TWO_ATTEMPTS)
    def ship(charge: Charge) -> dict:
        return {"for": charge.number}

    @ship.compensation(command="undo.ship", retry=TWO_ATTEMPTS)
    def recall(order: Order) -> dict:
        return {"id": order.id}

    return saga


class EncryptedScenario(DeciderScenario):
    """A story told with keys, which `keys` changes."""

    def __init__(self, saga, *key_ids, order=None):
        self.encryption = payload_encryption(*key_ids)
        super().__init__(saga, self.encrypt(order or {"id": 7, "card": CANARY}))

    def keys(self, *key_ids):
        self.encryption = payload_encryption(*key_ids)

    def encrypt(self, value, place=("input", "shop", "r-1"), by=None):
        return (by or self.encryption).encrypt(value, place)

    def charged(self, by=None):
        """The charge is confirmed."""
        place = reply_associated_data("r-1", "charge", ACTION)
        return self.succeeds("charge", self.encrypt({"number": CANARY}, place, by))

    @property
    def payload(self):
        """What the last command asks, opened."""
        send = self.sends[-1]
        place = command_associated_data(send.run_id, send.step, send.direction)
        assert is_encrypted(send.payload)
        return self.encryption.decrypt(send.payload, place)

    def text(self):
        """Everything that is stored and sent of it."""
        told = (
            [serialize_event(event) for event in self.journal],
            to_snapshot(self.run),
            self.run.input,
        )
        sent = [repr(send) for send in self.sends]
        return orjson.dumps([told, sent]).decode()


def test_nothing_of_a_payload_is_in_the_journal_the_snapshot_or_the_commands():
    story = EncryptedScenario(shop(), "k1")
    assert story.payload == {"id": 7, "card": CANARY}
    story.charged()
    assert story.payload == {"for": CANARY}
    place = reply_associated_data("r-1", "ship", ACTION)
    story.succeeds("ship", story.encrypt({"track": CANARY}, place))
    assert story.status == "completed"
    assert CANARY not in story.text()
    assert story.encryption.decrypt_result_if_possible(story.run.result, "r-1") == {
        "charge": {"number": CANARY},
        "ship": {"track": CANARY},
    }


def test_a_decision_about_sealed_payloads_is_the_same_each_time():
    start = Start(
        "r-1",
        None,
        payload_encryption("k1").encrypt({"id": 7, "card": "c"}, ("input", "shop", "r-1")),
    )
    assert decide(shop(), None, start, NOON, PayloadPorts(payload_encryption("k1"))) == decide(
        shop(), None, start, NOON, PayloadPorts(payload_encryption("k1"))
    )


def test_a_ring_that_only_opens_leaves_what_is_new_in_clear():
    story = EncryptedScenario(shop(), "k1")
    story.keys("none", "k1")
    story.charged(by=payload_encryption("k1"))
    assert story.sends[-1].payload == {"for": CANARY}
    failure = Failure("limit", "The card.", None)
    assert story.encryption.encrypt_failure(failure, "r-1") is failure


def test_a_run_in_flight_goes_on_when_another_key_becomes_current():
    story = EncryptedScenario(shop(), "k1")
    story.keys("k1", "k2")
    story.charged(by=payload_encryption("k2", "k1"))
    story.keys("k2", "k1")
    story.rejects("ship")
    assert story.sent_commands == ["undo.charge#1"]
    assert story.payload == {"number": CANARY}
    assert ".k2." in str(story.sends[-1].payload)


def test_an_input_whose_key_is_away_is_refused_with_a_sentence():
    start = Start("r-1", None, payload_encryption("k3").encrypt({}, ("input", "shop", "r-1")))
    decision = decide(shop(), None, start, NOON, PayloadPorts(payload_encryption("k1")))
    assert decision.run is None
    assert decision.refusal == "The input cannot be decrypted: key 'k3' is not in the key ring."


def test_a_reply_whose_key_is_away_is_kept_and_blocks_only_the_step_that_needs_it():
    story = EncryptedScenario(shop(), "k1")
    story.charged(by=payload_encryption("k2"))
    assert story.progress_of("charge").status == "succeeded"
    assert story.incident.cause == IncidentCause.DECRYPTION_FAILED
    assert story.incident.step == "ship"
    assert story.incident.message == (
        "The payload needs the reply of step 'charge', which cannot be decrypted:"
        " key 'k2' is not in the key ring."
    )
    story.resolves("retry")
    assert story.incident.cause == IncidentCause.DECRYPTION_FAILED  # it is still away
    story.keys("k1", "k2")
    story.resolves("retry")
    assert story.sent_commands == ["do.ship#1"]
    assert story.payload == {"for": CANARY}


def test_a_run_that_needs_nothing_more_of_a_value_does_not_ask_for_its_key():
    story = EncryptedScenario(shop(), "k1")
    story.keys("k2")
    story.fails("charge")
    story.timer_fires()
    story.rejects("charge")  # nothing was done, so nothing needs the input
    assert story.status == "compensated"


def test_where_the_codec_was_left_out_what_is_sealed_is_an_incident_and_no_value():
    story = EncryptedScenario(shop(), "k1")
    story.encryption = NO_ENCRYPTION
    story.charged(by=payload_encryption("k1"))
    assert story.incident.cause == IncidentCause.DECRYPTION_FAILED
    assert "no codec is set here" in story.incident.message


class FailingCodec:
    """A codec of somebody else's, which is away."""

    def encrypt(self, plaintext, associated_data):
        raise OSError(f"{plaintext} at {associated_data}")

    def decrypt(self, ciphertext, associated_data):
        raise OSError(f"{ciphertext} at {associated_data}")


def test_a_codec_that_raises_is_an_incident_that_quotes_nothing():
    story = EncryptedScenario(shop(), "k1")
    keys, story.encryption = story.encryption, PayloadEncryption(FailingCodec())
    story.charged(by=keys)
    assert story.incident.message == (
        "The payload needs the reply of step 'charge', which cannot be decrypted: OSError."
    )
    with pytest.raises(EncryptionError) as caught:
        story.encryption.encrypt(CANARY, ("a",))
    assert str(caught.value) == "cannot be encrypted: OSError"


def test_a_compensation_whose_key_is_away_is_an_incident_and_the_others_go_on():
    story = EncryptedScenario(shop(), "k1")
    story.charged(by=payload_encryption("k1"))
    story.keys("k2")
    story.fails("ship")
    story.attempts_exhausted("ship")
    assert (story.incident.step, story.incident.direction) == ("ship", COMPENSATION)
    assert story.incident.cause == IncidentCause.DECRYPTION_FAILED
    story.resolves("skip")
    assert (story.incident.step, story.incident.cause) == (
        "charge",
        IncidentCause.DECRYPTION_FAILED,
    )
    story.keys("k2", "k1")
    story.resolves("retry")
    assert story.payload == {"number": CANARY}
    story.succeeds("charge", direction=COMPENSATION)
    assert story.status == "compensated"


def test_a_participant_without_the_key_makes_an_incident_and_not_a_rollback():
    story = EncryptedScenario(shop(), "k1")
    told = Failure.by_engine(
        EngineFailureCode.DECRYPTION_FAILED, "Key 'k1' is not in the key ring."
    )
    reply = ReplyReceived(
        step="charge", direction=ACTION, attempt=1, outcome=Outcome.FAILED, failure=told
    )
    story.apply(reply)
    story.timer_fires()
    story.apply(replace(reply, attempt=2))
    assert (story.status, story.incident.cause) == ("running", IncidentCause.DECRYPTION_FAILED)
    assert "'k1'" in story.incident.message
    before = story.sends[-1]
    story.resolves("retry")
    assert story.sends[-1].payload == before.payload
    assert story.sends[-1].idempotency_key == before.idempotency_key


def test_what_is_moved_to_another_run_or_step_does_not_open_there():
    story = EncryptedScenario(shop(), "k1")
    story.charged()
    reply = story.run.steps["charge"].action.reply
    for place in [
        reply_associated_data("r-2", "charge", ACTION),
        reply_associated_data("r-1", "ship", ACTION),
        reply_associated_data("r-1", "charge", COMPENSATION),
        command_associated_data("r-1", "charge", ACTION),
    ]:
        with pytest.raises(EncryptionError, match="moved"):
            story.encryption.decrypt(reply, place)
    with pytest.raises(EncryptionError, match="moved"):
        story.encryption.decrypt(story.run.input, input_associated_data("other", "r-1"))


def test_a_mapping_that_raises_is_told_by_the_name_of_what_it_raised():
    saga = Saga("shop", version=1, input=Order)

    @saga.step(command="do.charge", read_only=True)
    def charge(order: Order) -> dict:
        raise ValueError(order.card)

    story = EncryptedScenario(saga, "k1")
    assert story.incident.cause == "mapping_failed"
    assert " raised ValueError at " in story.incident.message
    assert CANARY not in story.text()


def test_a_misfit_names_no_place_in_a_payload_because_that_may_be_a_key_of_the_users():
    saga = Saga("shop", version=1, input=dict[str, int])

    @saga.step(command="do.charge", reply=dict[str, int], read_only=True)
    def charge(order: dict[str, int]) -> dict[str, int]:
        return {CANARY: "no number"}  # type: ignore[dict-item]  # the mistake under test

    start = Start(
        "r-1", None, payload_encryption("k1").encrypt({CANARY: "x"}, ("input", "shop", "r-1"))
    )
    refused = decide(saga, None, start, NOON, PayloadPorts(payload_encryption("k1"))).refusal
    assert refused == "The input does not fit dict[str, int]."
    story = EncryptedScenario(saga, "k1", order={"a": 1})
    assert "PayloadError: dict does not fit dict[str, int]" in story.incident.message
    assert story.resolves("complete", {CANARY: "x"}).refusal
    again = story.resolves("complete", {CANARY: "x"}).refusal
    assert again is not None
    assert CANARY not in again
    assert CANARY not in story.text()


def test_a_reply_that_does_not_fit_is_told_without_its_keys():
    story = EncryptedScenario(shop(), "k1")
    story.succeeds(
        "charge", story.encrypt({CANARY: 1}, reply_associated_data("r-1", "charge", ACTION))
    )
    assert story.incident.message == "The reply does not fit Charge."


def test_what_an_operator_gives_by_hand_is_sealed_like_a_reply():
    story = EncryptedScenario(shop(), "k1")
    story.charged(by=payload_encryption("k2"))
    story.resolves("complete", {"track": CANARY})
    assert story.status == "completed"
    assert CANARY not in story.text()
    assert isinstance(story.run.result, dict)
    result = story.run.result["ship"]
    place = reply_associated_data("r-1", "ship", ACTION)
    assert story.encryption.decrypt(result, place) == {"track": CANARY}


def test_what_an_operator_gives_that_cannot_be_unsealed_is_refused():
    story = EncryptedScenario(shop(), "k1")
    story.charged(by=payload_encryption("k2"))
    other = payload_encryption("k3").encrypt({}, reply_associated_data("r-1", "ship", ACTION))
    refused = story.resolves("complete", other).refusal
    assert refused is not None
    assert "key 'k3' is not in the key ring" in refused


def test_a_failure_shows_its_code_and_nothing_else():
    seals = payload_encryption("k1")
    failure = Failure("limit", f"The card {CANARY}", {"card": CANARY})
    sealed = seals.encrypt_failure(failure, "r-1")
    assert (sealed.code, sealed.message) == ("limit", "")
    assert sealed.text == "limit"
    assert CANARY not in repr(sealed)
    assert seals.encrypt_failure(sealed, "r-1") == sealed
    assert seals.decrypt_failure_if_possible(sealed, "r-1") == failure
    assert seals.decrypt_failure_if_possible(sealed, "r-2") == sealed
    assert payload_encryption("k2").decrypt_failure_if_possible(sealed, "r-1") == sealed


@pytest.mark.parametrize(
    "failure",
    [
        Failure("no"),
        Failure.by_engine(EngineFailureCode.DECRYPTION_FAILED, "Key 'k1' is away."),
        Failure("decryption_failed", "Key 'k1' is away."),
    ],
)
def test_a_failure_that_says_nothing_of_a_payload_is_not_sealed(failure):
    assert payload_encryption("k1").encrypt_failure(failure, "r-1") is failure
    assert payload_encryption("k1").decrypt_failure_if_possible(failure, "r-1") is failure


def test_a_sealed_failure_of_another_making_stays_as_it_is():
    odd = Failure("no", "", payload_encryption("k1").encrypt([1], failure_associated_data("r-1")))
    assert payload_encryption("k1").decrypt_failure_if_possible(odd, "r-1") is odd


def test_of_a_result_is_shown_what_can_be_opened():
    place = reply_associated_data("r-1", "ship", ACTION)
    result = {"charge": 1, "ship": payload_encryption("k2").encrypt("x", place)}
    assert payload_encryption("k1").decrypt_result_if_possible(result, "r-1") == result
    assert payload_encryption("k2").decrypt_result_if_possible(result, "r-1") == {
        "charge": 1,
        "ship": "x",
    }


def test_nothing_is_nothing_sealed_or_not():
    saga = Saga("shop", version=1, input=Order)

    @saga.step(command="do.charge", reply=Charge | None, read_only=True)
    def charge(order: Order) -> Order:
        return order

    @saga.step(command="do.ship", read_only=True)
    def ship(charge: Charge | None) -> dict:
        return {"charged": charge is not None}

    story = EncryptedScenario(saga, "k1")
    assert story.encryption.codec is not None
    text = story.encryption.codec.encrypt(
        b"null", "/".join(reply_associated_data("r-1", "charge", ACTION))
    )
    story.succeeds("charge", {"$encrypted": text})
    assert story.payload == {"charged": False}
    assert story.encryption.encrypt(None, ("a",)) is None


def test_a_result_that_is_none_stays_none():
    assert payload_encryption("k1").decrypt_result_if_possible(None, "r-1") is None


@pytest.mark.parametrize("plain", [b"NaN", b"-Infinity", b"{", b"\xff"])
def test_what_was_sealed_and_is_no_json_does_not_open(plain):
    story = EncryptedScenario(shop(), "k1")
    assert story.encryption.codec is not None
    text = story.encryption.codec.encrypt(
        plain, "/".join(reply_associated_data("r-1", "charge", ACTION))
    )
    story.succeeds("charge", {"$encrypted": text})
    assert (story.incident.step, story.incident.cause) == ("ship", IncidentCause.DECRYPTION_FAILED)


def test_no_two_places_are_written_alike():
    places = [
        *(
            input_associated_data("shop", "r-1"),
            input_associated_data("shop", "r-2"),
            input_associated_data("store", "r-1"),
        ),
        *(
            key_associated_data("shop", "r-1"),
            key_associated_data("shop", "r-1/"),
            failure_associated_data("r-1"),
        ),
        *(
            make("r-1", "a", way)
            for make in (command_associated_data, reply_associated_data)
            for way in (ACTION, COMPENSATION)
        ),
        *(
            make("r-1", "b", COMPENSATION)
            for make in (command_associated_data, reply_associated_data)
        ),
    ]
    assert len({"/".join(place) for place in places}) == len(places)
