"""Whom we trust on an encrypted connection, and what to say when we do not."""

import ssl
from pathlib import Path

import certifi

from appliance.errors import ConfigError


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """A client's context: the system's authorities, Mozilla's, and those in `ca_file`. Raises ConfigError."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())  # a host without ca-certificates has no store of its own
    try:
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except FileNotFoundError:
        raise ConfigError(f"[exchange] ca_file = '{ca_file}': no such file; expected the authority's certificate as PEM") from None
    except OSError as error:  # SSLError is one
        raise ConfigError(f"[exchange] ca_file = '{ca_file}': no certificate can be read from it ({error})") from None
    return context


def reason(error: ssl.SSLError, host: str) -> str:
    """What is wrong with a host's certificate, in the operator's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {host} is refused: {error.verify_message.rstrip('.')}. Not connecting without a valid one"
    return f"TLS with {host} failed: {error.reason or error}"
