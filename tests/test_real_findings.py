"""What studies of real judgments say, held to numbers counted from the published files, and to truths planted among real raters."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from seamark.checks import evaluate
from seamark.models import Tabular, fit
from seamark.records import COLUMNS, Feedback
from seamark.sources import load
from seamark.study import run_study

# ---------------------------------------------------------------------------------------------- every set is studied

Require = Callable[[str, str], Any]
Fact = tuple[float, int]
"""An estimate, and the number of judgments, comparisons or questions it rests on."""


@dataclass(frozen=True)
class RealSet:
    """A published set, cut to what a minute of CI can study, and what can be counted in its files by hand."""

    folder: str
    format: str
    n_judgments: int
    facts: Callable[[Path, Require], dict[str, Fact]]
    """From the published files alone, without Seamark."""
    keep: Callable[[Feedback], pl.Expr] | None = None
    """The judgments studied; all where there is no need to cut."""


def _table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def _of_prompts(names: set[str]) -> Callable[[Feedback], pl.Expr]:
    return lambda feedback: pl.col("prompt").is_in([i for i, name in enumerate(feedback.prompts["name"]) if name in names])


def _of_raters(chosen: Callable[[str], bool]) -> Callable[[Feedback], pl.Expr]:
    return lambda feedback: pl.col("rater").is_in([i for i, name in enumerate(feedback.raters["id"]) if chosen(name)])


def _share(hits: pl.Series) -> Fact:
    return float(hits.mean()), len(hits)  # type: ignore[arg-type]  # mean of booleans is a float


def _alpha(require: Require, counts: NDArray[np.int64], level: str = "nominal") -> Fact:
    """Krippendorff's alpha by the package krippendorff, and the questions with two answers or more."""
    alpha = require("krippendorff", "Install the extra dev.").alpha(value_counts=counts, level_of_measurement=level)
    return float(alpha), int((counts.sum(1) >= 2).sum())


def _ukp(folder: Path, _: Require) -> dict[str, Fact]:
    """One debate: ties among all votes, and how often the argument with more characters wins the decided ones."""
    votes = _table(folder, "judgments").join(_table(folder, "pairs").select("pair_id", "debate", "arg1", "arg2"), on="pair_id")
    votes = votes.filter(pl.col("debate") == "ban-plastic-water-bottles")
    longer = pl.col("arg1").str.len_chars().cast(pl.Int64) - pl.col("arg2").str.len_chars().cast(pl.Int64)
    decided = votes.filter((pl.col("value") != "equal") & (longer != 0))
    won = decided.select((longer > 0) == (pl.col("value") == "a1")).to_series()
    return {"ties": _share(votes["value"] == "equal"), "length": _share(won)}


