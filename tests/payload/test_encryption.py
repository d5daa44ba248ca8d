"""Payloads in a run, its journal and its commands are encrypted; a missing key loses none."""

from dataclasses import replace

import orjson
import pytest
from pydantic import BaseModel

from saga_engine import Saga
from saga_engine.decider.decide import decide
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
from saga_engine.store.event_data import serialize_event
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
    """A scenario with keys, which `keys` changes."""

    def __init__(self, saga, *key_ids, order=None):
        self.encryption = payload_encryption(*key_ids)
        super().__init__(saga, self.encrypt(order or {"id": 7, "card": CANARY}))

    def keys(self, *key_ids):
        self.encryption = payload_encryption(*key_ids)

    def encrypt(self, value, associated_data=("input", "shop", "r-1"), by=None):
        return (by or self.encryption).encrypt(value, associated_data)

    def charged(self, by=None):
        """The charge is confirmed."""
        associated_data = reply_associated_data("r-1", "charge", ACTION)
        return self.succeeds("charge", self.encrypt({"number": CANARY}, associated_data, by))

    @property
    def payload(self):
        """The payload of the last command, decrypted."""
        send = self.sends[-1]
        associated_data = command_associated_data(send.run_id, send.step, send.direction)
        assert is_encrypted(send.payload)
        return self.encryption.decrypt(send.payload, associated_data)

    def text(self):
        """Everything that is stored and sent of it."""
        recorded = (
            [serialize_event(event) for event in self.journal],
            to_snapshot(self.run),
            self.run.input,
        )
        sent = [repr(send) for send in self.sends]
        return orjson.dumps([recorded, sent]).decode()


def test_nothing_of_a_payload_is_in_the_journal_the_snapshot_or_the_commands():
    scenario = EncryptedScenario(shop(), "k1")
    assert scenario.payload == {"id": 7, "card": CANARY}
    scenario.charged()
    assert scenario.payload == {"for": CANARY}
    associated_data = reply_associated_data("r-1", "ship", ACTION)
    scenario.succeeds("ship", scenario.encrypt({"track": CANARY}, associated_data))
    assert scenario.status == "completed"
    assert CANARY not in scenario.text()
    assert scenario.encryption.decrypt_result_if_possible(scenario.run.result, "r-1") == {
        "charge": {"number": CANARY},
        "ship": {"track": CANARY},
    }


def test_a_decision_about_encrypted_payloads_is_deterministic():
    start = Start(
        "r-1",
        None,
        payload_encryption("k1").encrypt({"id": 7, "card": "c"}, ("input", "shop", "r-1")),
    )
    assert decide(shop(), None, start, NOON, PayloadPorts(payload_encryption("k1"))) == decide(
        shop(), None, start, NOON, PayloadPorts(payload_encryption("k1"))
    )


def test_a_key_ring_that_only_decrypts_leaves_new_values_in_clear():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.keys("none", "k1")
    scenario.charged(by=payload_encryption("k1"))
    assert scenario.sends[-1].payload == {"for": CANARY}
    failure = Failure("limit", "The card.", None)
    assert scenario.encryption.encrypt_failure(failure, "r-1") is failure


def test_a_run_goes_on_when_the_current_key_changes():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.keys("k1", "k2")
    scenario.charged(by=payload_encryption("k2", "k1"))
    scenario.keys("k2", "k1")
    scenario.rejects("ship")
    assert scenario.sent_commands == ["undo.charge#1"]
    assert scenario.payload == {"number": CANARY}
    assert ".k2." in str(scenario.sends[-1].payload)


def test_an_input_without_its_key_is_refused_with_a_sentence():
    start = Start("r-1", None, payload_encryption("k3").encrypt({}, ("input", "shop", "r-1")))
    decision = decide(shop(), None, start, NOON, PayloadPorts(payload_encryption("k1")))
    assert decision.run is None
    assert decision.refusal == "The input cannot be decrypted: key 'k3' is not in the key ring."


def test_a_reply_without_its_key_blocks_only_the_step_that_needs_it():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.charged(by=payload_encryption("k2"))
    assert scenario.progress_of("charge").status == "succeeded"
    assert scenario.incident.cause == IncidentCause.DECRYPTION_FAILED
    assert scenario.incident.step == "ship"
    assert scenario.incident.message == (
        "The payload needs the reply of step 'charge', which cannot be decrypted:"
        " key 'k2' is not in the key ring."
    )
    scenario.resolves("retry")
    assert scenario.incident.cause == IncidentCause.DECRYPTION_FAILED  # its key is still missing
    scenario.keys("k1", "k2")
    scenario.resolves("retry")
    assert scenario.sent_commands == ["do.ship#1"]
    assert scenario.payload == {"for": CANARY}


def test_a_value_that_is_not_needed_any_more_needs_no_key():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.keys("k2")
    scenario.fails("charge")
    scenario.timer_fires()
    scenario.rejects("charge")  # nothing was done, so nothing needs the input
    assert scenario.status == "compensated"


