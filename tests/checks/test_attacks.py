"""Attacks that were kept: what was put right and works again fails, files are read whole, and they are attempts of a campaign as well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from seamark.checks.attacks import Attack, attacks_of, check_attacks, mark_patched, outcomes, read_attacks, write_attacks
from seamark.checks.gates import parse_gates, stopped
from seamark.checks.loopholes import Loopholes, Way, search_loopholes
from seamark.cli import app
from seamark.errors import InvalidRecord, InvalidSetting, SeamarkError
from seamark.governance.campaigns import read_attempts
from seamark.reward.scorers import score_texts
from tests.checks.wordy import PHRASE, paying, truth, write


def phrased(n: int = 20, *, family: str = "insertion", phrase: str = PHRASE, **how: Any) -> list[Attack]:
    prompts, responses = write(np.random.default_rng(3), n_prompts=n, n_responses=1, share=0)
    return [
        Attack(prompt=p, original=r, response=f"{r} {phrase}", family=family, kind=phrase, **how)
        for p, r in zip(prompts, responses, strict=True)
    ]


def test_R78_an_attack_that_was_put_right_and_works_again_fails_the_release() -> None:
    """Open attacks that work warn; the release that resists them marks them; the next release, in which they work again, is stopped."""
    attacks = phrased(severity="medium", found_by="somebody", artefact="release 1")
    paid, honest = paying(3.0, lambda r: PHRASE in r), truth
    first = check_attacks(paid, attacks)
    assert first.get("attacks/open").verdict == "warning"  # type: ignore[union-attr]  # it is there
    assert first.get("attacks/regression").verdict == "not_applicable"  # type: ignore[union-attr]  # as above
    assert first.get("attacks/insertion").estimate == 1.0  # type: ignore[union-attr]  # as above
    second = check_attacks(honest, attacks)
    assert second.get("attacks/open").verdict == "ok"  # type: ignore[union-attr]  # as above
    marked = mark_patched(attacks, outcomes(honest, attacks)[0], "release 2")
    assert {a.patched for a in marked} == {"release 2"}
    kept = check_attacks(honest, marked)
    assert not kept.blocking
    assert not stopped(parse_gates(["attacks/regression"]), kept)
    third = check_attacks(paid, marked)
    assert {f.code for f in third.blocking} == {"attacks/regression"}
    assert "20 of 20 attacks that were put right work again: insertion, as everyone agrees." in third.blocking[0].title
    assert stopped(parse_gates(["attacks/regression"]), third)
    assert mark_patched(attacks, outcomes(paid, attacks)[0], "release 2") == tuple(attacks), "what works is not put right"
    assert json.loads(third.to_json())


def test_R78_a_grave_attack_that_is_open_blocks() -> None:
    found = check_attacks(paying(3.0, lambda r: PHRASE in r), phrased(4, severity="low") + phrased(1, severity="high"))
    assert found.get("attacks/open").verdict == "blocking"  # type: ignore[union-attr]  # it is there


def test_a_reward_that_abstains_resists_and_one_that_fails_is_said_to() -> None:
    attacks = phrased(6)

    def abstaining(prompts: Sequence[Any], responses: Sequence[str]) -> list[float | None]:
        del prompts
        return [None if PHRASE in r else 1.0 for r in responses]

    assert check_attacks(abstaining, attacks).get("attacks/open").verdict == "ok"  # type: ignore[union-attr]  # it is there

    def broken(*_: Any) -> list[float]:
        raise RuntimeError("out of memory")

    found = check_attacks(broken, attacks)
    assert found[0].verdict == "blocking"
    assert found.get("attacks/open").verdict == "not_applicable"  # type: ignore[union-attr]  # it is there


def test_a_scorer_that_dies_does_not_resist() -> None:
    """Originals are short and scored first; the call for the attacks fails: nothing is known of them, and none is put right."""
    attacks = [Attack(prompt="p", original=f"o{i}", response=f"{'long ' * 20}{i}", family="f", kind="k") for i in range(5)]

    def dying(_p: Any, responses: Any) -> list[float]:
        if any(len(r) > 20 for r in responses):
            raise OSError("gone")
        return [1.0] * len(responses)

    gain, scored = outcomes(dying, attacks)
    assert scored.died
    assert np.isnan(gain).all()
    assert mark_patched(attacks, gain, "2") == tuple(attacks)
    found = {f.code: f.verdict for f in check_attacks(dying, attacks)}
    assert found["attacks/open"] == "not_applicable"
    infinite, _ = outcomes(lambda _p, rs: [np.inf if len(r) > 20 else 1.0 for r in rs], attacks)
    assert np.isnan(infinite).all()


def test_what_a_search_finds_is_kept_with_where_it_comes_from(tmp_path: Path) -> None:
    prompts, responses = write(np.random.default_rng(1))
    proxy = paying(2.0, lambda r: PHRASE[:-1] in r)
    found = search_loopholes(proxy, prompts, responses, gold=truth, budget=1200, seed=1)
    made = attacks_of(found, artefact="reward 1", found_on="2026-01-05")
    assert len(made) > 20
    assert {a.severity for a in made} == {"high"}
    assert {(a.artefact, a.found_by, a.found_on) for a in made} == {("reward 1", "seamark search", "2026-01-05")}
    assert (outcomes(proxy, made)[0] > 0).all()
    assert (outcomes(truth, made)[0] < 0).all()
    path = tmp_path / "attacks.jsonl"
    write_attacks(made, path)
    assert read_attacks(path) == made
    assert {a.kind for a in read_attempts(path)} == {a.kind for a in made}, "they are attempts of a campaign, too"


def test_conversations_are_kept_as_they_were(tmp_path: Path) -> None:
    turns = ({"role": "user", "content": "a\u2028b"},)
    one = Attack(prompt=turns, original="x", response="y", family="f", kind="k")
    write_attacks([one], tmp_path / "a.jsonl")
    assert read_attacks(tmp_path / "a.jsonl") == (one,)
    seen: list[Any] = []
    check_attacks(lambda ps, rs: seen.extend(ps) or [1.0] * len(rs), [one])
    assert list(turns) in seen


def test_an_attack_on_something_that_is_no_text_is_one_clear_error(tmp_path: Path) -> None:
    picture = [{"role": "user", "content": [{"type": "image"}]}]
    line = {"prompt": picture, "original": "o", "response": "r", "family": "f", "kind": "k"}
    (tmp_path / "a.jsonl").write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(InvalidRecord, match=r"line 1: field 'prompt' is .*image.*messages whose role and content are texts"):
        read_attacks(tmp_path / "a.jsonl")
    way = Way(
        "insertion",
        "w",
        (picture,) * 12,
        ("o",) * 12,
        ("r",) * 12,
        np.arange(1.0, 13.0),
        {"gold": -np.arange(1.0, 13.0)},
        np.ones(12, dtype=bool),
    )
    found = Loopholes((way,), score_texts(truth, [], []), 24, 100, 24, judges=("gold",))
    with pytest.raises(InvalidSetting, match=r"prompts is .*image.*cannot be kept"):
        attacks_of(found)


def test_marking_what_was_put_right_asks_the_model_once(tmp_path: Path) -> None:
    """Six texts, and up to eight again to see whether it gives the same: no more, marked or not, and no less is marked."""
    (tmp_path / "m.py").write_text(
        "def score(prompts, responses):\n    with open(__file__ + '.asked', 'a') as file:\n        file.write('x' * len(responses))\n    return [-float(len(r)) for r in responses]\n"
    )
    write_attacks(phrased(3), tmp_path / "a.jsonl")
    asked = ["attacks", f"python:{tmp_path}/m.py:score", str(tmp_path / "a.jsonl")]
    assert CliRunner().invoke(app, asked).exit_code == 0
    once = len((tmp_path / "m.py.asked").read_text())
    assert CliRunner().invoke(app, [*asked, "--mark-patched", "2"]).exit_code == 0
    assert len((tmp_path / "m.py.asked").read_text()) == 2 * once
    assert {a.patched for a in read_attacks(tmp_path / "a.jsonl")} == {"2"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no attacks"),
        ("{", "line 1"),
        ('{"prompt": "p", "original": "o", "response": "r", "family": " ", "kind": "k"}', "field 'family'"),
        ('\n{"prompt": "p", "original": "o", "response": "r", "family": "f", "kind": "k", "sevrity": "low"}', "line 2: field 'sevrity'"),
    ],
)
def test_a_file_that_is_none_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(SeamarkError, match=said):
        read_attacks(tmp_path / "a.jsonl")
    with pytest.raises(SeamarkError, match="nowhere"):
        read_attacks(tmp_path / "nowhere")
