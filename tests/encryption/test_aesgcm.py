"""Sealed with AES-GCM: opened only with its key, at its place, as it was; and always alike."""

import base64
import hmac
import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.encryption.aesgcm import AesGcmCodec
from saga_engine.encryption.keyring import KeyRing
from saga_engine.payload.encryption import (
    ENCRYPTED_KEY,
    NO_ENCRYPTION,
    EncryptionError,
    is_encrypted,
)
from tests.kit.encryption_keys import KEYS, key_ring, payload_encryption

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
PLACE = "reply/r-1/charge/action"
PLACES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc$é"), inner),
    max_leaves=20,
)


@given(JSON)
def test_any_json_comes_back_as_it_was(value):
    seals = payload_encryption("k1")
    sealed = seals.encrypt(value, (PLACE,))
    assert is_encrypted(sealed) or value is None or is_encrypted(value)
    if not is_encrypted(value):
        assert seals.decrypt(sealed, (PLACE,)) == value
        assert json.loads(json.dumps(sealed)) == sealed


@given(st.binary(max_size=200), PLACES)
def test_the_same_is_sealed_alike_whoever_seals_it(plain, place):
    assert AesGcmCodec(key_ring("k1")).encrypt(plain, place) == AesGcmCodec(
        key_ring("k1", "k2")
    ).encrypt(plain, place)


def seal(codec: AesGcmCodec, plain: bytes, place: str) -> str:
    """What a codec that has a key makes of it."""
    sealed = codec.encrypt(plain, place)
    assert sealed is not None
    return sealed


@given(st.binary(min_size=1, max_size=50), PLACES, PLACES)
def test_what_is_sealed_for_one_place_opens_at_no_other(plain, place, other):
    codec = AesGcmCodec(key_ring("k1"))
    sealed = codec.encrypt(plain, place)
    assert sealed is not None
    assert codec.decrypt(sealed, place) == plain
    if other != place:
        assert codec.encrypt(plain, other) != sealed
        with pytest.raises(EncryptionError, match="moved in transit"):
            codec.decrypt(sealed, other)


def test_the_nonce_of_another_message_is_another_and_so_is_each_places_key():
    codec = AesGcmCodec(key_ring("k1"))
    texts = [seal(codec, b"%d" % n, place) for n in range(500) for place in (PLACE, "other")]
    nonces = {text.split(".")[2][:16] for text in texts}
    assert len(nonces) == 1000


def test_every_key_of_the_ring_opens_and_the_first_one_seals():
    old = seal(AesGcmCodec(key_ring("k1")), b"old", PLACE)
    rotated = AesGcmCodec(key_ring("k2", "k1"))
    assert rotated.decrypt(old, PLACE) == b"old"
    assert seal(rotated, b"new", PLACE).startswith("aes-gcm-1.k2.")


def test_a_key_that_is_not_there_is_named():
    sealed = seal(AesGcmCodec(key_ring("k2")), b"secret", PLACE)
    with pytest.raises(EncryptionError, match="key 'k2' is not in the key ring"):
        AesGcmCodec(key_ring("k1")).decrypt(sealed, PLACE)


def test_another_key_under_the_same_id_does_not_open_it():
    sealed = seal(AesGcmCodec(KeyRing({"k1": KEYS["k2"]})), b"secret", PLACE)
    with pytest.raises(EncryptionError, match="the bytes of key 'k1' differ"):
        AesGcmCodec(key_ring("k1")).decrypt(sealed, PLACE)


@pytest.mark.parametrize("bit", range(0, 8 * 36, 7))
def test_a_bit_that_was_changed_is_found_out(bit):
    codec = AesGcmCodec(key_ring("k1"))
    prefix, data = seal(codec, b"a secret", PLACE).rsplit(".", 1)
    raw = bytearray(base64.urlsafe_b64decode(data))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EncryptionError, match="changed or moved"):
        codec.decrypt(f"{prefix}.{base64.urlsafe_b64encode(raw).decode()}", PLACE)


