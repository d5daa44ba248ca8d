"""The codec aes-gcm is deterministic and decrypts only with the same key and associated data."""

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
def test_any_json_is_decrypted_unchanged(value):
    encryption = payload_encryption("k1")
    ciphertext = encryption.encrypt(value, (PLACE,))
    assert is_encrypted(ciphertext) or value is None or is_encrypted(value)
    if not is_encrypted(value):
        assert encryption.decrypt(ciphertext, (PLACE,)) == value
        assert json.loads(json.dumps(ciphertext)) == ciphertext


@given(st.binary(max_size=200), PLACES)
def test_encryption_is_deterministic(plain, place):
    assert AesGcmCodec(key_ring("k1")).encrypt(plain, place) == AesGcmCodec(
        key_ring("k1", "k2")
    ).encrypt(plain, place)


def encrypt(codec: AesGcmCodec, plain: bytes, place: str) -> str:
    """What a codec that has a key makes of it."""
    ciphertext = codec.encrypt(plain, place)
    assert ciphertext is not None
    return ciphertext


@given(st.binary(min_size=1, max_size=50), PLACES, PLACES)
def test_a_ciphertext_is_bound_to_its_associated_data(plain, place, other):
    codec = AesGcmCodec(key_ring("k1"))
    ciphertext = codec.encrypt(plain, place)
    assert ciphertext is not None
    assert codec.decrypt(ciphertext, place) == plain
    if other != place:
        assert codec.encrypt(plain, other) != ciphertext
        with pytest.raises(EncryptionError, match="moved in transit"):
            codec.decrypt(ciphertext, other)


def test_nonces_and_keys_differ_by_message_and_associated_data():
    codec = AesGcmCodec(key_ring("k1"))
    texts = [encrypt(codec, b"%d" % n, place) for n in range(500) for place in (PLACE, "other")]
    nonces = {text.split(".")[2][:16] for text in texts}
    assert len(nonces) == 1000


def test_the_first_key_encrypts_and_all_keys_decrypt():
    old = encrypt(AesGcmCodec(key_ring("k1")), b"old", PLACE)
    rotated = AesGcmCodec(key_ring("k2", "k1"))
    assert rotated.decrypt(old, PLACE) == b"old"
    assert encrypt(rotated, b"new", PLACE).startswith("aes-gcm-1.k2.")


def test_a_missing_key_is_named():
    ciphertext = encrypt(AesGcmCodec(key_ring("k2")), b"secret", PLACE)
    with pytest.raises(EncryptionError, match="key 'k2' is not in the key ring"):
        AesGcmCodec(key_ring("k1")).decrypt(ciphertext, PLACE)


def test_another_key_with_the_same_id_is_detected():
    ciphertext = encrypt(AesGcmCodec(KeyRing({"k1": KEYS["k2"]})), b"secret", PLACE)
    with pytest.raises(EncryptionError, match="the bytes of key 'k1' differ"):
        AesGcmCodec(key_ring("k1")).decrypt(ciphertext, PLACE)


@pytest.mark.parametrize("bit", range(0, 8 * 36, 7))
def test_a_changed_bit_is_detected(bit):
    codec = AesGcmCodec(key_ring("k1"))
    prefix, data = encrypt(codec, b"a secret", PLACE).rsplit(".", 1)
    raw = bytearray(base64.urlsafe_b64decode(data))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EncryptionError, match="changed or moved"):
        codec.decrypt(f"{prefix}.{base64.urlsafe_b64encode(raw).decode()}", PLACE)


@pytest.mark.parametrize("length", range(61))
def test_a_truncated_ciphertext_is_detected(length):
    codec = AesGcmCodec(key_ring("k1"))
    ciphertext = encrypt(codec, b"a secret", PLACE)
    with pytest.raises(EncryptionError):
        codec.decrypt(ciphertext[:length], PLACE)


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
def test_foreign_text_is_refused_in_a_short_sentence(text, problem):
    with pytest.raises(EncryptionError, match=problem) as caught:
        AesGcmCodec(key_ring("k1")).decrypt(text, PLACE)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_any_text_is_refused_without_another_error(text):
    for candidate in (text, f"aes-gcm-1.k1.{text}"):
        with pytest.raises(EncryptionError):
            AesGcmCodec(key_ring("k1")).decrypt(candidate, PLACE)


@pytest.mark.parametrize("plain", [b"", b"{", b"NaN", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_encrypted_bytes_that_are_not_json_are_refused(plain):
    ciphertext = {ENCRYPTED_KEY: AesGcmCodec(key_ring("k1")).encrypt(plain, PLACE)}
    with pytest.raises(EncryptionError, match="cannot be decrypted"):
        payload_encryption("k1").decrypt(ciphertext, (PLACE,))


def test_without_a_codec_a_ciphertext_is_not_taken_for_a_value():
    ciphertext = payload_encryption("k1").encrypt({"a": 1}, (PLACE,))
    with pytest.raises(EncryptionError, match="no codec is set here"):
        NO_ENCRYPTION.decrypt(ciphertext, (PLACE,))
    assert NO_ENCRYPTION.encrypt({"a": 1}, (PLACE,)) == {"a": 1}
    assert NO_ENCRYPTION.decrypt({"a": 1}, (PLACE,)) == {"a": 1}


def test_the_document_specifies_the_ciphertext():
    """Only with what docs/protocol.md says, and the values it gives."""
    key = bytes.fromhex(documented("key"))
    place, plain = documented("associated data"), documented("plaintext").encode()
    info = b"saga-engine aes-gcm-1 " + place.encode()
    first = hmac.digest(key, info + b"\x01", "sha256")
    second = hmac.digest(key, first + info + b"\x02", "sha256")
    assert first.hex() == documented("encryption key")
    assert second.hex() == documented("nonce key")
    nonce = hmac.digest(second, plain, "sha256")[:12]
    assert nonce.hex() == documented("nonce")
    associated = f"aes-gcm-1.{documented('key id')}.{place}".encode()
    ciphertext = nonce + AESGCM(first).encrypt(nonce, plain, associated)
    text = base64.urlsafe_b64encode(ciphertext).decode().rstrip("=")
    assert json.loads(documented("encrypted")) == {
        "$encrypted": f"aes-gcm-1.{documented('key id')}.{text}"
    }


def test_the_values_of_the_document_are_those_of_the_code():
    codec = AesGcmCodec(KeyRing({documented("key id"): bytes.fromhex(documented("key"))}))
    ciphertext = encrypt(codec, documented("plaintext").encode(), documented("associated data"))
    assert {ENCRYPTED_KEY: ciphertext} == json.loads(documented("encrypted"))
    assert (
        codec.decrypt(ciphertext, documented("associated data")) == documented("plaintext").encode()
    )


def documented(name):
    """A value of the worked example."""
    example = PROTOCOL.rpartition("An example:")[2]
    found = re.search(rf"^{name} {{2,}}(\S.*)$", example, re.MULTILINE)
    assert found is not None
    return found[1]
