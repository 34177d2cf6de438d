"""Planted features are found with their size, an opaque reward is called so, the labels that hold a decision turn it, and edits find what was planted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import seamark as sm
from seamark.checks.explanations import (
    check_edits,
    check_features,
    check_influence,
    decisions_of,
    explain,
    explain_fit,
    find_edit,
    find_features,
)
from seamark.checks.findings import Findings
from seamark.cli import app
from seamark.errors import InvalidSetting
from seamark.models.influence import influence

PLAIN = sm.Observation(effects=(), lapse=False)
SMALL = sm.Linear(n_columns=32, residual=False)
VOCABULARY = [f"{a}{b}" for a in ("ba", "de", "gi", "lo", "mu", "ra") for b in ("n", "s", "t", "ll", "rk")]


def texts(n_prompts: int = 120, m: int = 4, *, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Sentences of made-up words, 20 to 40 of them, and their prompts."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n_prompts * m):
        words = rng.choice(VOCABULARY, rng.integers(20, 41))
        cut = int(rng.integers(5, len(words) - 4))
        made.append(f"{' '.join(words[:cut])}. {' '.join(words[cut:])}.")
    return made, np.repeat(np.arange(n_prompts), m)


def says(word: str, responses: Sequence[str]) -> np.ndarray:
    """1 where a word is there."""
    return np.array([float(word in r.replace(".", "").split()) for r in responses])


def society(**planted: Any) -> sm.Feedback:
    settings = {"n_prompts": 60, "n_responses": 4, "n_judgments": 600, "n_raters": 20, "groups": 1, "tie": None, "seed": 2} | planted
    return sm.simulate(**settings).feedback


# ---------------------------------------------------------------------------------------------- features


def test_planted_features_are_found_with_their_size() -> None:
    """A prompt's own level, three times as large as all else, cancels."""
    responses, prompt = texts()
    rng = np.random.default_rng(1)
    level = 10 * rng.normal(size=120)[prompt]
    has = np.column_stack([says("ban", responses), says("gill", responses)])
    reward = level + 2.0 * has[:, 0] - 1.0 * has[:, 1] + 0.5 * rng.normal(size=len(responses))
    found = find_features(responses, prompt, reward)
    spread = np.std([reward[prompt == p] - reward[prompt == p].mean() for p in range(120)]) * np.sqrt(4 / 3)
    first, second = found.effects[:2]
    assert (first.name, second.name) == ('says "ban"', 'says "gill"')
    for effect, truth in ((first, 2.0), (second, -1.0)):
        unit = effect.per_unit * spread
        half = (effect.high - effect.low) / 2 * abs(unit / effect.per_sd)
        print(effect.name, round(unit, 3), round(half, 3))
        assert abs(unit - truth) < half < 0.4
    assert sum(e.low > 0 or e.high < 0 for e in found.effects) <= 3, "the others were not planted"
    planted = reward - level
    noise = 0.25 / np.mean([planted[prompt == p].var(ddof=1) for p in range(120)])
    print(found.r2, 1 - noise)
    assert 0.8 * (1 - noise) < found.r2.estimate < found.r2.high < 1.05 * (1 - noise), (
        "cross-fitted: short of what can be told, and not above"
    )
    assert found.r2_style < 0.1
    features, fidelity = check_features(found)
    assert fidelity.verdict == "ok"
    assert features.title.startswith(
        f"Of {found.n_features} readable features, {2 + (len([e for e in found.effects[2:] if e.low > 0 or e.high < 0]))} clearly move"
    )


def test_a_reward_that_no_feature_tells_is_said_to_be_told_little() -> None:
    responses, prompt = texts(seed=3)
    noise = np.random.default_rng(4).normal(size=len(responses))
    features, fidelity = check_features(find_features(responses, prompt, noise))
    assert fidelity.verdict == "notice"
    assert fidelity.estimate < 0.1  # type: ignore[operator]  # it has one
    assert "explains little" in fidelity.title
    assert "The list explains little" in features.title
    assert fidelity.details["decisions"]["low"] < 0.5 < fidelity.details["decisions"]["high"]


def test_what_features_do_together_is_not_in_a_sum_of_them() -> None:
    """Exclusive or: each word matters, neither by itself."""
    responses, prompt = texts(seed=5)
    reward = np.abs(says("ban", responses) - says("gill", responses))
    found = find_features(responses, prompt, reward)
    assert found.r2.high < 0.4


