"""When the certificate of our own doors ends, and whether its key fits.

Enters: both files. Leaves: a time, or a CertificateError with a sentence. Invariant: what is read is what a client
would see: the files serve one handshake in memory, so that nothing but the standard library parses them.
"""

import ssl
from datetime import UTC, datetime
from pathlib import Path

from aggregator.errors import ConfigurationError


class CertificateError(ConfigurationError):
    """The certificate cannot be used, or has ended."""


def certificate_end(certificate_file: Path, key_file: Path) -> datetime:
    """Raises CertificateError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is what is trusted
    try:
        server.load_cert_chain(certificate_file, key_file)
        client.load_verify_locations(certificate_file)
        return _shake_hands(client, server)
    except ssl.SSLCertVerificationError as exc:
        raise CertificateError(f"the certificate {certificate_file} is refused: {exc.verify_message}") from exc
    except (OSError, ssl.SSLError) as exc:
        raise CertificateError(f"the certificate {certificate_file} with the key {key_file}: {exc}") from exc


def unix_end(certificate_file: Path, key_file: Path) -> float:
    """Seconds since 1970, for a gauge; 0 when it has ended or cannot be read."""
    try:
        return certificate_end(certificate_file, key_file).timestamp()
    except CertificateError:
        return 0.0


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> datetime:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    seen = ours.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(seen["notAfter"])), UTC)
