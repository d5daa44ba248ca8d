"""One setting names the codec; an error in it is reported before anything runs."""

import sys

import pytest

from saga_engine.encryption.configuration import encryption_from, encryption_from_environment
from saga_engine.errors import ConfigurationError
from saga_engine.payload.encryption import NO_ENCRYPTION, EncryptionError
from saga_engine.settings import Settings
from tests.kit.encryption_keys import encryption_settings, keys_setting, payload_encryption

MODULE = """
class Reversing:
    def encrypt(self, plaintext, associated_data):
        return associated_data + plaintext.decode()[::-1]

    def decrypt(self, ciphertext, associated_data):
        return ciphertext.removeprefix(associated_data)[::-1].encode()

class Broken:
    def encrypt(self, plaintext, associated_data):
        raise KeyError(plaintext)

    def decrypt(self, ciphertext, associated_data):
        raise KeyError(ciphertext)

codec, broken, number = Reversing(), Broken(), 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "some_codecs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("some_codecs", None)


def test_without_a_codec_nothing_is_encrypted():
    assert encryption_from(Settings()) is NO_ENCRYPTION


def test_the_built_in_codec_encrypts_with_the_keys_of_the_settings():
    made = encryption_from(Settings(**encryption_settings("k1")))
    assert payload_encryption("k1").decrypt(made.encrypt(7, ("a",)), ("a",)) == 7


@pytest.mark.usefixtures("module")
def test_a_user_object_can_be_the_codec():
    made = encryption_from(Settings(payload_codec="some_codecs:codec"))
    encrypted = made.encrypt([1, 2], ("a", "b"))
    assert encrypted == {"$encrypted": "a/b]2,1["}
    assert made.decrypt(encrypted, ("a", "b")) == [1, 2]


@pytest.mark.usefixtures("module")
def test_an_error_of_a_codec_is_reported_by_its_class():
    made = encryption_from(Settings(payload_codec="some_codecs:broken"))
    with pytest.raises(EncryptionError) as caught:
        made.encrypt("a secret", ("a",))
    assert str(caught.value) == "cannot be encrypted: KeyError"
    with pytest.raises(EncryptionError) as caught:
        made.decrypt({"$encrypted": "a secret"}, ("a",))
    assert str(caught.value) == "cannot be decrypted: KeyError"


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("codec", "keys", "problem"),
    [
        ("aes-gcm", None, "SAGA_ENGINE_PAYLOAD_ENCRYPTION_KEYS is not set"),
        ("aes-gcm", "k1", "entry 1 is not id=base64"),
        (None, keys_setting("k1"), "SAGA_ENGINE_PAYLOAD_CODEC to aes-gcm"),
        ("some_codecs:codec", keys_setting("k1"), "nothing uses it"),
        ("some_codecs", None, "name an object as MODULE:NAME"),
        ("some_codecs:number", None, "has no Codec named 'number'"),
        ("nothing_at_all:codec", None, "There is no module"),
    ],
)
def test_an_invalid_configuration_is_reported(codec, keys, problem):
    with pytest.raises(ConfigurationError, match=problem):
        encryption_from(Settings(payload_codec=codec, payload_encryption_keys=keys))


def test_a_missing_package_is_reported(monkeypatch):
    monkeypatch.delitem(sys.modules, "saga_engine.encryption.aesgcm", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r"saga-engine\[crypto\]"):
        encryption_from(Settings(**encryption_settings("k1")))


def test_the_environment_is_read_once(monkeypatch):
    encryption_from_environment.cache_clear()
    try:
        assert encryption_from_environment() is NO_ENCRYPTION
        monkeypatch.setenv("SAGA_ENGINE_PAYLOAD_CODEC", "aes-gcm")
        assert encryption_from_environment() is NO_ENCRYPTION
    finally:
        encryption_from_environment.cache_clear()