def test_an_encrypted_value_without_a_codec_opens_an_incident():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.encryption = NO_ENCRYPTION
    scenario.charged(by=payload_encryption("k1"))
    assert scenario.incident.cause == IncidentCause.DECRYPTION_FAILED
    assert "no codec is set here" in scenario.incident.message


class FailingCodec:
    """A codec of another library that fails."""

    def encrypt(self, plaintext, associated_data):
        raise OSError(f"{plaintext} at {associated_data}")

    def decrypt(self, ciphertext, associated_data):
        raise OSError(f"{ciphertext} at {associated_data}")


def test_a_codec_that_raises_opens_an_incident_without_its_text():
    scenario = EncryptedScenario(shop(), "k1")
    keys, scenario.encryption = scenario.encryption, PayloadEncryption(FailingCodec())
    scenario.charged(by=keys)
    assert scenario.incident.message == (
        "The payload needs the reply of step 'charge', which cannot be decrypted: OSError."
    )
    with pytest.raises(EncryptionError) as caught:
        scenario.encryption.encrypt(CANARY, ("a",))
    assert str(caught.value) == "cannot be encrypted: OSError"


def test_a_compensation_without_its_key_blocks_no_other():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.charged(by=payload_encryption("k1"))
    scenario.keys("k2")
    scenario.fails("ship")
    scenario.attempts_exhausted("ship")
    assert (scenario.incident.step, scenario.incident.direction) == ("ship", COMPENSATION)
    assert scenario.incident.cause == IncidentCause.DECRYPTION_FAILED
    scenario.resolves("skip")
    assert (scenario.incident.step, scenario.incident.cause) == (
        "charge",
        IncidentCause.DECRYPTION_FAILED,
    )
    scenario.keys("k2", "k1")
    scenario.resolves("retry")
    assert scenario.payload == {"number": CANARY}
    scenario.succeeds("charge", direction=COMPENSATION)
    assert scenario.status == "compensated"


def test_a_participant_without_the_key_opens_an_incident():
    scenario = EncryptedScenario(shop(), "k1")
    failure = Failure.by_engine(
        EngineFailureCode.DECRYPTION_FAILED, "Key 'k1' is not in the key ring."
    )
    reply = ReplyReceived(
        step="charge", direction=ACTION, attempt=1, outcome=Outcome.FAILED, failure=failure
    )
    scenario.apply(reply)
    scenario.timer_fires()
    scenario.apply(replace(reply, attempt=2))
    assert (scenario.status, scenario.incident.cause) == (
        "running",
        IncidentCause.DECRYPTION_FAILED,
    )
    assert "'k1'" in scenario.incident.message
    before = scenario.sends[-1]
    scenario.resolves("retry")
    assert scenario.sends[-1].payload == before.payload
    assert scenario.sends[-1].idempotency_key == before.idempotency_key


def test_a_value_cannot_be_decrypted_in_another_run_or_step():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.charged()
    reply = scenario.run.steps["charge"].action.reply
    for associated_data in [
        reply_associated_data("r-2", "charge", ACTION),
        reply_associated_data("r-1", "ship", ACTION),
        reply_associated_data("r-1", "charge", COMPENSATION),
        command_associated_data("r-1", "charge", ACTION),
    ]:
        with pytest.raises(EncryptionError, match="moved"):
            scenario.encryption.decrypt(reply, associated_data)
    with pytest.raises(EncryptionError, match="moved"):
        scenario.encryption.decrypt(scenario.run.input, input_associated_data("other", "r-1"))


def test_with_a_codec_an_incident_names_only_the_exception():
    saga = Saga("shop", version=1, input=Order)

    @saga.step(command="do.charge", read_only=True)
    def charge(order: Order) -> dict:
        raise ValueError(order.card)

    scenario = EncryptedScenario(saga, "k1")
    assert scenario.incident.cause == "mapping_failed"
    assert " raised ValueError at " in scenario.incident.message
    assert CANARY not in scenario.text()


def test_with_a_codec_a_mismatch_names_no_path_in_a_payload():
    saga = Saga("shop", version=1, input=dict[str, int])

    @saga.step(command="do.charge", reply=dict[str, int], read_only=True)
    def charge(order: dict[str, int]) -> dict[str, int]:
        return {CANARY: "no number"}  # type: ignore[dict-item]  # the mistake under test

    start = Start(
        "r-1", None, payload_encryption("k1").encrypt({CANARY: "x"}, ("input", "shop", "r-1"))
    )
    refused = decide(saga, None, start, NOON, PayloadPorts(payload_encryption("k1"))).refusal
    assert refused == "The input does not fit dict[str, int]."
    scenario = EncryptedScenario(saga, "k1", order={"a": 1})
    assert "PayloadError: dict does not fit dict[str, int]" in scenario.incident.message
    assert scenario.resolves("complete", {CANARY: "x"}).refusal
    again = scenario.resolves("complete", {CANARY: "x"}).refusal
    assert again is not None
    assert CANARY not in again
    assert CANARY not in scenario.text()


