"""`python -m lab up|down|status|exec|sweep`: a lab from the command line. An error is one sentence and exit code 1."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from lab import lifecycle
from lab.errors import LabError


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m lab", description=sys.modules[__name__].__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    for name, text in (("up", "start a lab in the background"), ("supervise", argparse.SUPPRESS)):
        command = commands.add_parser(name, help=text)
        command.add_argument("file", type=Path, metavar="FILE")
        command.add_argument("--state", type=Path, help="state directory (default /run/wattle-lab/<name>)")
        command.add_argument("--name", help="another name than the scenario's, to run it twice")
        command.add_argument(
            "--without", action="append", default=[], metavar="NAMESPACE/NAME", help="leave this workload out"
        )
        command.add_argument(
            "--deadline", type=float, default=lifecycle.SETTLE_SECONDS, metavar="SECONDS", help="give up settling after"
        )
        command.add_argument("--json", action="store_true", help="say what was started as JSON")
    down = commands.add_parser("down", help="end a lab, or take away what a killed one left")
    down.add_argument("lab", metavar="FILE|NAME")
    status = commands.add_parser("status", help="pods, rounds and whether the lab has settled, as JSON")
    status.add_argument("lab", metavar="FILE|NAME", nargs="?")
    execute = commands.add_parser("exec", help="run a command as a process of a pod")
    execute.add_argument("lab", metavar="FILE|NAME")
    execute.add_argument("pod", metavar="NAMESPACE/POD")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    sweep = commands.add_parser("sweep", help="take away the labs whose supervisor is gone")
    sweep.add_argument("labs", metavar="NAME", nargs="*", help="only these")
    return made


def main() -> int:
    arguments = parser().parse_args()
    # What the lab writes is read by others: the agent and the aggregator need not be root.
    os.umask(0o022)
    # A terminated `up` takes its half-built lab away, as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(arguments)
    except (LabError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; nothing was left", file=sys.stderr)
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "up":
            found = lifecycle.up(
                arguments.file,
                state=arguments.state,
                left_out=tuple(arguments.without),
                name=arguments.name,
                deadline_seconds=arguments.deadline,
            )
            print(found.as_json() if arguments.json else f"lab {found.name} runs; its state is in {found.state}")
        case "supervise":
            lifecycle.run_supervisor(arguments.file, arguments.name, arguments.state, tuple(arguments.without))
        case "down":
            print(f"lab {lifecycle.down(arguments.lab)} is gone")
        case "status":
            names = [lifecycle.name_of(arguments.lab)] if arguments.lab else sorted(lifecycle.known())
            found_all = {name: lifecycle.status(name) for name in names}
            print(json.dumps(found_all[names[0]] if arguments.lab else found_all, indent=1))
        case "exec":
            words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
            if not words:
                raise LabError("exec needs a command: python -m lab exec LAB NAMESPACE/POD -- COMMAND")
            lifecycle.exec_in(lifecycle.name_of(arguments.lab), arguments.pod, words)
        case _:
            swept = lifecycle.sweep(arguments.labs)
            print(f"swept: {', '.join(swept) or 'nothing was left'}")


if __name__ == "__main__":
    sys.exit(main())
