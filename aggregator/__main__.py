"""`wattle-aggregator`: configuration in, exit code out: 0 stopped, 1 failed, 2 cannot start like this."""

import asyncio
import logging
import sys

from google.protobuf.internal import api_implementation

from aggregator.app import serve
from aggregator.config import settings_from_environment
from aggregator.errors import ConfigurationError, WattleError


def main() -> int:
    """Run the aggregator until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    code = 0
    try:
        _refuse_slow_protobuf()
        asyncio.run(serve(settings_from_environment()))
    except* ConfigurationError as group:
        code = _report(group, 2)
    except* WattleError as group:
        code = _report(group, 1)
    return code


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