def test_with_a_codec_an_invalid_reply_shows_no_keys():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.succeeds(
        "charge", scenario.encrypt({CANARY: 1}, reply_associated_data("r-1", "charge", ACTION))
    )
    assert scenario.incident.message == "The reply does not fit Charge."


def test_a_result_of_an_operator_is_encrypted_like_a_reply():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.charged(by=payload_encryption("k2"))
    scenario.resolves("complete", {"track": CANARY})
    assert scenario.status == "completed"
    assert CANARY not in scenario.text()
    assert isinstance(scenario.run.result, dict)
    result = scenario.run.result["ship"]
    associated_data = reply_associated_data("r-1", "ship", ACTION)
    assert scenario.encryption.decrypt(result, associated_data) == {"track": CANARY}


def test_a_result_of_an_operator_that_cannot_be_decrypted_is_refused():
    scenario = EncryptedScenario(shop(), "k1")
    scenario.charged(by=payload_encryption("k2"))
    other = payload_encryption("k3").encrypt({}, reply_associated_data("r-1", "ship", ACTION))
    refused = scenario.resolves("complete", other).refusal
    assert refused is not None
    assert "key 'k3' is not in the key ring" in refused


def test_a_failure_shows_its_code_and_nothing_else():
    encryption = payload_encryption("k1")
    failure = Failure("limit", f"The card {CANARY}", {"card": CANARY})
    encrypted = encryption.encrypt_failure(failure, "r-1")
    assert (encrypted.code, encrypted.message) == ("limit", "")
    assert encrypted.text == "limit"
    assert CANARY not in repr(encrypted)
    assert encryption.encrypt_failure(encrypted, "r-1") == encrypted
    assert encryption.decrypt_failure_if_possible(encrypted, "r-1") == failure
    assert encryption.decrypt_failure_if_possible(encrypted, "r-2") == encrypted
    assert payload_encryption("k2").decrypt_failure_if_possible(encrypted, "r-1") == encrypted


@pytest.mark.parametrize(
    "failure",
    [
        Failure("no"),
        Failure.by_engine(EngineFailureCode.DECRYPTION_FAILED, "Key 'k1' is missing."),
        Failure("decryption_failed", "Key 'k1' is missing."),
    ],
)
def test_a_failure_without_payload_is_not_encrypted(failure):
    assert payload_encryption("k1").encrypt_failure(failure, "r-1") is failure
    assert payload_encryption("k1").decrypt_failure_if_possible(failure, "r-1") is failure


def test_encrypted_details_of_another_form_stay_unchanged():
    odd = Failure("no", "", payload_encryption("k1").encrypt([1], failure_associated_data("r-1")))
    assert payload_encryption("k1").decrypt_failure_if_possible(odd, "r-1") is odd


def test_a_result_is_decrypted_as_far_as_possible():
    associated_data = reply_associated_data("r-1", "ship", ACTION)
    result = {"charge": 1, "ship": payload_encryption("k2").encrypt("x", associated_data)}
    assert payload_encryption("k1").decrypt_result_if_possible(result, "r-1") == result
    assert payload_encryption("k2").decrypt_result_if_possible(result, "r-1") == {
        "charge": 1,
        "ship": "x",
    }


def test_none_is_not_encrypted():
    saga = Saga("shop", version=1, input=Order)

    @saga.step(command="do.charge", reply=Charge | None, read_only=True)
    def charge(order: Order) -> Order:
        return order

    @saga.step(command="do.ship", read_only=True)
    def ship(charge: Charge | None) -> dict:
        return {"charged": charge is not None}

    scenario = EncryptedScenario(saga, "k1")
    assert scenario.encryption.codec is not None
    text = scenario.encryption.codec.encrypt(
        b"null", "/".join(reply_associated_data("r-1", "charge", ACTION))
    )
    scenario.succeeds("charge", {"$encrypted": text})
    assert scenario.payload == {"charged": False}
    assert scenario.encryption.encrypt(None, ("a",)) is None


def test_a_result_that_is_none_stays_none():
    assert payload_encryption("k1").decrypt_result_if_possible(None, "r-1") is None


@pytest.mark.parametrize("plain", [b"NaN", b"-Infinity", b"{", b"\xff"])
def test_decrypted_bytes_that_are_not_json_are_refused(plain):
    scenario = EncryptedScenario(shop(), "k1")
    assert scenario.encryption.codec is not None
    text = scenario.encryption.codec.encrypt(
        plain, "/".join(reply_associated_data("r-1", "charge", ACTION))
    )
    scenario.succeeds("charge", {"$encrypted": text})
    assert (scenario.incident.step, scenario.incident.cause) == (
        "ship",
        IncidentCause.DECRYPTION_FAILED,
    )


def test_no_two_associated_data_are_equal():
    all_associated_data = [
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
    assert len({"/".join(associated_data) for associated_data in all_associated_data}) == len(
        all_associated_data
    )
