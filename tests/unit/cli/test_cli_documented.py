"""docs/cli.md names every command and every option, and no command or option that is not there."""

import re
from pathlib import Path
from typing import Any

import typer.main

from aggregator.cli.main import app

TEXT = (Path(__file__).parents[3] / "docs/cli.md").read_text()


def commands() -> dict[str, set[str]]:
    """Long and short options by command."""
    group = typer.main.get_command(app)
    return {name: options_of(command) for name, command in group.commands.items()}  # type: ignore[attr-defined] # a group


def options_of(command: Any) -> set[str]:
    """Its own, and those of its subcommands."""
    own = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    return own.union(*(options_of(each) for each in getattr(command, "commands", {}).values()))


def before_the_command() -> set[str]:
    return {o for p in typer.main.get_command(app).params for o in p.opts if o.startswith("-")}


def sections() -> dict[str, str]:
    """By command; "" is what stands before the first one of each half."""
    offline, online = TEXT.split("# Asking a running aggregator\n")
    found = {"": ""}
    for half in (offline, online):
        parts = re.split(r"^## `wattle ([a-z]+)`$", half, flags=re.MULTILINE)
        found[""] += parts[0]
        found |= dict(zip(parts[1::2], parts[2::2], strict=True))
    return found


def options_in(text: str) -> set[str]:
    text = re.sub(r"kubectl (?!wattle)[^`\n]*", "", text)  # other people's options
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][a-z-]*", text))


def test_every_command_has_a_section() -> None:
    assert set(sections()) - {""} == set(commands())


def test_every_option_is_told_in_its_section_or_at_the_top() -> None:
    shared = options_in(sections()[""])
    for name, options in commands().items():
        told = options_in(sections()[name])
        assert options <= told | shared, name
        assert told <= options | shared, name
        for option in options & {"--output", "--profile"}:
            assert option in shared


def test_every_option_before_the_command_is_told_at_the_top() -> None:
    assert before_the_command() - {"--show-completion"} <= options_in(sections()[""])


def test_every_subcommand_is_told() -> None:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for each in getattr(command, "commands", {}):
            assert f"`{each}" in sections()[name], f"{name} {each}"


def test_every_exit_code_is_told() -> None:
    assert all(f"**{code}**" in sections()[""] for code in (0, 1, 2))
