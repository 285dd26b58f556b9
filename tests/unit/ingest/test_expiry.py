"""How long a stream may live on a credential that ends."""

from datetime import UTC, datetime, timedelta

import pytest

from aggregator.ingest.expiry import stream_seconds

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left_seconds", "draw", "expected_seconds"),
    [(3600, 0.0, 3570), (3600, 1.0, 3510), (100, 1.0, 50), (40, 0.0, 20), (10, 0.5, 5), (0, 0.5, 0), (-5, 0.5, 0)],
)
def test_it_ends_before_the_credential_does(left_seconds: float, draw: float, expected_seconds: float) -> None:
    found = stream_seconds(NOON + timedelta(seconds=left_seconds), NOON, draw=lambda: draw)
    assert found == pytest.approx(expected_seconds)
