"""How long does the certificate of ingest and query hold?

Enters: its files. Leaves: a finding.
"""

from datetime import datetime, timedelta
from pathlib import Path

from aggregator.doctor.finding import Finding, ill, poor, well
from aggregator.ingest.certificate import CertificateError, certificate_end

SOON = timedelta(days=14)
WAY_OUT = "renew it: `helm upgrade` where tls.mode=self-made, else look at cert-manager's Certificate"


def check_certificate(certificate_file: Path, key_file: Path, now: datetime) -> Finding:
    try:
        left = certificate_end(certificate_file, key_file) - now
    except CertificateError as exc:
        return ill("certificate", str(exc), WAY_OUT)
    if left < SOON:
        return poor("certificate", f"ends in {left.days} days", WAY_OUT)
    return well("certificate", f"{left.days} days left")
