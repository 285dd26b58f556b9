"""`wattle-aggregator`: configuration in, exit code out.

0 stopped or done, 1 failed, 2 cannot start like this, 5 not ready (--health).
"""

import argparse
import asyncio
import gc
import http.client
import logging
import os
import sys
from collections.abc import Sequence

from google.protobuf.internal import api_implementation

from aggregator.app import serve
from aggregator.config import Settings, database_settings_from_environment, settings_from_environment
from aggregator.errors import ConfigurationError, WattleError
from aggregator.store import migrate

PROBE_SECONDS = 3.0
NOT_READY = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the aggregator until it is told to stop."""
    parser = argparse.ArgumentParser(
        prog="wattle-aggregator", description="Learns who talks to whom; its settings are environment variables."
    )
    parser.add_argument("--health", action="store_true", help="ask the running aggregator whether it is ready, exit")
    parser.add_argument("--migrate", action="store_true", help="bring the database's schema up to date, exit")
    flags = parser.parse_args(arguments)
    if flags.health:
        return _health()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    code = 0
    try:
        if flags.migrate:
            database = database_settings_from_environment()
            migrate(database.database_url, wait_seconds=database.database_wait_seconds)
        else:
            _refuse_slow_protobuf()
            collect_rarely()
            asyncio.run(serve(settings_from_environment()))
    except* ConfigurationError as group:
        code = _report(group, 2)
    except* WattleError as group:
        code = _report(group, 1)
    return code


def collect_rarely() -> None:
    """The garbage collector looks for cycles, of which recording makes none, among links and pods that stay: by
    default at every 700 new objects, and at all of them every few hundred batches, a tenth of the recording's CPU.
    """
    gc.set_threshold(50_000, 20, 50)


def _health() -> int:
    """What the running aggregator's /readyz says; the image's HEALTHCHECK."""
    listen = os.environ.get("WATTLE_HTTP_LISTEN") or str(Settings.model_fields["http_listen"].default)
    host, _, port = listen.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        said = response.read().decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as exc:
        sys.stdout.write(f"no aggregator answers on {listen}: {exc}\n")
        return NOT_READY
    finally:
        connection.close()
    ready = response.status == http.client.OK
    sys.stdout.write(("ready" if ready else said) + "\n")
    return 0 if ready else NOT_READY


def _refuse_slow_protobuf() -> None:
    if api_implementation.Type() != "upb":
        raise ConfigurationError("protobuf runs on its pure-Python fallback; install a wheel with upb")


def _report(group: ExceptionGroup[WattleError], code: int) -> int:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):  # what failed in a task comes in a group of its own
            _report(error, code)
        else:
            sys.stderr.write(f"wattle-aggregator: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
