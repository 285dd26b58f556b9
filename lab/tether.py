"""Ties a command's life to whoever started it, through sudo and kill -9: a closed standard input ends the command.

Enters: `python -m lab.tether [--finally-down LAB] -- COMMAND...`. The command gets SIGTERM, then SIGKILL after a while;
then the lab of that name is taken down. Leaves: the command's exit code.
"""

import argparse
import os
import select
import signal
import subprocess
import sys

from lab.parts import python

_GRACE_SECONDS = 8.0


def main(arguments: list[str]) -> int:
    """Run the command until it ends or standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m lab.tether")
    parser.add_argument("--finally-down", metavar="LAB", default="")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    # Ctrl-C reaches the whole foreground process group: the one who holds our standard input decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for_end(child)
    finally:
        code = _stop(child)
        if options.finally_down:
            subprocess.run(python("lab", "down", options.finally_down), check=False)
    return code


def _wait_for_end(child: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(child.pid)
    try:
        while True:
            ready, _, _ = select.select([pidfd, sys.stdin.fileno()], [], [])
            if pidfd in ready or not os.read(sys.stdin.fileno(), 4096):
                return
    finally:
        os.close(pidfd)


def _stop(child: subprocess.Popen[bytes]) -> int:
    child.terminate()
    try:
        return child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