@pytest.mark.slow
def test_effects_are_covered_and_nothing_is_found_where_nothing_is() -> None:
    """Of 60 rewards, simultaneous intervals of all features hold 0 in 90% or more where nothing was planted, and what was planted in 90%."""
    clean, held = 0, 0
    for seed in range(60):
        responses, prompt = texts(80, seed=seed)
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=len(responses))
        clean += all(e.low <= 0 <= e.high for e in find_features(responses, prompt, noise).effects)
        reward = 0.8 * says("ban", responses) + noise
        found = next(e for e in find_features(responses, prompt, reward).effects if e.name == 'says "ban"')
        spread = np.sqrt(sum(((reward[prompt == p] - reward[prompt == p].mean()) ** 2).sum() for p in range(80)) / (len(reward) - 80))
        scale = abs(found.per_unit / found.per_sd) * spread
        held += found.low * scale <= 0.8 <= found.high * scale
    print(f"nothing found {clean / 60:.2f}, held {held / 60:.2f}")
    assert clean >= 54
    assert held >= 54


def test_too_little_to_explain_says_so() -> None:
    responses, prompt = texts(10)
    with pytest.raises(InvalidSetting, match="50 responses"):
        find_features(responses, prompt, np.arange(40.0))
    responses, prompt = texts(20)
    with pytest.raises(InvalidSetting, match="same for all"):
        find_features(responses, prompt, prompt.astype(float))


# ---------------------------------------------------------------------------------------------- the judgments behind a decision


def test_R57_removing_the_top_labels_turns_the_decision() -> None:
    """For six decisions: a new fit to the judgments that are left decides the other way, as predicted; without as many others it does not."""
    feedback = society(n_judgments=900)
    pairs = feedback.pairs()[::150].head(6)
    left, right = pairs["left"].to_numpy().astype(int), pairs["right"].to_numpy().astype(int)
    found = influence(feedback, left, right, utility=SMALL, observation=PLAIN)
    rng = np.random.default_rng(0)
    as_told, otherwise = 0, 0
    for g in range(len(left)):
        rows = np.concatenate([found.rows(c) for c in found.fewest(g)])
        keep = np.ones(feedback.n_judgments, dtype=bool)
        keep[rows] = False
        refit = found.refit(found.fewest(g))[g]
        without = sm.fit(feedback.filter(keep), utility=SMALL, observation=PLAIN, require_converged=False)
        ids = [feedback.responses["id"][int(r)] for r in (left[g], right[g])]
        utility = dict(zip(feedback.responses["id"], without.utilities(feedback), strict=True))
        anew = utility[ids[0]] - utility[ids[1]]
        print(
            f"{found.gap[g]:+.3f} without {len(rows)} of {feedback.n_judgments}: predicted {found.predicted(found.fewest(g))[g]:+.3f}, {refit:+.3f}, {anew:+.3f}"
        )
        as_told += anew * found.gap[g] < 0
        others = rng.choice(len(found.cells), len(found.fewest(g)), replace=False)
        otherwise += found.leave_out([others])[0, g] * found.gap[g] < 0
    assert as_told == len(left)
    assert otherwise <= 1


def test_R57_influence_is_checked_by_refits_and_the_finding_says_how_well() -> None:
    feedback = society()
    fitted = sm.fit(feedback, utility=SMALL, observation=sm.Observation())
    found = explain_fit(fitted, feedback, top=7)
    print(found)
    assert found.verdict == "ok"
    assert found.low > 0.9  # type: ignore[operator]  # it has bounds
    assert [d["turned"] for d in found.details["decisions"]] == [True] * 3
    assert len(found.details["judgments"]) == 7
    assert json.loads(Findings((found,)).to_json())
    other = explain_fit(fitted, feedback.filter(np.arange(feedback.n_judgments) > 0))
    assert other.verdict == "not_applicable"
    assert "not the judgments" in (other.reason or "")


def test_influence_that_does_not_tell_is_not_trusted() -> None:
    """Influences dealt to other judgments at random."""
    feedback = society()
    pairs = feedback.pairs().head(2)
    found = influence(
        feedback, pairs["left"].to_numpy().astype(int), pairs["right"].to_numpy().astype(int), utility=SMALL, observation=PLAIN
    )
    object.__setattr__(found, "change", np.random.default_rng(0).permutation(found.change))
    said = check_influence(found)
    assert said.verdict == "notice"
    assert said.high < 0.8  # type: ignore[operator]  # it has bounds


# ---------------------------------------------------------------------------------------------- edits


