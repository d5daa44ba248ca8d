"""A URL requests verified TLS or none, and anything less is refused."""

import pytest

from saga_engine import tls
from saga_engine.errors import ConfigurationError


@pytest.mark.parametrize("letter", ["/", "?", "#", "/@", "#@"])
def test_a_password_with_special_characters_has_to_be_encoded(letter):
    hidden = f"pa{letter}ss@h:5432/d?sslmode=verify-full&sslrootcert=/ca.pem"
    for read, url in (
        (tls.database_tls_files, f"postgresql+asyncpg://u:{hidden}"),
        (tls.broker_tls_files, f"amqps://u:{hidden}"),
    ):
        with pytest.raises(ConfigurationError, match="%23") as refused:
            read(url)
        assert "ss@" not in str(refused.value)


def test_an_encoded_password_hides_no_parameter():
    url = "postgresql+asyncpg://u:pa%23s%3Fs%2F%40@h/d?sslmode=verify-full&sslrootcert=/ca.pem"
    assert tls.database_tls_files(url) == tls.TlsFiles(tls.DATABASE_PARAMETERS, ca="/ca.pem")
