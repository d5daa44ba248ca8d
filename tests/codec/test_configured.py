"""One setting names the codec; whatever is wrong with it is said before anything runs."""

import sys

import pytest

from saga_engine.encryption.configuration import sealing_of, sealing_of_environment
from saga_engine.errors import ConfigurationError
from saga_engine.payload.encryption import PLAIN, SealError
from saga_engine.settings import Settings
from tests.codec.rings import sealing, setting, settings

MODULE = """
class Reversing:
    def seal(self, plain, place):
        return place + plain.decode()[::-1]

    def unseal(self, sealed, place):
        return sealed.removeprefix(place)[::-1].encode()

class Broken:
    def seal(self, plain, place):
        raise KeyError(plain)

    def unseal(self, sealed, place):
        raise KeyError(sealed)

codec, broken, number = Reversing(), Broken(), 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "some_codecs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("some_codecs", None)


def test_without_a_codec_nothing_is_sealed():
    assert sealing_of(Settings()) is PLAIN


def test_the_built_in_codec_seals_with_the_keys_of_the_settings():
    made = sealing_of(Settings(**settings("k1")))
    assert sealing("k1").unsealed(made.sealed(7, ("a",)), ("a",)) == 7


@pytest.mark.usefixtures("module")
def test_an_object_of_the_users_is_a_codec():
    made = sealing_of(Settings(payload_codec="some_codecs:codec"))
    sealed = made.sealed([1, 2], ("a", "b"))
    assert sealed == {"$sealed": "a/b]2,1["}
    assert made.unsealed(sealed, ("a", "b")) == [1, 2]


@pytest.mark.usefixtures("module")
def test_a_codec_that_raises_anything_is_told_by_the_name_of_what_it_raised():
    made = sealing_of(Settings(payload_codec="some_codecs:broken"))
    with pytest.raises(SealError) as caught:
        made.sealed("a secret", ("a",))
    assert str(caught.value) == "cannot be sealed: KeyError"
    with pytest.raises(SealError) as caught:
        made.unsealed({"$sealed": "a secret"}, ("a",))
    assert str(caught.value) == "cannot be unsealed: KeyError"


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("codec", "keys", "problem"),
    [
        ("aes-gcm", None, "SAGA_ENGINE_PAYLOAD_KEYS is not set"),
        ("aes-gcm", "k1", "entry 1 is not id=base64"),
        (None, setting("k1"), "SAGA_ENGINE_PAYLOAD_CODEC to aes-gcm"),
        ("some_codecs:codec", setting("k1"), "nothing uses it"),
        ("some_codecs", None, "name an object as MODULE:NAME"),
        ("some_codecs:number", None, "has no Codec named 'number'"),
        ("nothing_at_all:codec", None, "There is no module"),
    ],
)
def test_what_is_wrong_is_said(codec, keys, problem):
    with pytest.raises(ConfigurationError, match=problem):
        sealing_of(Settings(payload_codec=codec, payload_keys=keys))


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "saga_engine.encryption.aesgcm", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r"saga-engine\[crypto\]"):
        sealing_of(Settings(**settings("k1")))


def test_the_environment_is_read_once(monkeypatch):
    sealing_of_environment.cache_clear()
    try:
        assert sealing_of_environment() is PLAIN
        monkeypatch.setenv("SAGA_ENGINE_PAYLOAD_CODEC", "aes-gcm")
        assert sealing_of_environment() is PLAIN
    finally:
        sealing_of_environment.cache_clear()
