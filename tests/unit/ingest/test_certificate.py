"""When our own certificate ends, read as a client would see it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aggregator.ingest.certificate import CertificateError, certificate_end, unix_end
from tests.certificates import Authority


def test_its_end_is_read(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue("server", "DNS:localhost")
    end = certificate_end(certificate, key)
    assert end > datetime.now(tz=UTC) + timedelta(minutes=5)
    assert unix_end(certificate, key) == end.timestamp()


def test_another_ones_key_is_said(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (one, _), (_, other) = (authority.issue(name, "DNS:localhost") for name in ("one", "other"))
    with pytest.raises(CertificateError, match="with the key"):
        certificate_end(one, other)
    assert unix_end(one, other) == 0.0
    with pytest.raises(CertificateError, match="No such file"):
        certificate_end(one, tmp_path / "none")
