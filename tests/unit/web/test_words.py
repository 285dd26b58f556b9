"""Values as words: nothing from a cluster becomes mark-up."""

from datetime import UTC, datetime

import pytest

from aggregator.web.rendering import around, environment, moment, plain, plural, sentence, size, words_lines, yaml_lines

YAML = 'metadata:\n  name: "x"\n  port: 53\n- to:\n# a note\n'


def test_yaml_keeps_its_text_under_the_colours() -> None:
    assert yaml_lines(YAML).striptags().split() == YAML.split()


@pytest.mark.parametrize("line", ["<script>", 'a: "<b>"', "- <i>", '"<u>": 1', "# <s>"])
def test_yaml_is_escaped(line: str) -> None:
    assert "&lt;" in yaml_lines(line)
    assert line[line.index("<") :][:3] not in str(yaml_lines(line)).replace("<span", "").replace("</span", "")


def test_templates_escape_and_refuse_unknown_names() -> None:
    made = environment()
    assert made.autoescape is True
    assert made.from_string("{{ name }}").render(name="<script>") == "&lt;script&gt;"
    with pytest.raises(Exception, match="undefined"):
        made.from_string("{{ nmae }}").render(name="x")


@pytest.mark.parametrize(
    ("count", "word", "words"),
    [(1, "link", "1 link"), (2, "link", "2 links"), (2, "address", "2 addresses"), (1200, "policy", "1,200 policies")],
)
def test_a_count_says_what_it_counts(count: int, word: str, words: str) -> None:
    assert plural(count, word) == words


@pytest.mark.parametrize(("value", "words"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (25_000_000, "25 MB")])
def test_sizes(value: int, words: str) -> None:
    assert size(value) == words


def test_a_time_has_utc_in_its_title() -> None:
    assert 'title="2026-11-20 12:00:00 UTC"' in moment(datetime(2026, 11, 20, 12, tzinfo=UTC))
    assert moment(None) == "never"


def test_a_description_keeps_its_text_and_breaks_below_its_own_beginning() -> None:
    text = "Name:       x\n  now:      Deployment x\nIt does not:\n  - open <b>\n  1. from y\n     on z\n"
    made = str(words_lines(text))
    kinds = [part.partition('"')[0] for part in made.split('<span class="')[1:]]
    assert kinds == ["field", "field", "plain", "item", "item", "plain"]
    assert "open &lt;b&gt;" in made


def test_a_typed_range_is_the_one_that_is_offered_again() -> None:
    assert (around("203.0.113.10").cidr, around("203.0.113.10").typed) == ("203.0.113.0/28", False)
    found = around("203.0.113.10", ["2001:db8::/64", "198.51.100.0/24", "203.0.113.8/30"])
    assert (found.cidr, found.others, found.typed) == ("203.0.113.8/30", 3, True)


def test_links_and_reasons_are_said_without_codes() -> None:
    assert sentence("a -> b TCP/1 is new") == "A to b TCP/1 is new."
    said = plain("egress denied (shop/web: peer-not-matched); ingress default-allow")
    assert said == "egress denied (shop/web: no rule of it means the other end); ingress not limited"
