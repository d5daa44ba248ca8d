"""
TLS to RabbitMQ and PostgreSQL: what a URL requests, and why a handshake failed.

TLS is always verified, against an authority and against the host's name. Encryption without
verification is refused, because it only looks safe. Certificate files are read again for each
connection, so that they can be replaced while a process runs.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import parse_qsl, urlsplit

from saga_engine.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class UrlParameterNames:
    """The names of the TLS parameters in a URL's query, and the name of the URL in messages."""

    ca: str
    certificate: str
    key: str
    url_name: str


BROKER_PARAMETERS = UrlParameterNames("cafile", "certfile", "keyfile", "SAGA_ENGINE_BROKER_URL")
"""The names of aiormq, which are similar to those of RabbitMQ's own clients."""

BROKER_STREAM_PARAMETERS = UrlParameterNames(
    "cafile", "certfile", "keyfile", "SAGA_ENGINE_BROKER_STREAM_URL"
)
"""The same names, for the stream protocol."""

DATABASE_PARAMETERS = UrlParameterNames("sslrootcert", "sslcert", "sslkey", "the database URL")
"""The names of libpq and psql (PostgreSQL manual, 32.1.2)."""

SSLMODE = "sslmode"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """
    Paths of PEM files: the authorities to trust, and the client's certificate with its key.

    Without `ca`, the system's authorities are trusted. Without `key`, it is in `certificate`.
    """

    parameter_names: UrlParameterNames
    ca: str = ""
    certificate: str = ""
    key: str = ""


def broker_tls_files(url: str) -> TlsFiles | None:
    """
    Read the TLS files of a RabbitMQ URL; None for `amqp://` and `rabbitmq-stream://`.

    Raises:
        ConfigurationError: it requests something other than verified TLS.
    """
    scheme = url.partition(":")[0]
    names = BROKER_PARAMETERS if scheme in ("amqp", "amqps") else BROKER_STREAM_PARAMETERS
    parameters = _query_parameters(url, names)
    tls_parameters = {names.ca, names.certificate, names.key}
    for name in parameters:
        if name not in tls_parameters and _TLS_PARAMETER_PATTERN.search(name):
            raise ConfigurationError(
                f"{names.url_name} has the parameter {name}, which is not for it: certificates are"
                f" always checked. Its parameters are {', '.join(sorted(tls_parameters))}."
            )
    if scheme in _SECURE_SCHEMES.values():
        return _tls_files(names, parameters)
    if tls_parameters & parameters.keys():
        raise ConfigurationError(
            f"{names.url_name} names certificates, but {scheme}:// is without TLS. Say"
            f" {_SECURE_SCHEMES.get(scheme, 'amqps')}://."
        )
    return None


def database_tls_files(url: str) -> TlsFiles | None:
    """
    Read the TLS files of a PostgreSQL URL; None without sslmode, or with `sslmode=disable`.

    Raises:
        ConfigurationError: it requests something other than verified TLS.
    """
    parameters = _query_parameters(url, DATABASE_PARAMETERS)
    tls_parameters = {
        SSLMODE,
        DATABASE_PARAMETERS.ca,
        DATABASE_PARAMETERS.certificate,
        DATABASE_PARAMETERS.key,
    }
    for name in parameters:
        if name not in tls_parameters and _TLS_PARAMETER_PATTERN.search(name):
            raise ConfigurationError(
                f"The database URL has the parameter {name}, which is not for it. For TLS say"
                " sslmode=verify-full; sslrootcert, sslcert and sslkey name files."
            )
    mode = parameters.get(SSLMODE, "disable")
    if mode not in ("disable", "verify-full"):
        raise ConfigurationError(
            "The database URL has an sslmode that does not make sure who answers, or is none. Say"
            " sslmode=verify-full, or disable for a connection that needs no TLS."
        )
    if mode == "disable" and (tls_parameters - {SSLMODE}) & parameters.keys():
        raise ConfigurationError(
            "The database URL names certificates without asking for TLS. Say sslmode=verify-full."
        )
    return _tls_files(DATABASE_PARAMETERS, parameters) if mode == "verify-full" else None


def create_ssl_context(files: TlsFiles) -> ssl.SSLContext:
    """
    Create an SSL context from the files.

    Raises:
        ConfigurationError: a file cannot be read or is not valid; the text says which.
    """
    parameter_names = files.parameter_names
    try:
        ssl_context = ssl.create_default_context(cafile=files.ca or None)
    except OSError as error:
        raise ConfigurationError(
            _unusable_file_message(parameter_names, parameter_names.ca, files.ca, error)
        ) from None
    if files.certificate:
        try:
            # A service must not ask for the passphrase of a key on its terminal.
            ssl_context.load_cert_chain(files.certificate, files.key or None, password="")
        except OSError as error:
            names, path = (
                f"{parameter_names.certificate} or {parameter_names.key}",
                files.key or files.certificate,
            )
            raise ConfigurationError(
                _unusable_file_message(parameter_names, names, path, error)
            ) from None
    return ssl_context


