"""docs/cli.md names every command and every option, and no command or option that is not there."""

import re
from pathlib import Path

import typer.main

from aggregator.cli.main import app

TEXT = (Path(__file__).parents[3] / "docs/cli.md").read_text()


def commands() -> dict[str, set[str]]:
    """Long and short options by command."""
    group = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined] # a group, since there are commands
        found[name] = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    return found


def sections() -> dict[str, str]:
    parts = re.split(r"^## `wattle ([a-z]+)`$", TEXT, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text))


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


def test_every_exit_code_is_told() -> None:
    assert all(f"**{code}**" in sections()[""] for code in (0, 1, 2))
