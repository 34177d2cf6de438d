"""What is told to whom: the score of a card from its text, and redaction that forgets in favour of silence."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamark.aggregation import Charter
from seamark.checks.findings import Finding
from seamark.errors import InvalidSetting
from seamark.governance import append, append_charter, read
from seamark.governance.disclosure import (
    DEFAULT_RULES,
    HEADING,
    INDICATORS,
    InvalidRules,
    Rules,
    disclosure_rows,
    known_disclosures,
    question_rows,
    redact,
    report_for,
    require_indicators,
    score_card,
)
from seamark.governance.log import KINDS
from seamark.governance.registers import QUESTIONS
from seamark.records import Feedback
from seamark.sources import load

# ---------------------------------------------------------------------------------------------- R110: transparency


def card(said: dict[str, str]) -> str:
    rows = "\n".join(f"| {name} | {text} |" for name, text in disclosure_rows(said))
    return f"# Card\n\n## {HEADING}\n\n| indicator | disclosed |\n|---|---|\n{rows}\n\n## Findings\n\n| wages | 5 |\n"


def test_R110_the_score_is_read_from_the_card_alone() -> None:
    nothing = score_card(card({}))
    assert (nothing.score, len(nothing.missing)) == (0.0, len(INDICATORS))
    two = score_card(card({"wages": "15 euros an hour", "employer": "the hospital"}))
    assert two.disclosed == {"wages": "15 euros an hour", "employer": "the hospital"}
    assert two.score == 2 / 14
    full = score_card(card({i.name: f"{i.question} 1" for i in INDICATORS}))
    assert (full.score, full.missing, full.to_finding().verdict) == (1.0, {}, "ok")
    assert score_card("# Card without the section\n").score == 0.0
    assert "the card has no such row" in score_card("").missing.values()


@pytest.mark.parametrize("text", ["", "-", "none", "N/A", "TBD", "Unknown.", "not disclosed", "Not stated", "  "])
def test_R110_words_for_nothing_disclose_nothing(text: str) -> None:
    assert score_card(card({i.name: text for i in INDICATORS})).score == 0.0


def test_R110_some_indicators_take_a_number() -> None:
    found = score_card(card({"wages": "above the minimum", "employer": "a firm"}))
    assert found.missing["wages"] == "it takes a number"
    assert list(found.disclosed) == ["employer"]
    assert sum(i.figure for i in INDICATORS) == 3


def test_R110_what_stands_elsewhere_does_not_count() -> None:
    """A heading and rows inside a fenced block, or the same row in another section, are not the section."""
    fenced = f"````toml\n## {HEADING}\n```\n| wages | 5 euros |\n````\n## Findings\n| wages | 5 euros |\n"
    assert score_card(fenced).score == 0.0
    assert score_card(fenced + f"## {HEADING}\n| wages | 5 euros |\n").score == 1 / 14
    assert score_card(f"## {HEADING}\n| wages | a \\| b 3 |\n").disclosed == {"wages": "a | b 3"}


def test_R110_the_finding_says_what_is_missing() -> None:
    found = score_card(card({"wages": "5 euros"})).to_finding()
    assert (found.estimate, found.n, found.verdict) == (1 / 14, 14, "notice")
    assert "not human labour, employer" in found.title
    assert found.reason is not None
    assert "card alone" in found.reason


def test_feedback_tells_what_it_can(real_data: Path) -> None:
    """DICES: who, how many, and of what kind; against the same counts made by hand elsewhere in the tests."""
    found = known_disclosures(load(real_data / "dices_350"))
    assert "123 raters" in found["feedback summary"]
    assert "43,050 judgments" in found["feedback summary"]
    assert "wages" not in found
    require_indicators(found)
    assert score_card(card(found)).disclosed.keys() == found.keys()


def test_places_of_raters_are_counted() -> None:
    n = 5
    data = Feedback.from_columns({
        "kind": ["thumbs"] * n, "texts": [["a"]] * n, "thumb": [True] * n, "outcome": ["answered"] * n, "rater": [f"r{i}" for i in range(n)],
        "rater_kind": ["person"] * n, "guideline_version": ["g2"] * n,
        "rater_profile": [json.dumps({"country": c}) for c in ("IN", "US", "IN", "FR")] + [None],
    })  # fmt: skip
    found = known_disclosures(data)
    assert found["geography"] == "raters by country: IN 2, FR 1, US 1; not known of 1"
    assert found["human labour"] == "judgments by 5 raters of kind person"
    assert found["instructions"] == "guideline g2"


def test_an_unknown_indicator_names_the_nearest() -> None:
    with pytest.raises(InvalidSetting, match=r"'wage'.*nearest is 'wages'"):
        require_indicators(["wage"])


def test_R112_all_questions_are_listed_and_open_ones_say_so() -> None:
    rows = question_rows({"population.who": "Nurses."})
    assert len(rows) == len(QUESTIONS)
    assert [answer for _, _, answer in rows].count("open") == len(QUESTIONS) - 1
    assert ("population", "Whose preferences are these, and who is affected without having been asked?", "Nurses.") in rows


# ---------------------------------------------------------------------------------------------- N26: redaction

NAMES = st.sampled_from(["a", "b", "c"])
RULES = st.lists(
    st.tuples(st.lists(NAMES | st.just("*"), min_size=1, max_size=3), st.booleans()).map(
        lambda t: ".".join(t[0] + (["**"] if t[1] else []))
    ),
    max_size=4,
)
RECORDS = st.recursive(
    st.integers(0, 9), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=10
)


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in leaves(part, (*path, name))]
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part, path)]
    return [(path, value)]


def named(path: tuple[str, ...], rule: str) -> bool:
    """Whether a rule names a leaf, one name at a time."""
    names = rule.split(".")
    if names[-1] == "**":
        names = names[:-1]
        path = path[: len(names)]
    return len(names) == len(path) and all(n in ("*", p) for n, p in zip(names, path, strict=True))


@settings(max_examples=300, deadline=None)
@given(record=RECORDS, shown=RULES)
def test_N26_what_a_rule_names_is_shown_and_nothing_else(record: Any, shown: list[str]) -> None:
    """Against a flat reading: the leaves that are left are those that some rule names, in order."""
    rules = Rules.model_validate({"peer": {"show": shown}})
    found = redact(record, rules, "peer")
    left = [(path, value) for path, value in leaves(found) if path[-1:] != ("redacted",)]
    assert left == [(path, value) for path, value in leaves(record) if any(named(path, rule) for rule in shown)]
    assert redact(record, rules, "public") in (
        {"redacted": "not shown to the public"},
        record if record == {} else {"redacted": "not shown to the public"},
    )


def test_N26_a_redacted_part_says_so_and_leaves_nothing() -> None:
    rules = Rules.model_validate({"public": {"show": ["a.b", "list.n"]}})
    record = {"a": {"b": 1, "c": "secret"}, "list": [{"n": 1, "who": "r17"}], "raters": {"r17": 1, "r18": 2}, "many": [1, 2, 3]}
    hidden = {"redacted": "not shown to the public"}
    assert redact(record, rules, "public") == {
        "a": {"b": 1, "c": hidden},
        "list": [{"n": 1, "who": hidden}],
        "raters": hidden,
        "many": hidden,
    }
    assert redact(record, rules, "regulator") == {"redacted": "not shown to a regulator"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    append_charter(path, Charter(title="Whose", authors=("Ana",)), actor="Ana Actor")
    append(path, "exclusion", {"what": "rater r17", "n": 12, "reason": "answered in a second each"}, actor="Ben Actor")
    append(path, "near-miss", {"what": "reward hacked by hedging", "detected_by": "Chi", "averted_by": "stop rule"}, actor="Chi Actor")
    append(path, "electorate", {"poll": "p", "voters": {"v1": "g"}, "options": ["A"]}, actor="Ana Actor")
    append(path, "ballot", {"poll": "p", "voter": "v1", "choice": "A"}, actor="v1")
    return path


FOUND = Finding(
    code="accuracy", title="70%", estimate=0.7, reason="By prompt.", details={"raters": [{"rater": "r17", "text": "my raw words"}]}
)


def test_N26_three_recipients_are_told_three_things(log: Path) -> None:
    said = {who: report_for(who, read(log), [FOUND]) for who in ("public", "peer", "regulator")}
    text = {who: json.dumps(report) for who, report in said.items()}
    for secret, seen_by in {
        "Whose": ("public", "peer", "regulator"),
        "hedging": ("peer", "regulator"),
        "answered in a second": ("peer", "regulator"),
        "By prompt.": ("peer", "regulator"),
        "Chi Actor": ("regulator",),
        "my raw words": ("regulator",),
        '"v1"': (),
    }.items():
        assert tuple(who for who in text if secret in text[who]) == seen_by, secret
    assert "v1" not in text["peer"]
    for who, report in said.items():
        assert report["head"].startswith("5:")
        assert report["redacted"] == text[who].count('"redacted": "not shown') > 0
        assert [e["seq"] for e in report["log"]] == list(range(5))
    assert said["public"]["redacted"] > said["peer"]["redacted"] > said["regulator"]["redacted"]


def test_N26_nobody_is_given_the_nonce_of_a_ballot(log: Path) -> None:
    """With it, who voted for what could be tried against the hash, which everyone has."""
    ballots = [e for e in read(log) if e.kind in ("ballot", "electorate")]
    for who in ("public", "peer", "regulator"):
        text = json.dumps(report_for(who, read(log)))
        for entry in ballots:
            assert entry.hash in text
            assert entry.nonce not in text


def test_N26_a_torn_ballot_is_shown_to_nobody(log: Path) -> None:
    """What a crash left of a ballot is kept by the repair, and is as secret as the ballot."""
    append(log, "ballot", {"poll": "p", "voter": "v1", "choice": "torn choice"}, actor="v1")
    log.write_bytes(log.read_bytes()[:-10])
    append(log, "note", {"text": "afterwards"}, actor="Ana Actor")
    assert "torn choice" in read(log)[5].body["torn"]
    for who in ("public", "peer", "regulator"):
        report = report_for(who, read(log))
        assert "torn choice" not in json.dumps(report)
        assert report["log"][5]["hash"] == read(log)[5].hash


def test_N26_a_kind_that_no_rule_knows_is_redacted(log: Path) -> None:
    append(log, "incident", {"what": "x", "harm": "y", "who": "patient Smith"}, actor="Ana")
    assert "patient Smith" not in json.dumps(report_for("public", read(log)))
    only = report_for("public", read(log), rules=Rules())
    assert only["log"][0] == {"redacted": "not shown to the public"}
    assert only["head"] == {"redacted": "not shown to the public"}
    assert read(log)[0].hash not in json.dumps(only)


def test_an_empty_log_and_no_findings() -> None:
    assert report_for("peer", [])["head"] == "0:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[pubic]\nshow = []", r"unknown key pubic\. The nearest known key is public"),
        ("[public]\nhide = []", r"unknown key public\.hide\. The nearest known key is show"),
        ('[public]\nshow = ["**"]', "not \\*\\* by itself"),
        ('[public]\nshow = ["a..b"]', "is no path"),
        ('[public]\nshow = ["**.a"]', "is no path"),
        ("[public", "rules.toml"),
    ],
)
def test_wrong_rules_are_named(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRules, match=problem):
        Rules.from_toml(path)


def test_the_default_rules_are_a_file_to_edit(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(DEFAULT_RULES, encoding="utf-8")
    rules = Rules.from_toml(path)
    shown = [set(getattr(rules, who).show) for who in ("public", "peer", "regulator")]
    assert all(shown)
    with pytest.raises(InvalidSetting, match="recipient is 'press'"):
        redact({}, rules, "press")  # type: ignore[arg-type]


def test_N26_more_is_never_shown_to_the_public_than_to_a_peer_or_a_regulator() -> None:
    """The default rules are nested, on records of every kind of entry with random bodies."""
    rng = random.Random(0)
    rules = Rules.parse(DEFAULT_RULES)
    for kind in KINDS:
        body = {name: f"{name} {rng.random()}" for name in (*KINDS[kind], "extra")}
        record = {
            "log": {kind: {"seq": 1, "time": "t", "kind": kind, "actor": "a", "nonce": "x", "body": body, "previous": "p", "hash": "h"}}
        }
        seen = [
            {leaf for leaf in leaves(redact(record, rules, who)) if leaf[0][-1:] != ("redacted",)}
            for who in ("public", "peer", "regulator")
        ]
        assert seen[0] <= seen[1] <= seen[2], kind
