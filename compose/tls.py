"""TLS of the ports: what the server shows, and how programs of this machine trust it."""

from __future__ import annotations

import ssl

from compose.config import Settings
from schemas.errors import ConfigError

__all__ = ["client_context", "server_context"]

# HTTP/2 for gRPC, HTTP/1.1 for REST: clients choose by ALPN.
_PROTOCOLS = ["h2", "http/1.1"]


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what the ports are served under, None where the settings name no certificate.

    Raises `ConfigError` where a file cannot be read, is no PEM file, or the key is not that of the certificate.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    for name, path in (("tls_certificate", settings.tls_certificate), ("tls_key", settings.tls_key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(f"Cannot read {name} {path}: {error.strerror}.", setting=name) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_PROTOCOLS)
    try:
        # Without a password at hand OpenSSL would ask for one on the terminal.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"Cannot serve TLS with tls_certificate {settings.tls_certificate} and tls_key {settings.tls_key}: "
            f"{_reason(error)}. Both must be PEM files, the key unencrypted and that of the first certificate."
        ) from error
    return context


def client_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what a program of this machine trusts its own server by, None where that does not serve TLS.

    It trusts the very certificate that the settings name, whatever address it was made for.
    """
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(settings.tls_certificate)
    except OSError as error:
        raise ConfigError(
            f"Cannot read tls_certificate {settings.tls_certificate}: {_reason(error)}.", setting="tls_certificate"
        ) from error
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)
