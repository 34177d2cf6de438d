"""The reward as trainers call it, and the rows they train on."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from seamark.aggregation import Charter, Electorate, Floors, InvalidCharter
from seamark.errors import Expired, InvalidSetting, UnreadableSource
from seamark.models import Fit, Groups, Linear, Observation, Position, Tabular, fit
from seamark.records import Feedback
from seamark.reward.signal import OUT_OF_SUPPORT, Reward, export_signal, open_fit
from seamark.simulation import Society, simulate

PLAIN = Observation(effects=(Position(),), lapse=False)
KEYS = [
    "prompt", "chosen", "rejected", "margin", "soft_label", "p_chosen", "weight", "noise", "disagreement", "noise_and_disagreement", "ignorance", "charter",
]  # fmt: skip


@pytest.fixture(scope="module")
def texts() -> tuple[Society, Fit]:
    settings: dict[str, Any] = {"careless": 0.0, "opposed": 0.0, "groups": 1, "disagreement": 0.0}
    society = simulate(n_prompts=40, n_raters=12, n_judgments=1000, **settings, seed=1)
    return society, fit(society.feedback, utility=Linear(n_columns=128), observation=PLAIN)


@pytest.fixture(scope="module")
def divided() -> tuple[Society, Fit]:
    settings: dict[str, Any] = {"careless": 0.0, "opposed": 0.0, "group_shares": (0.7, 0.3), "disagreement": 1.2}
    society = simulate(n_prompts=40, n_raters=20, n_judgments=1200, **settings, seed=2)
    return society, fit(society.feedback, utility=Linear(n_columns=64), people=Groups(), observation=PLAIN)


def _seen(feedback: Feedback, n: int = 6) -> tuple[list[str], list[str]]:
    """Prompts and completions of the first responses."""
    prompts = feedback.prompts["text"].to_list()
    return [prompts[p] for p in feedback.responses["prompt"].head(n)], feedback.responses["text"].head(n).to_list()


# ------------------------------------------------------------------------------------ the callable


def test_a_trainer_can_call_it(texts: tuple[Society, Fit]):
    """TRL: reward(prompts=, completions=, **columns) -> list[float | None], one per completion."""
    society, result = texts
    reward = Reward(result)
    prompts, completions = _seen(society.feedback)
    scores = reward(prompts=prompts, completions=completions, completion_ids=[[1]] * 6, trainer_state=None, answer=["x"] * 6)
    assert isinstance(scores, list)
    assert all(type(s) is float for s in scores)
    assert reward.__name__ == "seamark_reward"
    assert scores == reward(prompts, completions)
    json.dumps(scores)


def test_a_score_is_the_mean_less_the_penalty_times_ignorance(texts: tuple[Society, Fit]):
    society, result = texts
    prompts, completions = _seen(society.feedback)
    scores = Reward(result, charter=Charter(ignorance_penalty=2.5)).score(prompts, completions)
    assert np.abs(scores.score - (scores.mean - 2.5 * scores.ignorance)).max() < 1e-12
    assert np.abs(scores.mean - result.utilities(society.feedback)[:6]).max() < 1e-9
    assert (scores.ignorance > 0).all()
    free = Reward(result, charter=Charter(ignorance_penalty=0.0)).score(prompts, completions)
    assert (free.score == free.mean).all()


def test_a_better_text_scores_higher(texts: tuple[Society, Fit]):
    """Correlation with the planted utility over all responses, far above 0: the fit has seen each a dozen times."""
    society, result = texts
    n = society.feedback.n_responses
    prompts, completions = _seen(society.feedback, n)
    mean = Reward(result).score(prompts, completions).mean
    assert np.corrcoef(mean, society.truth.utility_by_group[:, 0])[0, 1] > 0.6


def test_conversations_score_as_their_text(texts: tuple[Society, Fit]):
    """TRL's conversational shape: prompts are lists of messages, completions lists with the assistant's messages."""
    society, result = texts
    prompts, completions = _seen(society.feedback)
    talk = Reward(result)(
        prompts=[[{"role": "system", "content": "Be brief."}, {"role": "user", "content": p}] for p in prompts],
        completions=[[{"role": "assistant", "content": c}] for c in completions],
    )
    plain = Reward(result).score(prompts, completions)
    got = np.array(talk, dtype=float)
    # what is said under another prompt is another response: its own residual is not known, so only the features count
    assert np.corrcoef(got, plain.score)[0, 1] > 0.5
    assert all(type(s) is float for s in talk)


def test_the_shape_does_not_matter_for_the_features():
    """Without a residual part a text is worth the same however it is wrapped; messages of other roles do not count."""
    society = simulate(n_prompts=30, n_raters=10, n_judgments=400, groups=1, disagreement=0.0, careless=0.0, opposed=0.0, seed=3)
    reward = Reward(fit(society.feedback, utility=Linear(n_columns=64, residual=False), observation=PLAIN))
    prompts, completions = _seen(society.feedback)
    plain = reward(prompts=prompts, completions=completions)
    asked = [[{"role": "user", "content": p}] for p in prompts]
    answered = [[{"role": "assistant", "content": c}, {"role": "tool", "content": "a result"}] for c in completions]
    talk = reward(prompts=asked, completions=answered)
    bare = reward(prompts=asked, completions=[[{"content": c}] for c in completions])
    assert np.abs(np.array(plain) - np.array(talk)).max() < 1e-12
    assert np.abs(np.array(plain) - np.array(bare)).max() < 1e-12


def test_a_message_without_content_is_an_empty_text(texts: tuple[Society, Fit]):
    """Tool calls have content null; the word None would be scored as if the model had said it."""
    _, result = texts
    reward = Reward(result)
    tool, silent = (reward.score(["q"], [[{"role": "assistant", "content": c}]]).mean[0] for c in (None, ""))
    assert tool == silent


def test_repeated_and_equal_completions_keep_their_places(texts: tuple[Society, Fit]):
    society, result = texts
    prompts, completions = _seen(society.feedback)
    order = [3, 0, 3, 5, 0]
    scores = Reward(result)(prompts=[prompts[i] for i in order], completions=[completions[i] for i in order])
    alone = Reward(result)(prompts=prompts, completions=completions)
    assert np.abs(np.array(scores) - np.array([alone[i] for i in order])).max() < 1e-12  # type: ignore[index]


def test_nothing_asked_nothing_answered(texts: tuple[Society, Fit]):
    assert Reward(texts[1])(prompts=[], completions=[]) == []


def test_as_many_prompts_as_completions(texts: tuple[Society, Fit]):
    with pytest.raises(InvalidSetting, match="one prompt for each"):
        Reward(texts[1])(prompts=["a"], completions=["b", "c"])


def test_out_of_support_it_abstains():
    """A table knows nothing about a new text: None, not a number."""
    judged = Feedback.from_columns(
        {
            "kind": ["pair"] * 60,
            "prompt": ["Which?"] * 60,
            "texts": [["one", "two"], ["two", "three"], ["one", "three"]] * 20,
            "outcome": ["left"] * 50 + ["right"] * 10,
        }
    )
    reward = Reward(fit(judged, utility=Tabular(), observation=PLAIN))
    scores = reward(prompts=["Which?"] * 3, completions=["one", "something never judged", "three"])
    assert scores[1] is None
    assert scores[0] is not None
    assert scores[2] is not None
    assert scores[0] > scores[2]
    assert np.isnan(reward.score(["Which?"], ["something never judged"]).score[0])


def test_support_decides_on_abstention(texts: tuple[Society, Fit]):
    society, result = texts
    prompts, completions = _seen(society.feedback, 3)
    scores = Reward(result).score([*prompts, "x", "x"], [*completions, "", "zzzz qqqq xxyy"])
    for support, score in zip(scores.support, scores.score, strict=True):
        assert math.isnan(score) == (math.isnan(support) or support < OUT_OF_SUPPORT)
    assert (scores.support[:3] > OUT_OF_SUPPORT).all()


def test_junk_does_not_pay(texts: tuple[Society, Fit]):
    """Texts like nothing that was ever judged: an abstention, or a score below the median of the texts that were."""
    society, result = texts
    reward = Reward(result)
    prompts, completions = _seen(society.feedback, society.feedback.n_responses)
    usual = float(np.median(np.array(reward(prompts, completions), dtype=float)))
    junk = ["", "ok", "!" * 500, "AAAA " * 300, "1 2 3 4", "?!" * 50, "the " * 400]
    for text, score in zip(junk, reward(["Which?"] * len(junk), junk), strict=True):
        assert score is None or score < usual, text


def test_a_saved_fit_rewards_alike(texts: tuple[Society, Fit], tmp_path: Path):
    society, result = texts
    result.save(tmp_path / "fit")
    signed = Charter(ignorance_penalty=0.3, authors=("me",), date="2026-01-01", rationale="We met and chose this.")
    (tmp_path / "charter.toml").write_text(signed.to_toml(), encoding="utf-8")
    prompts, completions = _seen(society.feedback)
    loaded = Reward(tmp_path / "fit", charter=tmp_path / "charter.toml")
    fresh = Reward(result, charter=Charter(ignorance_penalty=0.3))
    one, two = loaded(prompts, completions), fresh(prompts, completions)
    assert np.abs(np.array(one) - np.array(two)).max() <= 1e-12
    assert "not releasable" not in repr(loaded)
    assert "unsigned (0 of 1 author; " in repr(fresh)


def test_a_slip_in_a_path_is_not_looked_for_on_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only OWNER/NAME may be a hub name, and not where OWNER is a folder here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fits").mkdir()
    (tmp_path / "file.json").write_text("{}", encoding="utf-8")
    asked: list[str] = []
    monkeypatch.setattr("seamark.models.network.reads_conversations", lambda name: bool(asked.append(name)))
    for place in ("nofit", "fits/nofit", "./nofit", "../no/fit", "a/b/c", str(tmp_path / "nofit"), "~/nofit"):
        with pytest.raises(UnreadableSource, match=r"there is no such folder\. seamark fit writes one"):
            Reward(place)
    with pytest.raises(UnreadableSource, match="it is no folder"):
        open_fit("file.json")
    assert asked == []
    with pytest.raises(UnreadableSource, match="neither a fit nor a reward model"):
        open_fit("owner/name")
    assert asked == ["owner/name"]


def test_a_charter_with_unknown_groups_fails_before_training(texts: tuple[Society, Fit]):
    with pytest.raises(InvalidCharter, match="names group"):
        Reward(texts[1], charter=Charter(electorate=Electorate(weighting="named", weights={"nobody": 1.0})))


# ------------------------------------------------------------------------------------ the rows


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def exported(texts: tuple[Society, Fit], tmp_path_factory: pytest.TempPathFactory) -> tuple[Society, Fit, list[dict[str, Any]]]:
    path = tmp_path_factory.mktemp("signal") / "new" / "train.jsonl"
    n = export_signal(texts[1], texts[0].feedback, path)
    rows = _rows(path)
    assert n.n_rows == len(rows)
    return *texts, rows


def test_rows_have_exactly_these_keys(exported: tuple[Society, Fit, list[dict[str, Any]]]):
    assert len(exported[2]) > 100
    for row in exported[2]:
        assert list(row) == KEYS
        assert isinstance(row["prompt"], str)
        assert row["chosen"] != row["rejected"]


def test_chosen_is_what_the_electorate_prefers(exported: tuple[Society, Fit, list[dict[str, Any]]]):
    """margin is the gap, never negative; with one population the probability of the chosen is at least one half."""
    society, result, rows = exported
    code = {
        (p, t): i for i, (p, t) in enumerate(zip(society.feedback.responses["prompt"], society.feedback.responses["text"], strict=True))
    }
    prompt = {text: i for i, text in enumerate(society.feedback.prompts["text"])}
    u = result.utilities(society.feedback)
    for row in rows:
        p = prompt[row["prompt"]]
        gap = u[code[p, row["chosen"]]] - u[code[p, row["rejected"]]]
        assert row["margin"] == pytest.approx(gap, abs=1e-6)  # rows are rounded to six digits
        assert row["margin"] >= 0
        assert row["p_chosen"] >= 0.5


def test_shares_of_the_doubt_add_up(exported: tuple[Society, Fit, list[dict[str, Any]]]):
    """Rounded to six digits each. Without groups noise and disagreement are null and their sum is not."""
    for row in exported[2]:
        assert row["noise"] is None
        assert row["disagreement"] is None
        assert row["noise_and_disagreement"] + row["ignorance"] == pytest.approx(1, abs=2e-6)
        assert 0 <= row["ignorance"] <= 1


def test_weights_are_the_judgments(exported: tuple[Society, Fit, list[dict[str, Any]]]):
    society, _, rows = exported
    judged = society.feedback.judgments.select(pair=pl.col("responses").list.sort().cast(pl.List(pl.String)).list.join(" "), said="outcome")
    chosen = judged.filter((pl.col("said").cast(pl.String) != "tie").any().over("pair"))
    assert 0 < judged.height - chosen.height < 20  # pairs only ever tied are left out
    assert sum(row["weight"] for row in rows) == chosen.height
    assert len({(row["prompt"], *sorted((row["chosen"], row["rejected"]))) for row in rows}) == len(rows)


def test_groups_separate_the_doubts(divided: tuple[Society, Fit], tmp_path: Path):
    society, result = divided
    export_signal(result, society.feedback, tmp_path / "rows.jsonl")
    for row in _rows(tmp_path / "rows.jsonl"):
        assert row["noise_and_disagreement"] is None
        assert row["noise"] + row["disagreement"] + row["ignorance"] == pytest.approx(1, abs=3e-6)


def test_the_charter_decides_who_is_asked(divided: tuple[Society, Fit], tmp_path: Path):
    """Under a charter of one group alone there is nobody to disagree with: no disagreement, and p_chosen at least one half."""
    society, result = divided
    charter = Charter(electorate=Electorate(weighting="named", weights={result.groups[1]: 1.0}))
    export_signal(result, society.feedback, tmp_path / "rows.jsonl", charter=charter)
    rows = _rows(tmp_path / "rows.jsonl")
    assert len(rows) > 100
    assert min(row["p_chosen"] for row in rows) >= 0.5
    assert max(row["disagreement"] for row in rows) < 1e-6


@pytest.mark.parametrize("rule", ["expected-utility", "copeland", "maximin"])
def test_the_soft_label_is_the_charters_and_not_a_poll(divided: tuple[Society, Fit], tmp_path: Path, rule: Any):
    """Where a floor or a rule overrules most people p_chosen is below one half, and the label to train with leads to the margin all the same."""
    society, result = divided
    charter = Charter(rule=rule, floors=Floors(groups={result.groups[1]: 0.0}))
    export_signal(result, society.feedback, tmp_path / "rows.jsonl", charter=charter)
    rows = _rows(tmp_path / "rows.jsonl")
    assert any(row["p_chosen"] < 0.5 and row["margin"] >= 5 for row in rows)
    for row in rows:
        assert row["soft_label"] == pytest.approx(1 / (1 + math.exp(-row["margin"])), abs=2e-6)
        assert row["soft_label"] >= 0.5


def test_conversations_come_out_as_messages(tmp_path: Path):
    talk = json.dumps([{"role": "user", "content": "Which?"}])
    judged = Feedback.from_columns(
        {
            "kind": ["pair"] * 20,
            "prompt": [talk] * 20,
            "prompt_is_messages": [True] * 20,
            "texts": [["one thing", "two things"]] * 20,
            "outcome": ["left"] * 15 + ["right"] * 5,
        }
    )
    assert export_signal(fit(judged, utility=Tabular(), observation=PLAIN), judged, tmp_path / "rows.jsonl").n_rows == 1
    (row,) = _rows(tmp_path / "rows.jsonl")
    assert row["prompt"] == [{"role": "user", "content": "Which?"}]
    assert row["chosen"] == [{"role": "assistant", "content": "one thing"}]
    assert row["rejected"] == [{"role": "assistant", "content": "two things"}]
    assert row["weight"] == 20


def test_rankings_and_ratings_give_the_pairs_they_compared(tmp_path: Path):
    kinds = ["ranking"] * 12 + ["rating"] * 36
    texts = ["poor", "fair", "good"]
    judged = Feedback.from_columns(
        {
            "kind": kinds,
            "prompt": ["Which?"] * 48,
            "texts": [texts] * 12 + [[t] for t in texts] * 12,
            "outcome": ["answered"] * 48,
            "ranks": [[3, 2, 1]] * 9 + [[1, 2, 3]] * 3 + [None] * 36,
            "rating": [None] * 12 + [1.0, 2.0, 3.0] * 9 + [3.0, 2.0, 1.0] * 3,
        }
    )
    result = fit(judged, utility=Tabular(), observation=PLAIN)
    assert export_signal(result, judged, tmp_path / "rows.jsonl").n_rows == 3
    rows = {(row["chosen"], row["rejected"]): row["weight"] for row in _rows(tmp_path / "rows.jsonl")}
    assert rows == {("good", "fair"): 13.0, ("good", "poor"): 13.0, ("fair", "poor"): 13.0}  # 12 rankings, and once by ratings


def test_entries_without_text_give_no_rows(tmp_path: Path):
    society = simulate(text=False, n_prompts=5, n_responses=6, n_raters=5, n_judgments=100, seed=1)
    result = fit(society.feedback, observation=PLAIN)
    written = export_signal(result, society.feedback, tmp_path / "rows.jsonl")
    assert (written.n_rows, list(written.left_out)) == (0, ["without text"])
    assert str(written) == f"0 rows (pairs left out: {written.left_out['without text']} without text)"
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == ""


def test_pairs_that_were_only_tied_are_left_out_and_counted(tmp_path: Path):
    """A pair tied once and decided once is kept: somebody chose."""
    judged = Feedback.from_columns(
        {
            "kind": ["pair"] * 40,
            "prompt": ["Which?"] * 40,
            "texts": [["one", "two"]] * 10 + [["one", "three"]] * 20 + [["two", "three"]] * 10,
            "outcome": ["tie"] * 10 + ["tie", "left"] * 10 + ["both_bad"] * 10,
        }
    )
    written = export_signal(fit(judged, utility=Tabular(), observation=PLAIN), judged, tmp_path / "rows.jsonl")
    assert (written.n_rows, written.left_out) == (1, {"only ever tied": 2})
    (row,) = _rows(tmp_path / "rows.jsonl")
    assert (row["chosen"], row["rejected"], row["weight"]) == ("one", "three", 20.0)


# ------------------------------------------------------------------------------------ until when it holds


def test_an_expired_reward_raises(texts: tuple[Society, Fit], tmp_path: Path):
    """R88: the date is the charter's, so it is saved and shown where the charter is; without one nothing expires."""
    society, result = texts
    prompts, completions = _seen(society.feedback)
    yesterday, today = (datetime.now(UTC).date() - timedelta(days=d) for d in (1, 0))
    gone = Charter(valid_until=yesterday)  # type: ignore[arg-type]  # dates become text
    (tmp_path / "charter.toml").write_text(gone.to_toml(), encoding="utf-8")
    read = Charter.from_toml(tmp_path / "charter.toml")
    assert read == gone
    assert read.valid_until == yesterday.isoformat()
    reward = Reward(result, charter=read)
    assert f"valid until {yesterday}" in repr(reward)
    with pytest.raises(Expired, match=f"valid until {yesterday}, which has passed"):
        reward(prompts, completions)
    with pytest.raises(Expired, match="allow_expired"):
        export_signal(result, society.feedback, tmp_path / "signal.jsonl", charter=gone)
    assert not (tmp_path / "signal.jsonl").exists()
    plain = Reward(result)(prompts, completions)
    assert plain == Reward(result, charter=gone, allow_expired=True)(prompts, completions)
    assert plain == Reward(result, charter=Charter(valid_until=today.isoformat()))(prompts, completions)  # the last day counts
    export_signal(result, society.feedback, tmp_path / "signal.jsonl", charter=gone, allow_expired=True)
    rows = [json.loads(line) for line in (tmp_path / "signal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["valid_until"] for row in rows} == {yesterday.isoformat()}
    (tmp_path / "charter.toml").write_text('valid_until = "next year"\n', encoding="utf-8")
    with pytest.raises(InvalidCharter, match="Use a date such as 2026-12-31"):
        Charter.from_toml(tmp_path / "charter.toml")