@pytest.mark.parametrize("length", range(61))
def test_what_is_cut_short_is_found_out(length):
    codec = AesGcmCodec(key_ring("k1"))
    sealed = seal(codec, b"a secret", PLACE)
    with pytest.raises(EncryptionError):
        codec.decrypt(sealed[:length], PLACE)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("aes-gcm-2.k1.AAAA", "not encrypted with aes-gcm-1"),
        ("", "not encrypted with aes-gcm-1"),
        ("aes-gcm-1", "key '' is not in the key ring"),
        ("aes-gcm-1.k1", "damaged"),
        ("aes-gcm-1.k1.", "damaged"),
        ("aes-gcm-1.k1.ö" + "A" * 60, "damaged"),
        ("aes-gcm-1.k1." + "!" * 60, "damaged"),
        ("aes-gcm-1." + "k" * 5000 + ".AAAA", "is not in the key ring"),
    ],
)
def test_text_of_another_making_is_refused_in_a_short_sentence(text, problem):
    with pytest.raises(EncryptionError, match=problem) as caught:
        AesGcmCodec(key_ring("k1")).decrypt(text, PLACE)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_no_text_does_anything_but_be_refused(text):
    for candidate in (text, f"aes-gcm-1.k1.{text}"):
        with pytest.raises(EncryptionError):
            AesGcmCodec(key_ring("k1")).decrypt(candidate, PLACE)


@pytest.mark.parametrize("plain", [b"", b"{", b"NaN", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_sealed_and_is_no_json_is_refused(plain):
    sealed = {ENCRYPTED_KEY: AesGcmCodec(key_ring("k1")).encrypt(plain, PLACE)}
    with pytest.raises(EncryptionError, match="cannot be decrypted"):
        payload_encryption("k1").decrypt(sealed, (PLACE,))


def test_without_a_codec_what_is_sealed_is_never_taken_for_a_value():
    sealed = payload_encryption("k1").encrypt({"a": 1}, (PLACE,))
    with pytest.raises(EncryptionError, match="no codec is set here"):
        NO_ENCRYPTION.decrypt(sealed, (PLACE,))
    assert NO_ENCRYPTION.encrypt({"a": 1}, (PLACE,)) == {"a": 1}
    assert NO_ENCRYPTION.decrypt({"a": 1}, (PLACE,)) == {"a": 1}


def test_the_document_says_how_to_make_the_bytes():
    """Only with what docs/protocol.md says, and the values it gives."""
    key = bytes.fromhex(told("key"))
    place, plain = told("associated data"), told("plaintext").encode()
    info = b"saga-engine aes-gcm-1 " + place.encode()
    first = hmac.digest(key, info + b"\x01", "sha256")
    second = hmac.digest(key, first + info + b"\x02", "sha256")
    assert first.hex() == told("encryption key")
    assert second.hex() == told("nonce key")
    nonce = hmac.digest(second, plain, "sha256")[:12]
    assert nonce.hex() == told("nonce")
    associated = f"aes-gcm-1.{told('key id')}.{place}".encode()
    sealed = nonce + AESGCM(first).encrypt(nonce, plain, associated)
    text = base64.urlsafe_b64encode(sealed).decode().rstrip("=")
    assert json.loads(told("encrypted")) == {"$encrypted": f"aes-gcm-1.{told('key id')}.{text}"}


def test_the_values_of_the_document_are_those_of_the_code():
    codec = AesGcmCodec(KeyRing({told("key id"): bytes.fromhex(told("key"))}))
    sealed = seal(codec, told("plaintext").encode(), told("associated data"))
    assert {ENCRYPTED_KEY: sealed} == json.loads(told("encrypted"))
    assert codec.decrypt(sealed, told("associated data")) == told("plaintext").encode()


def told(name):
    """A value of the worked example."""
    example = PROTOCOL.rpartition("An example:")[2]
    found = re.search(rf"^{name} {{2,}}(\S.*)$", example, re.MULTILINE)
    assert found is not None
    return found[1]