def _hh_rlhf(path: Path, _: Require) -> dict[str, Fact]:
    """How often the longer answer is the chosen one: the two dialogues begin alike, so it is the one in the longer dialogue."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        lengths = [[len(row[side].rstrip()) for side in ("chosen", "rejected")] for row in map(json.loads, lines)]
    return {"length": _share(pl.Series([chosen > rejected for chosen, rejected in lengths if chosen != rejected]))}


def _tulu(folder: Path, _: Require) -> dict[str, Fact]:
    return {"ties": _share(_table(folder, "judgments")["preference"] == "tie")}


def _fine_grained(folder: Path, _: Require) -> dict[str, Fact]:
    """The first 200 questions: ties, and how often the answer published first wins."""
    pairs = _table(folder, "preferences").filter(pl.col("q_id") < 200)["preference"]
    return {"ties": _share(pairs == 0), "position": _share(pairs.filter(pairs != 0) == 1)}


def _dices(folder: Path, require: Require) -> dict[str, Fact]:
    """Agreement of the first 30 raters on whether a conversation is unsafe; "Unsure" is no answer."""
    ratings = _table(folder, "ratings").filter(pl.col("rater_index") < 30)
    counts = ratings.group_by("item_id").agg(*((pl.col("q_overall") == answer).sum().alias(answer) for answer in ("Yes", "No")))
    return {"agreement": _alpha(require, counts.select("Yes", "No").to_numpy().astype(np.int64))}


def _hanna(folder: Path, require: Require) -> dict[str, Fact]:
    """Agreement of the three ratings of each story on each of six axes, which are grades and not numbers."""
    scores = _table(folder, "scores")
    axes = {"RE": "relevance", "CH": "coherence", "EM": "empathy", "SU": "surprise", "EG": "engagement", "CX": "complexity"}
    facts: dict[str, Fact] = {}
    for short, axis in axes.items():
        grades = scores.select(f"Human {i} {short}" for i in (1, 2, 3)).to_numpy()
        counts = np.stack([(grades == grade).sum(1) for grade in range(1, 6)], axis=1)
        facts[f"agreement/{axis}"] = _alpha(require, counts, "ordinal")
    return facts


def _llmbar(folder: Path, _: Require) -> dict[str, Fact]:
    """How often the model judges, asked plainly, choose the output they were shown first."""
    verdicts = _table(folder, "judge_verdicts").filter((pl.col("prompting") == "Vanilla") & pl.col("winner").is_not_null())
    return {"position": _share((verdicts["winner"] == 1) != verdicts["swapped"])}


def _qlora(folder: Path, _: Require) -> dict[str, Fact]:
    """GPT-4 on the 80 Vicuna questions, each pair in both orders: ties, and how often the answer shown first wins."""
    verdict = _table(folder, "vicuna_pairwise")["verdict"]
    return {"ties": _share(verdict == "tie"), "position": _share(verdict.filter(verdict.is_in(["1", "2"])) == "1")}


def _oasst(folder: Path, _: Require) -> dict[str, Fact]:
    """Of all pairs of replies in one ranking that differ in length, how often the longer one is ranked above."""
    lengths = [[len(reply) for reply in replies] for replies in _table(folder, "items")["ranked_outputs"].to_list()]
    pairs = [(a, b) for row in lengths for i, a in enumerate(row) for b in row[i + 1 :] if a != b]
    return {"length": _share(pl.Series([above > below for above, below in pairs]))}


def _polis(folder: Path, require: Require) -> dict[str, Fact]:
    """Agreement of the voters of one conversation, each voter's last vote on a statement; a pass is no answer."""
    votes = _table(folder, "votes").filter(pl.col("conversation") == "brexit-consensus").sort("timestamp", maintain_order=True)
    votes = votes.unique(["voter_id", "comment_id"], keep="last", maintain_order=True)
    counts = votes.group_by("comment_id").agg(*((pl.col("vote") == vote).sum().alias(str(vote)) for vote in (1, -1)))
    return {"agreement": _alpha(require, counts.select("1", "-1").to_numpy().astype(np.int64))}


REAL: dict[str, RealSet] = {
    "ukp": RealSet("ukp_convarg", "ukp-convarg", 4363, _ukp, lambda _: pl.col("provenance").str.contains("ban-plastic-water-bottles")),
    "hh-rlhf": RealSet("raw/hh-rlhf/harmless-base-test.jsonl.gz", "hh-rlhf", 2312, _hh_rlhf),
    "tulu": RealSet("tulu1_human_eval", "tulu", 3450, _tulu),
    "fine-grained": RealSet("fine_grained_rlhf_dev", "fine-grained", 2024, _fine_grained, _of_prompts({str(i) for i in range(200)})),
    "dices": RealSet("dices_350", "dices", 10_500, _dices, _of_raters(lambda name: int(name.removeprefix("rater")) < 30)),
    "hanna": RealSet("hanna_scores", "hanna", 19_008, _hanna),
    "llmbar": RealSet("llmbar", "llmbar", 5447, _llmbar, _of_raters(lambda name: name == "expert" or name.endswith("/Vanilla"))),
    "qlora": RealSet(
        "qlora_gpt4_judge", "qlora", 4480, _qlora, lambda f: _of_prompts({str(i) for i in range(1, 81)})(f) & (pl.col("kind") == "pair")
    ),
    "oasst": RealSet("oasst1_zh_ranked", "oasst", 775, _oasst),
    "polis": RealSet("polis", "polis", 5303, _polis, _of_prompts({"brexit-consensus"})),
}


