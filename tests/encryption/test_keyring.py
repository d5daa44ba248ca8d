"""Keys are read from a setting or a file, in order, and never shown."""

import base64

import pytest

from saga_engine.encryption.keyring import KeyRing
from saga_engine.errors import ConfigurationError
from tests.kit.encryption_keys import KEYS, keys_setting

SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def test_keys_are_read_in_order_and_the_first_is_current():
    ring = KeyRing.parse(keys_setting("k2", "k1"))
    assert ring.current_key_id == "k2"
    assert (ring["k1"], ring["k2"]) == (KEYS["k1"], KEYS["k2"])
    assert "k3" not in ring


def test_keys_are_read_from_a_file_one_a_line(tmp_path):
    path = tmp_path / "keys"
    path.write_text(keys_setting("k2", "k1").replace(",", "\n") + "\n\n")
    assert KeyRing.parse(f"@{path}").current_key_id == "k2"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it holds no key"),
        (" , ", "it holds no key"),
        (SECRET, "the key of entry 1 has 0 bytes"),
        (f"{SECRET}=k1=", "the key of entry 1 is not base64"),
        ("k1", "entry 1 is not id=base64"),
        (f"k1={SECRET},{SECRET}", "the key of entry 2 has 0 bytes"),
        ("none", "it holds no key"),
        (f"k1={SECRET},none", "entry 2 is not id=base64"),
        (f"k 1={SECRET}", "entry 1 is not id=base64"),
        (f"k1={SECRET},k1={SECRET}", "the id of entry 2 is a duplicate"),
        ("k1=0123456789abcdef", "the key of entry 1 has 12 bytes, not 32"),
        (f"k1=!{SECRET}", "the key of entry 1 is not base64"),
        ("@/nowhere/at/all", "its file cannot be read"),
    ],
)
def test_an_invalid_key_ring_is_reported_without_a_key(text, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        KeyRing.parse(text)
    assert "openssl rand" in str(caught.value)
    assert SECRET.rstrip("=") not in str(caught.value)


def test_the_repr_shows_no_key():
    ring = KeyRing.parse(f"k1={SECRET}")
    assert repr(ring) == "KeyRing(k1; k1 encrypts)"


def test_a_key_ring_may_only_decrypt():
    ring = KeyRing.parse("none," + keys_setting("k2", "k1"))
    assert ring.current_key_id is None
    assert (ring["k1"], ring["k2"]) == (KEYS["k1"], KEYS["k2"])


@pytest.mark.parametrize("keys", [{}, {"k.1": b"x" * 32}, {"k1": b"x"}])
def test_a_key_ring_made_in_code_is_checked_too(keys):
    with pytest.raises(ConfigurationError):
        KeyRing(keys)
