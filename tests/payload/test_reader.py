"""Stored payloads are read once, belong to one mapping, and errors show no payload."""

from base64 import b64decode, b64encode
from typing import ClassVar

import pytest
from pydantic import BaseModel, field_validator

from saga_engine.payload.encryption import EncryptionError, PayloadEncryption
from saga_engine.payload.guard import UserCodeCall, UserCodeError
from saga_engine.payload.limits import BodyLimits
from saga_engine.payload.mapping import PayloadMapping
from saga_engine.payload.payload import PayloadError, PayloadType
from saga_engine.payload.ports import PayloadPorts
from saga_engine.payload.reader import PayloadReader, StoredPayload

CALL = UserCodeCall("trip", "run-1", "book", None, "seat.book", "book", "trip.py:1")


class CountedReads(BaseModel):
    seats: list[int]

    reads: ClassVar[int] = 0

    @field_validator("seats")
    @classmethod
    def count(cls, seats: list[int]) -> list[int]:
        cls.reads += 1
        return seats


class Base64Codec:
    """Encrypts nothing, and changes the form as a real codec does."""

    def encrypt(self, plaintext: bytes, associated_data: str) -> str:
        return b64encode(associated_data.encode() + b"|" + plaintext).decode()

    def decrypt(self, ciphertext: str, associated_data: str) -> bytes:
        bound_to, _, plaintext = b64decode(ciphertext).partition(b"|")
        if bound_to.decode() != associated_data:
            raise EncryptionError("cannot be decrypted: it belongs to something else")
        return plaintext


WITH_CODEC = PayloadPorts(PayloadEncryption(Base64Codec()))


def stored(content, python_type=dict, associated_data=("reply", "run-1", "book")) -> StoredPayload:
    return StoredPayload(content, PayloadType(python_type), associated_data)


def with_order(order: dict) -> dict:
    return {"order": order}


def with_seats(seats: CountedReads) -> dict:
    seats.seats.append(0)
    return {"seats": seats.seats}


def with_optional_order(order: dict | None) -> dict:
    return {"order": order}


def test_what_was_read_to_check_it_is_used_by_one_mapping_only():
    reader, payload = PayloadReader(PayloadPorts()), stored({"seats": [1]}, CountedReads)
    mapping = PayloadMapping(with_seats)
    CountedReads.reads = 0

    reader.check(CALL, payload)
    assert CountedReads.reads == 1
    made = [reader.make(CALL, mapping, {"seats": payload}, ("command",)) for _ in range(2)]

    assert made == [{"seats": [1, 0]}, {"seats": [1, 0]}]  # the first one changed its own value
    assert CountedReads.reads == 2  # the second one has read it again


def test_another_content_of_the_same_name_is_read_again():
    reader = PayloadReader(PayloadPorts())
    reader.check(CALL, stored({"number": 1}))
    mapping = PayloadMapping(with_order)
    made = reader.make(CALL, mapping, {"order": stored({"number": 2})}, ("command",))
    assert made == {"order": {"number": 2}}


def test_a_payload_is_decrypted_for_its_mapping_and_the_result_is_encrypted():
    reader, name = PayloadReader(WITH_CODEC), ("reply", "run-1", "book")
    content = WITH_CODEC.encryption.encrypt({"number": 1}, name)

    made = reader.make(
        CALL, PayloadMapping(with_order), {"order": stored(content)}, ("command", "run-1")
    )

    assert made != {"order": {"number": 1}}
    assert WITH_CODEC.encryption.decrypt(made, ("command", "run-1")) == {"order": {"number": 1}}


def test_an_error_names_the_payload_that_cannot_be_decrypted():
    reader = PayloadReader(WITH_CODEC)
    content = WITH_CODEC.encryption.encrypt({"number": 1}, ("of", "another", "run"))
    with pytest.raises(EncryptionError, match=r"^needs the reply of step .book., which cannot"):
        reader.make(CALL, PayloadMapping(with_order), {"order": stored(content)}, ("command",))


@pytest.mark.parametrize("source", [None, stored(None)])
def test_an_optional_parameter_without_a_value_is_none(source):
    mapping = PayloadMapping(with_optional_order)
    made = PayloadReader(PayloadPorts()).make(CALL, mapping, {"order": source}, ("command",))
    assert made == {"order": None}


def test_a_required_parameter_without_a_reply_is_an_error():
    reader = PayloadReader(PayloadPorts())
    with pytest.raises(PayloadError, match="there is no reply of step 'order'"):
        reader.make(CALL, PayloadMapping(with_order), {"order": None}, ("command",))