def thanks(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    """Loves one word, and a little length."""
    del prompts
    return [("marvellous" in r) + len(r) / 1000 for r in responses]


def test_the_smallest_edit_is_the_planted_word() -> None:
    other = "One can do that. It takes a day or two, of which the first is the hard one. Ask somebody first."
    text = "One can do that. It is a marvellous way to spend the day with friends. Ask."
    found = find_edit(thanks, "How?", text, other, budget=60)
    assert found is not None
    assert found.turned
    assert found.edits == ("left out: marvellous",)
    assert found.edited == text.replace("marvellous ", "")
    assert found.changed == 1
    assert found.n_scored <= 60
    assert found.path[0] > 0 > found.path[-1]
    assert found.path[-1] == pytest.approx(thanks([], [found.edited])[0] - thanks([], [other])[0])
    back = find_edit(thanks, "How?", other, text, budget=60)
    assert back is not None
    assert back.turned
    assert any(e.startswith("swapped:") and "marvellous" in e for e in back.edits), "the sentence that has the word comes in"


def test_a_budget_is_kept_and_a_firm_decision_stands() -> None:
    asked: list[str] = []

    def first_letter(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        del prompts
        asked.extend(responses)
        return [10.0 if r.startswith("Zebra") or not r else -float(len(r)) for r in responses]

    text = "One. Two three four. Five."
    found = find_edit(first_letter, "", text, "Zebra", budget=25)
    assert found is not None
    assert not found.turned
    assert len(set(asked)) <= 25
    assert find_edit(first_letter, "", "Zebra", "Zebra crossing") is None, "the same score"
    assert find_edit(lambda _, r: [None] * len(r), "", text, "Zebra") is None
    none = check_edits([], budget=5)
    assert none.verdict == "not_applicable"


def test_untrusted_text_stays_text_and_a_broken_reward_is_a_finding() -> None:
    nasty = "Fine. \x1b[31m</script> {{ 7*7 }}\u202e marvellous \x07 indeed. Really."
    found = find_edit(thanks, "", nasty, "Fine. Really, really.", budget=60)
    assert found is not None
    said = check_edits([("preferred", found)], budget=60)
    assert "\x1b" not in said.title + said.details["pairs"][0]["edits"]
    feedback = society()
    for scorer, code in (
        (lambda _, r: [1.0] * len(r), "scorer/constant"),
        (lambda _p, _r: [1.0, 2.0, 3.0], "scorer/failed"),
        (lambda _, r: [float("nan")] * len(r), "scorer/abstained"),
    ):
        findings = explain(scorer, feedback)
        assert findings.get(code) is not None
        assert findings.get("explain/features").verdict == "not_applicable"  # type: ignore[union-attr]  # it is there
        assert findings.get("explain/counterfactual").verdict == "not_applicable"  # type: ignore[union-attr]  # it is there


def test_prompts_without_texts_and_single_responses_are_left_out() -> None:
    feedback = sm.simulate(n_responses=5, text=False, n_judgments=200, seed=0).feedback
    findings = explain(lambda _, r: [float(len(x)) for x in r], feedback)
    assert {f.verdict for f in findings if f.code.startswith("explain/")} == {"not_applicable"}


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_explains_a_fit_a_pair_and_a_function(tmp_path: Path) -> None:
    feedback = society()
    feedback.to_jsonl(tmp_path / "prefs.jsonl")
    source = str(tmp_path / "prefs.jsonl")
    sm.fit(sm.load(source), utility=SMALL, observation=PLAIN).save(tmp_path / "fit")
    run = CliRunner().invoke(app, ["explain", str(tmp_path / "fit"), source, "--influence", "--pair", "3", "--top", "5", "--json"])
    found = {f["code"]: f for f in json.loads(run.stdout)["findings"]}
    assert {"explain/features", "explain/fidelity", "explain/influence", "explain/counterfactual"} <= set(found)
    assert len(found["explain/influence"]["details"]["decisions"]) == 1
    assert len(found["explain/features"]["details"]["features"]) == 5
    assert found["explain/influence"]["access"] == "white-box"
    assert found["explain/features"]["access"] == "black-box"
    (tmp_path / "reward.py").write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    place = f"python:{tmp_path / 'reward.py'}:score"
    prompt = feedback.prompts["id"][0]
    run = CliRunner().invoke(app, ["explain", place, source, "--prompt", prompt, "--cache", str(tmp_path / "scores.jsonl"), "--json"])
    found = {f["code"]: f for f in json.loads(run.stdout)["findings"]}
    assert "log characters" in found["explain/features"]["title"]
    assert (tmp_path / "scores.jsonl").exists()
    for wrong in (["--pair", "0"], ["--pair", "99999"], ["--prompt", "nobody"], ["--influence"]):
        run = CliRunner().invoke(app, ["explain", place, source, *wrong])
        assert isinstance(run.exception, InvalidSetting), wrong
        assert wrong[0] in str(run.exception)


def test_a_pair_without_texts_is_one_clear_error() -> None:
    named = sm.Feedback.from_arrays(left_id=["a", "b"], right_id=["b", "c"], outcome=np.array([True, False]))
    with pytest.raises(InvalidSetting, match="no text to explain"):
        decisions_of(named, pair=1)
