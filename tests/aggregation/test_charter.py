"""The charter: written out whole, read back equal, refused with the nearest key where it is wrong."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from seamark.aggregation import Charter, Effects, Electorate, Floors, InvalidCharter, Recency, collective_gaps
from seamark.aggregation.charter import UNDECIDED
from seamark.errors import SeamarkError
from seamark.models import Fit, Groups, Linear, Observation, Position, fit
from seamark.records import Feedback
from seamark.simulation import Society, simulate

PLAIN = Observation(effects=(Position(),), lapse=False)
# TOML cannot hold lone surrogates, and neither can UTF-8
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OWN: dict[str, Any] = {"date": "2026-01-31", "rationale": "We met and chose this."}
POSITIVE = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@pytest.fixture(scope="module")
def divided() -> tuple[Society, Fit]:
    apart: dict[str, Any] = {"careless": 0.0, "opposed": 0.0, "n_raters": 20, "group_shares": (0.75, 0.25), "disagreement": 1.0}
    society = simulate(text=False, n_prompts=10, n_responses=10, n_judgments=900, **apart, seed=1)
    return society, fit(society.feedback, people=Groups(), observation=PLAIN)


def named(weights: dict[str, float]) -> Electorate:
    """These weights, which are made to add up to 1."""
    total = sum(weights.values())
    return Electorate(weighting="named", weights={name: weight / total for name, weight in weights.items()})


def _read(text: str, folder: Path) -> Charter:
    path = folder / "charter.toml"
    path.write_text(text, encoding="utf-8")
    return Charter.from_toml(path)


# ------------------------------------------------------------------------------------ files


def test_the_default_is_written_out(tmp_path: Path):
    text = Charter().to_toml()
    for key in (*Charter.model_fields, *Electorate.model_fields, *Effects.model_fields):
        assert key in text
    assert _read(text, tmp_path) == Charter()


@settings(max_examples=60, deadline=None)
@given(
    title=TEXT,
    rationale=TEXT,
    date=st.dates().map(str),
    authors=st.lists(TEXT, max_size=3),
    weights=st.dictionaries(TEXT, POSITIVE, max_size=3),
    penalty=POSITIVE,
    version=st.integers(0, 100),
    style=st.sampled_from(["count", "discount"]),
)
def test_charter_round_trip(tmp_path_factory: pytest.TempPathFactory, **fields: Any):
    """Any text in any place: quotes, backslashes, newlines, control characters."""
    charter = Charter(
        title=fields["title"],
        rationale=fields["rationale"],
        date=fields["date"],
        authors=tuple(fields["authors"]),
        version=fields["version"],
        ignorance_penalty=fields["penalty"],
        electorate=named(fields["weights"]) if sum(fields["weights"].values()) > 0 else Electorate(),
        effects=Effects(style=fields["style"]),
    )
    read = _read(charter.to_toml(), tmp_path_factory.getbasetemp())
    assert read == charter
    assert read.hash == charter.hash


@pytest.mark.parametrize("character", ["\x00", "\t", "\n", "\r", "\x1f", '"', "\\", "\x7f", "\x85", "\u2028", "é", "🌊"])
def test_every_kind_of_character_survives(character: str, tmp_path: Path):
    charter = Charter(title=f"a{character}b", authors=(character,), electorate=named({character: 1.0}))
    assert _read(charter.to_toml(), tmp_path) == charter


def test_an_unknown_key_names_the_nearest(tmp_path: Path):
    with pytest.raises(InvalidCharter, match=r"unknown key ignorance_penality.*nearest known key is ignorance_penalty"):
        _read("ignorance_penality = 2", tmp_path)
    with pytest.raises(InvalidCharter, match=r"unknown key electorate\.weigths.*nearest known key is weights"):
        _read("[electorate]\nweigths = {}", tmp_path)
    with pytest.raises(InvalidCharter, match=r"unknown key effects\.stile.*nearest known key is style"):
        _read('[effects]\nstile = "count"', tmp_path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ignorance_penalty = -1", "ignorance_penalty is -1"),
        ('rule = "majority"', "rule is 'majority'"),
        ('[effects]\nposition = "count"', r"effects\.position is 'count'"),
        ('[electorate.weights]\nA = "much"', r"electorate\.weights\.A is 'much'"),
        ("version = [", "charter.toml"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(text: str, named: str, tmp_path: Path):
    with pytest.raises(InvalidCharter, match=named) as caught:
        _read(text, tmp_path)
    assert "charter.toml" in str(caught.value)
    assert isinstance(caught.value, SeamarkError)


@pytest.mark.parametrize("text", ["ignorance_penalty = inf", "[electorate.weights]\nA = -1.0\nB = 2.0", "[electorate.weights]\nA = nan"])
def test_numbers_without_a_meaning_are_refused(text: str, tmp_path: Path):
    """A negative or undefined weight is no electorate; an infinite penalty makes every score -inf."""
    with pytest.raises(InvalidCharter):
        _read(text, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InvalidCharter, match=r"nowhere\.toml"):
        Charter.from_toml(tmp_path / "nowhere.toml")


# ------------------------------------------------------------------------------------ signature and identity


def test_unsigned_until_somebody_answers_for_it():
    assert not Charter().signed
    assert not Charter(authors=("A. Person",)).signed  # of the default's rationale, and of no day
    assert Charter(authors=("A. Person",), **OWN).signed


def test_the_hash_is_of_the_content():
    """Equal charters have equal hashes, and every choice changes it."""
    one = Charter(electorate=named({"a": 1.0, "b": 2.0}))
    two = Charter(electorate=named({"b": 2.0, "a": 1.0}))
    assert one.hash == two.hash
    assert len(one.hash) == 64
    others = [
        Charter(),
        Charter(ignorance_penalty=2.0),
        Charter(effects=Effects(style="discount")),
        Charter(authors=("x",)),
        Charter(title="y"),
        Charter(date="2026-01-01"),
        Charter(version=2),
        one,
    ]
    assert len({c.hash for c in others}) == len(others)


def test_a_charter_cannot_be_changed():
    with pytest.raises(ValidationError):
        Charter().title = "another"  # type: ignore[misc]


# ------------------------------------------------------------------------------------ what it does


def test_no_weights_are_the_groups_own_sizes(divided: tuple[Society, Fit]):
    _, result = divided
    assert Charter().group_weights(result) is None
    assert result.group_share.tolist() == [0.75, 0.25]


def test_weights_move_the_collective_to_the_group(divided: tuple[Society, Fit]):
    """The gap is linear in the weights, whatever their sum."""
    society, result = divided
    left, right = np.arange(9), np.arange(1, 10)
    A, B = result.groups

    def gap(**weights: float) -> np.ndarray:
        charter = Charter(electorate=named({A: weights.get("a", 0.0), B: weights.get("b", 0.0)}))
        return collective_gaps(result, charter, society.feedback, left, right).mean

    default = collective_gaps(result, Charter(), society.feedback, left, right)
    assert np.abs(gap(a=1) - default.by_group[:, 0]).max() < 1e-12
    assert np.abs(gap(b=7) - default.by_group[:, 1]).max() < 1e-12
    assert np.abs(gap(a=3, b=1) - default.mean).max() < 1e-12
    assert np.abs(gap(a=2, b=2) - (gap(a=1) + gap(b=1)) / 2).max() < 1e-12
    assert np.abs(gap(a=1) - gap(b=1)).max() > 0.5  # there is something to weigh


def test_an_unknown_group_is_named(divided: tuple[Society, Fit]):
    _, result = divided
    with pytest.raises(InvalidCharter, match=r"names group 'group C'.*group A, group B"):
        Charter(electorate=named({"group C": 1.0})).group_weights(result)


def test_groups_that_nobody_is_of_are_refused(divided: tuple[Society, Fit]):
    _, result = divided
    with pytest.raises(InvalidCharter, match=r"electorate\.groups names group 'group C'"):
        Charter(electorate=Electorate(groups=("group C",))).group_weights(result)
    with pytest.raises(InvalidCharter, match=r"floors\.groups names group 'group C'"):
        Charter(floors=Floors(groups={"group C": 0.0})).group_weights(result)


def test_weighting_rules(divided: tuple[Society, Fit], tmp_path: Path):
    """R60: named rules of weighting; R59: who counts is written out."""
    _, result = divided
    A, B = result.groups
    assert Charter(electorate=Electorate(weighting="equal")).group_weights(result) == {A: 0.5, B: 0.5}
    assert Charter(electorate=Electorate(groups=(B,))).group_weights(result) == {B: 1.0}
    (tmp_path / "census.csv").write_text(f"group,share\n{A},0.4\n{B},0.6\n", encoding="utf-8")
    charter = _read('[electorate]\nweighting = "target"\ntarget = "census.csv"', tmp_path)
    assert charter.group_weights(result) == pytest.approx({A: 0.4, B: 0.6})
    other = tmp_path / "other"
    other.mkdir()
    charter.write(other)
    assert Charter.from_toml(other / "charter.toml").hash == charter.hash  # the population goes along
    before = charter.hash
    (tmp_path / "census.csv").write_text(f"group,share\n{A},0.5\n{B},0.5\n", encoding="utf-8")
    assert charter.hash != before  # another population is another charter
    assert [name for name, *_ in charter.differences(Charter.from_toml(other / "charter.toml"))] == ["population"]
    (tmp_path / "census.csv").write_text(f"group,share\n{A},0.5\nsomebody else,0.5\n", encoding="utf-8")
    with pytest.raises(InvalidCharter, match=r"cells that the fit does not know: 'somebody else' \(50\.0%\)"):
        charter.group_weights(result)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[electorate]\nweighting = "named"\n[electorate.weights]\nA = 0.5\nB = 0.6', "electorate: the weights add up to 1.1"),
        ("[electorate.weights]\nA = 1.0", 'Weighting = "named" goes with'),
        ('[electorate]\nweighting = "named"', "no weights are given"),
        ('[electorate]\nweighting = "target"', "no target is given"),
        ('[electorate]\ntarget = "x.csv"', "a target is given"),
        ('[electorate]\ngroups = ["A"]\nweighting = "named"\n[electorate.weights]\nB = 1.0', "given to B, which groups does not name"),
        ("[electorate]\ngroups = 3", 'Write "all", or a list of groups'),
        ("[electorate]\nwithin = 0.5", r"electorate\.within is 0\.5"),
        ('rule = "cvar"', "no share is given"),
        ("share = 0.1", "rule is 'expected-utility' and a share of 0.1"),
        ('rule = "mixture"', "0 parts are given"),
        ('rule = "mixture"\n[parts]\nborda = 0.5\ndictator = 0.5', "parts names 'dictator'"),
        ('rule = "mixture"\n[parts]\nborda = 0.5', "the weights of parts add up to 0.5"),
        ("[axes]\nhelpful = 0.7", "the weights of axes add up to 0.7"),
        ('[recency]\nrule = "half-life"', "half_life_days is 0"),
        ("[recency]\nhalf_life_days = 3", "rule is 'none'"),
        ("[floors.groups]\nA = inf", r"floors\.groups\.A is inf"),
        ('[electorate]\nweighting = "target"\ntarget = "../census.csv"', "without a folder"),
        ('rule = "mixture"\n[parts]\nborda = 1.0\ncopeland = 0.0', "parts.copeland is 0.0"),
        ('date = "yesterday"', "date is 'yesterday'. Use a date such as"),
        ("ignorance_penalty = true", "ignorance_penalty is True"),
        ("version = true", "version is True"),
        ("[floors.groups]\nA = true", r"floors\.groups\.A is True"),
        ("[electorate]\nwithin = true", r"electorate\.within is True"),
        ('[electorate]\ngroups = ["A", "B", "A"]', "groups names 'A' twice"),
        ("[floors.group]\nA = 1", r"unknown key floors\.group.*groups"),
    ],
)
def test_rules_that_contradict_each_other(text: str, said: str, tmp_path: Path):
    with pytest.raises(InvalidCharter, match=said) as caught:
        _read(text, tmp_path)
    assert str(caught.value).endswith(".")


def test_it_takes_as_many_people_as_the_charter_says():
    """R65: named people sign; one who signs twice is one."""
    assert not Charter(authors=("A. Person",), signatures=2, **OWN).signed
    assert not Charter(authors=("A. Person", "a. person "), signatures=2, **OWN).signed
    assert Charter(authors=("A. Person", "B. Person"), signatures=2, **OWN).signed


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "0 of 1 author; no date; the rationale is the default charter's"),
        ({"authors": ("Ada",)}, "no date; the rationale is the default charter's"),
        ({"authors": ("Ada",), "signatures": 2, **OWN}, "1 of 2 authors"),
        ({"authors": ("Ada",), **OWN, "rationale": " \n"}, "no rationale"),
        ({"authors": ("Ada",), **OWN, "rationale": f" {UNDECIDED}\n"}, "the rationale is the default charter's"),
        ({"authors": ("Ada",), **OWN, "date": ""}, "no date"),
    ],
)
def test_what_is_missing_for_a_signature_is_said(fields: dict[str, Any], said: str):
    charter = Charter(**fields)
    assert not charter.signed
    assert charter.signature == f"unsigned ({said}): not releasable"
    assert Charter(authors=("Ada",), **OWN).signature == "signed"


def test_a_byte_order_mark_is_no_statement(tmp_path: Path):
    (tmp_path / "charter.toml").write_bytes(b"\xef\xbb\xbf" + Charter(title="Ours").to_toml().encode())
    assert Charter.from_toml(tmp_path / "charter.toml") == Charter(title="Ours")


def test_each_rule_is_named_once(tmp_path: Path):
    with pytest.raises(InvalidCharter) as caught:
        _read('rule = "copland"', tmp_path)
    assert "rule is 'copland'. The nearest is 'copeland'. It can be 'expected-utility', " in str(caught.value)
    assert str(caught.value).count("'kemeny'") == 1


# ------------------------------------------------------------------------------------ recency


def _dated() -> Feedback:
    times = [datetime(2026, 1, 1), datetime(2026, 1, 20), datetime(2026, 1, 31), datetime(2026, 3, 2)]
    columns: dict[str, Any] = {"kind": ["pair"] * 4, "prompt": ["p"] * 4, "texts": [["a", "b"]] * 4, "outcome": ["left"] * 4}
    return Feedback.from_columns(columns | {"time": times, "weight": [1.0, None, 2.0, 1.0]})


def test_half_as_much_for_every_half_life():
    charter = Charter(recency=Recency(rule="half-life", half_life_days=30.0))
    weights = charter.weigh(_dated()).judgments["weight"].to_list()
    assert weights == pytest.approx([0.25, 0.5 ** (41 / 30), 2 * 0.5, 1.0])
    assert Charter().weigh(_dated()).judgments["weight"].to_list() == [1.0, None, 2.0, 1.0]


def test_months_count_alike_and_nobody_more_than_they_did():
    weights = Charter(recency=Recency(rule="stable-core")).weigh(_dated()).judgments["weight"].to_list()
    assert weights == pytest.approx([2 / 3, 2 / 3, 4 / 3, 1.0])  # months of three and one judgment: the middle is two


def test_recency_without_times_is_refused():
    timeless = Feedback.from_columns({"kind": ["pair"], "prompt": ["p"], "texts": [["a", "b"]], "outcome": ["left"]})
    with pytest.raises(InvalidCharter, match="1 of 1 judgments have no time"):
        Charter(recency=Recency(rule="stable-core")).weigh(timeless)


def test_discounted_style_does_not_count():
    """Two texts that differ in length alone: with style discounted their gap has no style part."""
    society = simulate(
        n_prompts=40, n_raters=10, n_judgments=800, groups=1, disagreement=0.0, careless=0.0, opposed=0.0, length=1.0, seed=2
    )
    result = fit(society.feedback, utility=Linear(n_columns=64), observation=PLAIN)
    assert Charter().without() == ()
    assert Charter(effects=Effects(style="discount")).without() == ("style",)
    n = society.feedback.n_responses
    left, right = np.arange(n - 1), np.arange(1, n)
    counted, discounted = (
        collective_gaps(result, Charter(effects=Effects(style=style)), society.feedback, left, right) for style in ("count", "discount")
    )
    columns = dict(result.basis.parts)["style"]
    assert result.basis.matrix is not None
    style = result.basis.matrix[:, columns] @ result.weights[0, columns]
    assert np.abs(counted.mean - discounted.mean - (style[left] - style[right])).max() < 1e-9
    assert np.abs(style[left] - style[right]).mean() > 0.3
    assert not np.array_equal(counted.ignorance, discounted.ignorance)


def test_a_blank_name_signs_nothing():
    assert not Charter(authors=("",), **OWN).signed
    assert not Charter(authors=(" ", "\t"), **OWN).signed
    assert Charter(authors=("", "A. Person"), **OWN).signed


def test_a_value_that_is_not_taken_comes_with_those_that_are(tmp_path: Path):
    path = tmp_path / "charter.toml"
    path.write_text('[effects]\nstyle = "ignore"\n', encoding="utf-8")
    with pytest.raises(InvalidCharter, match=r"effects\.style is 'ignore'.*It can be 'count', 'discount'\."):
        Charter.from_toml(path)
    path.write_text('[effects]\nposition = "count"\n', encoding="utf-8")
    with pytest.raises(InvalidCharter, match=r"It can be 'discount' in this version\."):
        Charter.from_toml(path)