def test_a_call_that_returns_no_value_is_noted():
    def raises(order: dict) -> dict:
        raise LookupError(order["number"])

    reader = PayloadReader(PayloadPorts())
    with pytest.raises(UserCodeError) as caught:
        reader.make(
            CALL, PayloadMapping(raises), {"order": stored({"number": "4111-1111"})}, ("command",)
        )
    assert reader.code_errors == [caught.value]
    assert reader.error_text(caught.value).startswith("raised LookupError at ")
    assert "4111" not in reader.error_text(caught.value)


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        (PayloadPorts(), "does not fit CountedReads (seats.secret-key: int_type)"),
        (WITH_CODEC, "does not fit CountedReads"),
    ],
    ids=["in clear", "with a codec"],
)
def test_with_a_codec_an_error_shows_no_path_in_the_payload(ports, text):
    error = PayloadError(
        "does not fit CountedReads (seats.secret-key: int_type)", "does not fit CountedReads"
    )
    assert PayloadReader(ports).error_text(error) == text
    detailed = UserCodeError(CALL, "raised ValidationError", " (seats.secret-key: int_type)")
    assert ("secret-key" in PayloadReader(ports).error_text(detailed)) is (ports is not WITH_CODEC)


class Refusing(BaseModel):
    """A type of the author's whose validator leaves the process."""

    number: int

    @field_validator("number")
    @classmethod
    def leave(cls, number: int) -> int:
        raise SystemExit(number)


class RecordedTimeLimit:
    """A CallTimeLimit that notes whether a call is inside of it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def enter(self, call: UserCodeCall) -> None:
        self.log.append(f"enter {call.function}")

    def leave(self) -> None:
        self.log.append("leave")


def test_a_payload_that_does_not_fit_its_type_fails_the_check():
    reader = PayloadReader(PayloadPorts())
    with pytest.raises(PayloadError, match="does not fit CountedReads"):
        reader.check(CALL, stored({"seats": "all"}, CountedReads))
    assert reader.unused_readings == {}


def test_a_payload_of_another_run_fails_the_check():
    content = WITH_CODEC.encryption.encrypt({"seats": [1]}, ("reply", "another run", "book"))
    reader = PayloadReader(WITH_CODEC)
    with pytest.raises(EncryptionError) as caught:
        reader.check(CALL, stored(content, CountedReads))
    assert reader.error_text(caught.value) == "cannot be decrypted: it belongs to something else"


def test_a_check_reads_what_is_encrypted():
    content = WITH_CODEC.encryption.encrypt({"seats": [1]}, ("reply", "run-1", "book"))
    reader, payload = PayloadReader(WITH_CODEC), stored(content, CountedReads)
    CountedReads.reads = 0
    reader.check(CALL, payload)
    assert CountedReads.reads == 1
    reader.make(CALL, PayloadMapping(with_seats), {"seats": payload}, ("command",))
    assert CountedReads.reads == 1


def test_a_validator_that_leaves_the_process_fails_the_check_and_is_noted():
    reader = PayloadReader(PayloadPorts())
    with pytest.raises(UserCodeError) as caught:
        reader.check(CALL, stored({"number": 13}, Refusing))
    assert reader.code_errors == [caught.value]
    assert caught.value.text.startswith("raised SystemExit at ")


def test_each_source_is_decrypted_as_what_it_is():
    def with_both(order: dict, hotel: dict) -> dict:
        return {"order": order, "hotel": hotel}

    sources = {
        name: stored(
            WITH_CODEC.encryption.encrypt({"of": name}, ("reply", "run-1", name)),
            associated_data=("reply", "run-1", name),
        )
        for name in ("order", "hotel")
    }
    made = PayloadReader(WITH_CODEC).make(CALL, PayloadMapping(with_both), sources, ("command",))
    plain = WITH_CODEC.encryption.decrypt(made, ("command",))
    assert plain == {"order": {"of": "order"}, "hotel": {"of": "hotel"}}


def test_every_call_into_the_authors_code_has_the_time_limit():
    time_limit = RecordedTimeLimit()
    reader = PayloadReader(PayloadPorts(time_limit=time_limit))
    reader.check(CALL, stored({"number": 1}))
    reader.make(CALL, PayloadMapping(with_order), {"order": stored({})}, ("command",))
    assert time_limit.log == ["enter book", "leave", "enter book", "leave"]


@pytest.mark.parametrize("encryption", [PayloadEncryption(), WITH_CODEC.encryption])
def test_a_payload_that_is_too_large_to_be_sent_is_refused(encryption):
    limits = BodyLimits(max_bytes=64, max_depth=10, max_values=10)
    reader = PayloadReader(PayloadPorts(encryption=encryption, limits=limits))
    with pytest.raises(PayloadError, match="too large to be sent"):
        reader.make(
            CALL, PayloadMapping(with_order), {"order": stored({"text": "x" * 64})}, ("command",)
        )


def test_a_required_parameter_is_not_none():
    reader = PayloadReader(PayloadPorts())
    with pytest.raises(PayloadError, match="does not fit dict"):
        reader.make(CALL, PayloadMapping(with_order), {"order": stored(None)}, ("command",))


def test_an_optional_parameter_is_none_if_its_encrypted_content_is():
    content = {"$encrypted": Base64Codec().encrypt(b"null", "reply/run-1/book")}
    made = PayloadReader(WITH_CODEC).make(
        CALL, PayloadMapping(with_optional_order), {"order": stored(content)}, ("command",)
    )
    assert WITH_CODEC.encryption.decrypt(made, ("command",)) == {"order": None}