def handshake_problem(error: BaseException | None, parameter_names: UrlParameterNames) -> str:
    """
    Explain a failed handshake, as the rest of a sentence whose subject is the server.

    Empty if neither the error nor its causes are about TLS.
    """
    for each in _exception_chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            problem_text = _CERTIFICATE_PROBLEMS.get(each.verify_code, "").format(
                ca=parameter_names.ca, url=parameter_names.url_name
            )
            return (
                f"shows a certificate that {problem_text or f'is not valid: {each.verify_message}'}"
            )
        if isinstance(each, ssl.SSLError):
            reason = str(each.reason or "no reason given")
            for pattern, text in _HANDSHAKE_PROBLEMS.items():
                if re.search(pattern, reason):
                    return text.format(
                        certificate=parameter_names.certificate,
                        key=parameter_names.key,
                        url=parameter_names.url_name,
                    )
            return f"does not agree on TLS: {reason.replace('_', ' ').lower()}"
    return ""


_SECURE_SCHEMES = {"amqp": "amqps", "rabbitmq-stream": "rabbitmq-stream+tls"}
_TLS_PARAMETER_PATTERN = re.compile(r"(?i)ssl|tls|verif|cert|ca(file|path|data)|keyfile")

_CERTIFICATE_PROBLEMS: Mapping[int, str] = MappingProxyType(
    {  # X509_V_ERR_* of OpenSSL's x509_vfy.h
        9: "is not valid yet. Correct the clocks, or renew the certificate",
        10: "has expired. Renew the server's certificate",
        18: "it signed itself. Name it as {ca} in {url} if it is the right one",
        19: "comes from an authority that we do not trust. Name that as {ca} in {url}",
        20: "comes from an authority that we do not trust. Name that as {ca} in {url}",
        21: "comes from an authority that we do not trust. Name that as {ca} in {url}",
        62: "is for another host. Correct the host in {url}, or the certificate",
        64: "is for another host. Correct the host in {url}, or the certificate",
    }
)
_HANDSHAKE_PROBLEMS: Mapping[str, str] = MappingProxyType(
    {
        "WRONG_VERSION|RECORD_LAYER|UNEXPECTED_EOF|HTTP_REQUEST|PACKET_LENGTH": (
            "does not speak TLS on this port. Correct the port in {url}, or switch TLS on there"
        ),
        "CERTIFICATE_REQUIRED|ALERT_HANDSHAKE_FAILURE": (
            "requires a client certificate. Name it as {certificate} and {key} in {url}"
        ),
        "ALERT_.*(CERTIFICATE|UNKNOWN_CA)": (
            "refuses the client certificate. Correct {certificate} in {url}, or let the server"
            " trust its authority"
        ),
    }
)


def _query_parameters(url: str, parameter_names: UrlParameterNames) -> dict[str, str]:
    """
    Read the parameters of a URL that all parsers interpret alike.

    Some parsers end the host at the first / ? or #, others only after the last @. A password that
    contains one of these would hide the TLS parameters here, while the driver connects.
    """
    _, *after_authority = re.split("[/?#]", url.partition("://")[2])
    if "@" in "".join(after_authority):
        raise ConfigurationError(
            f"{parameter_names.url_name} has an @ after a / or ? or #. In a user's name, a"
            " password or a parameter"
            " write them as %40, %2F, %3F and %23."
        )
    try:
        return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    except ValueError:
        raise ConfigurationError(
            f"{parameter_names.url_name} cannot be read: it is not a URL."
        ) from None


def _tls_files(parameter_names: UrlParameterNames, parameters: Mapping[str, str]) -> TlsFiles:
    ca, certificate, key = (
        parameters.get(each, "")
        for each in (parameter_names.ca, parameter_names.certificate, parameter_names.key)
    )
    if key and not certificate:
        raise ConfigurationError(
            f"{parameter_names.url_name} has {parameter_names.key} without"
            f" {parameter_names.certificate}. Name the certificate too."
        )
    return TlsFiles(parameter_names, ca, certificate, key)


def _unusable_file_message(
    parameter_names: UrlParameterNames, wrong_parameters: str, path: str, error: OSError
) -> str:
    if isinstance(error, ssl.SSLError):
        reason = "it is not a PEM file, its key does not fit it, or the key wants a passphrase"
    else:
        reason = error.strerror or type(error).__name__
    return (
        f"The file {path!r} cannot be used: {reason}. Correct {wrong_parameters} in"
        f" {parameter_names.url_name}."
    )


def _exception_chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []  # a driver may raise an error from a later one
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__