# one of each kind of judgment; the others take a minute
QUICK = ("ukp", "dices", "hanna", "polis")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in REAL])
def test_a_study_of_real_judgments_says_what_can_be_counted(name: str, real_data: Path, tmp_path: Path, require: Require) -> None:
    """The whole study, and of its findings those that are a plain count: equal to the digit, on as many judgments."""
    chosen = REAL[name]
    source = real_data / chosen.folder
    feedback = load(source)
    assert feedback.report.format == chosen.format
    if chosen.keep is not None:
        feedback = feedback.filter(chosen.keep(feedback))
        source = tmp_path / "part"
        feedback.to_parquet(source)
    assert feedback.n_judgments == chosen.n_judgments
    made = run_study(source, tmp_path / "out")
    facts = chosen.facts(real_data / chosen.folder, require)
    assert facts
    for code, (estimate, n) in facts.items():
        found = made.findings.get(code)
        assert found is not None, code
        assert found.estimate == pytest.approx(estimate, abs=1e-9), code
        assert found.n == n, code
        assert found.low is not None
        assert found.high is not None
        assert found.low <= estimate <= found.high
    assert not made.findings.blocking, made.findings
    assert made.fit is not None
    assert made.fit.convergence.converged
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    assert f"{chosen.n_judgments:,} judgments" in page
    if feedback.responses["text"].null_count() == 0:
        assert (made.folder / "signal" / "train.jsonl").stat().st_size


@pytest.mark.slow
def test_ukp_whole(real_data: Path, tmp_path: Path) -> None:
    """The longer argument wins .687 of the decided votes (docs/findings.md)."""
    made = run_study(real_data / "ukp_convarg", tmp_path / "out")
    length = made.findings.get("length")
    assert length is not None
    assert length.estimate == pytest.approx(0.687, abs=5e-4)
    assert not made.findings.blocking


# ---------------------------------------------------------------------------------------------- planted among real raters


def _with_planted(feedback: Feedback, *, n_raters: int, n_each: int, seed: int) -> Feedback:
    """The same judgments, and those of raters who answer questions of the data at random."""
    rng = np.random.default_rng(seed)
    frame = feedback.judgments
    texts, names = feedback.responses["text"].to_list(), feedback.responses["name"].to_list()
    prompts, raters = feedback.prompts["text"].to_list(), feedback.raters["id"].to_list()
    shown, asked, by = frame["responses"].to_list(), frame["prompt"].to_list(), frame["rater"].to_list()
    rows = [(j, raters[by[j]], frame["outcome"][j]) for j in range(frame.height)]
    for planted in range(n_raters):
        answers = rng.choice(["left", "right", "tie"], n_each, p=[0.385, 0.385, 0.23])
        rows += [
            (int(j), f"planted {planted}", str(a)) for j, a in zip(rng.choice(frame.height, n_each, replace=False), answers, strict=True)
        ]
    columns = {
        "kind": ["pair"] * len(rows),
        "prompt": [prompts[asked[j]] for j, _, _ in rows],
        "prompt_is_messages": [False] * len(rows),
        "texts": [[texts[r] for r in shown[j]] for j, _, _ in rows],
        "ids": [[names[r] for r in shown[j]] for j, _, _ in rows],
        "outcome": [outcome for _, _, outcome in rows],
        "rater": [rater for _, rater, _ in rows],
    }
    assert set(columns) <= set(COLUMNS)
    return Feedback.from_columns(columns)


@pytest.fixture(scope="module")
def debates(real_data: Path) -> Feedback:
    """Three of the eleven debates of UKPConvArg1."""
    feedback = load(real_data / "ukp_convarg")
    some = sorted(feedback.judgments["provenance"].unique().to_list())[:3]
    return feedback.filter(pl.col("provenance").is_in(some))


def test_careless_raters_planted_among_real_ones_are_found(debates: Feedback):
    """40 raters with 40 random answers each, among real workers with 15 or more.

    AUC of the posterior of answering at chance, planted against real, is above .9; a clean crowd is not accused.
    """
    fitted = fit(_with_planted(debates, n_raters=40, n_each=40, seed=0), utility=Tabular(), require_identified=False)
    table = fitted.raters.filter(pl.col("n") >= 15)
    planted = table["rater"].str.starts_with("planted").to_numpy()
    score = table["p_careless"].to_numpy()
    auc = float((score[planted][:, None] > score[~planted][None, :]).mean())
    print(f"AUC of {planted.sum()} planted against {(~planted).sum()} real raters: {auc:.3f}")
    assert planted.sum() == 40
    assert auc > 0.9
    assert score[planted].mean() > 0.5
    assert score[~planted].mean() < 0.1


def test_a_rater_table_without_planted_raters_accuses_few(debates: Feedback):
    fitted = fit(debates, utility=Tabular(), require_identified=False)
    finding = next(f for f in evaluate(fitted, debates) if f.code == "rater-reliability")
    assert finding.estimate is not None
    assert finding.estimate < 0.1
    assert finding.verdict in ("ok", "notice")
