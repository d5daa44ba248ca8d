"""Certificates made for one test: authorities, and what they sign, good or bad."""

import shutil
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class KeyPair(NamedTuple):
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    def replace_with(self, other: "KeyPair") -> None:
        """Replace both with another pair's, as a renewal does."""
        shutil.copyfile(other.certificate, self.certificate)
        shutil.copyfile(other.key, self.key)


class CertificateAuthority:
    """Signs certificates; `ca` is its own, to be trusted or not."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(f"authority {name}")
        certificate = (
            _builder(self._subject, self._key, from_now=-DAY, until=DAY)
            .issuer_name(self._subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_MAY_SIGN, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._certificate = certificate
        self.ca = directory / f"{name}-ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, hosts=("localhost",), from_now=-DAY, until=DAY, alone=False
    ) -> KeyPair:
        """Sign a certificate for some hosts; `alone`: it signs itself instead."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        names = [_host(host) for host in hosts]
        certificate = (
            _builder(subject, key, from_now=from_now, until=until)
            .issuer_name(subject if alone else self._subject)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    (key if alone else self._key).public_key()
                ),
                critical=False,
            )
            .sign(key if alone else self._key, hashes.SHA256())
        )
        pair = KeyPair(*(self._directory / f"{self._name}-{name}.{end}" for end in ("pem", "key")))
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        pair.key.chmod(0o600)
        return pair


_MAY_SIGN = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, from_now: timedelta, until: timedelta
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(time.time(), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + from_now)
        .not_valid_after(now + until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
