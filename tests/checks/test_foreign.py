"""Any reward model against people, by its scores alone: worlds in which what responses are worth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from sentences import assert_written
from typer.testing import CliRunner

import seamark as sm
from seamark.checks.findings import Findings
from seamark.checks.foreign import evaluate_scores
from seamark.checks.optimisation import check_scorers
from seamark.cli import app
from seamark.errors import InvalidSetting
from seamark.reward.scorers import Scorer, open_scorer

WORTH = {f"response {i} of {p}": v for p, row in enumerate(np.random.default_rng(0).normal(0, 1.5, (120, 4))) for i, v in enumerate(row)}


def judged(n_raters: int = 12, *, turned: str = "", seed: int = 0) -> sm.Feedback:
    """Pairs of responses to 120 prompts by Bradley-Terry raters; on the axis `turned` they prefer what is worth less."""
    rng = np.random.default_rng(seed)
    texts = np.array(list(WORTH)).reshape(120, 4)
    rows: list[dict[str, object]] = []
    for rater in range(n_raters):
        for p in range(120):
            a, b = rng.permutation(4)[:2]
            axis = ("tone", "facts")[rng.integers(2)]
            gap = WORTH[texts[p, a]] - WORTH[texts[p, b]]
            won = rng.random() < expit(-gap if axis == turned else gap)
            rows.append(
                {
                    "prompt": f"prompt {p}",
                    "left": texts[p, a],
                    "right": texts[p, b],
                    "outcome": "left" if won else "right",
                    "axis": axis,
                    "rater": f"r{rater}",
                }
            )
    frame = pl.DataFrame(rows)
    return sm.Feedback.from_arrays(**{name: frame[name].to_list() for name in frame.columns})


def scoring(factor: float, *, flat: str = "") -> Scorer:
    return lambda _prompts, responses: [factor * WORTH[r] if r != flat else 0.0 for r in responses]


def of(findings: Findings, code: str) -> sm.checks.Finding:
    return next(f for f in findings if f.code == code)


def test_figures_are_those_of_plain_formulas() -> None:
    feedback = judged()
    found = evaluate_scores(scoring(1.0), feedback, logits=True)
    frame = feedback.pairs()
    text = feedback.responses["text"].to_list()
    gap = np.array([WORTH[text[a]] - WORTH[text[b]] for a, b in frame.select("left", "right").iter_rows()])
    won = (frame["outcome"].cast(pl.String) == "left").to_numpy()
    assert of(found, "accuracy").estimate == pytest.approx(((gap > 0) == won).mean())
    assert of(found, "brier").estimate == pytest.approx(((expit(gap) - won) ** 2).mean())
    assert of(found, "log-loss").estimate == pytest.approx(-np.log(np.where(won, expit(gap), expit(-gap))).mean())
    assert of(found, "coverage/held-out").title == "The reward model scores both responses of all of 1,440 decided held-out comparisons."
    assert {f.access for f in found if f.code != "leakage"} == {"black-box"}
    for finding in found:
        assert_written(finding)
        assert "the fit" not in finding.title.lower()


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "ok"), (3.0, "warning")])
def test_R17_planted_over_confidence_is_its_temperature(factor: float, verdict: str) -> None:
    found = evaluate_scores(scoring(factor), judged(), logits=True)
    calibration = of(found, "calibration")
    assert calibration.verdict == verdict
    _, low, high = calibration.details["temperature"]
    assert low < factor < high


def test_scores_in_any_unit_are_scaled_by_other_prompts() -> None:
    """What one prompt's people said makes no probability of its own: of noise, nothing can be learned."""
    feedback = judged()
    found, plain = evaluate_scores(scoring(40.0), feedback), evaluate_scores(scoring(1.0), feedback, logits=True)
    assert of(found, "scale").details["per_unit"] == pytest.approx(1 / 40, rel=0.15)
    assert of(found, "calibration").verdict == "ok"
    assert of(found, "brier").estimate == pytest.approx(of(plain, "brier").estimate, abs=0.003)
    rng = np.random.default_rng(1)
    noise = {text: float(v) for text, v in zip(WORTH, rng.normal(size=len(WORTH)), strict=True)}
    nothing = evaluate_scores(lambda _, responses: [noise[r] for r in responses], feedback)
    assert of(nothing, "scale").verdict == "warning"
    assert of(nothing, "calibration").verdict == "not_applicable"
    assert of(nothing, "baseline").verdict in ("blocking", "warning")


def test_R36_an_axis_that_is_answered_the_wrong_way_round_is_named() -> None:
    found = evaluate_scores(scoring(1.0), judged(20, turned="tone"))
    finding = of(found, "accuracy/axis")
    assert finding.verdict == "warning"
    assert "wrong more often than right on tone" in finding.title
    assert finding.high is not None
    assert finding.high < 0.5
    assert {row["axis"] for row in finding.details["slices"]} == {"tone", "facts"}
    assert of(evaluate_scores(scoring(1.0), judged(20)), "accuracy/axis").verdict == "ok"


@pytest.mark.parametrize(
    ("scorer", "code", "said"),
    [
        (lambda _, responses: [float("nan")] * len(responses), "scorer/abstained", "gave 359 texts no score"),
        (lambda _, responses: [1.0] * len(responses), "scorer/constant", "have the same score"),
        (lambda *_: [1.0] * 7, "scorer/failed", "it gave 7 scores for 256 texts"),
        (lambda *_: 1 / 0, "scorer/failed", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_reward_model_that_is_no_good_is_a_finding(scorer: Scorer, code: str, said: str) -> None:
    found = evaluate_scores(scorer, judged(2))
    assert said in of(found, code).title
    assert of(found, "accuracy").verdict == "not_applicable"
    assert Findings(tuple(found)).blocking


def test_what_it_was_trained_on_is_looked_for() -> None:
    feedback = judged(3)
    assert of(evaluate_scores(scoring(1.0), feedback, train=feedback), "leakage").verdict == "blocking"
    assert of(evaluate_scores(scoring(1.0), feedback), "leakage").verdict == "not_applicable"


# ---------------------------------------------------------------------------------------------- the commands


def test_the_command_takes_a_table_and_a_function(tmp_path: Path) -> None:
    feedback = judged()
    source, table, code = tmp_path / "prefs.jsonl", tmp_path / "scores.csv", tmp_path / "mine.py"
    feedback.to_jsonl(source)
    prompt = feedback.prompts["text"].to_list()
    rows = [(prompt[p], text, 2 * WORTH[text]) for p, text in feedback.responses.select("prompt", "text").iter_rows()]
    pl.DataFrame(rows, schema=["prompt", "response", "score"], orient="row").write_csv(table)
    code.write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    done = CliRunner().invoke(app, ["evaluate", str(table), str(source), "--logits", "--json"])
    assert done.exit_code == 0, done.output
    found = {f["code"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["calibration"]["details"]["temperature"][0] == pytest.approx(2, rel=0.2)
    done = CliRunner().invoke(app, ["evaluate", f"python:{code}:score", str(source), "--fail-on", "accuracy.low < 0.7"])
    assert done.exit_code == 1
    assert "stopped by --fail-on: accuracy.low is" in done.stderr


def test_options_of_scores_are_refused_for_a_fit(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="--logits"):
        CliRunner().invoke(app, ["evaluate", str(tmp_path), "prefs.jsonl", "--logits"], catch_exceptions=False)


def test_R14_reward_models_are_ranked_by_what_following_them_leads_to(tmp_path: Path) -> None:
    """Gold is a signal of the judgments; the reward that is nearer to it is the more useful one, and following its opposite does harm."""
    feedback = judged()
    rng = np.random.default_rng(2)
    rough = {text: v + float(e) for (text, v), e in zip(WORTH.items(), rng.normal(0, 2, len(WORTH)), strict=True)}
    scorers: dict[str, Scorer] = {"good": scoring(1.0), "rough": lambda _, rs: [rough[r] for r in rs], "bad": scoring(-1.0)}
    found = check_scorers(scorers, feedback, utility=sm.Tabular())
    assert [f.code for f in found if f.code.startswith("usefulness/")] == ["usefulness/good", "usefulness/rough", "usefulness/bad"]
    assert of(found, "usefulness/bad").verdict == "blocking"
    one = check_scorers({"bad": scoring(-1.0)}, feedback, utility=sm.Tabular())
    assert of(one, "optimisation/best-of-n").verdict == "blocking"
    assert of(one, "filtration").estimate is not None
    dead = check_scorers({"good": scoring(1.0), "none": lambda _, rs: [None] * len(rs)}, feedback, utility=sm.Tabular())
    assert {f.code for f in dead} >= {"usefulness/good", "scorer/good", "scorer/none", "scorer/abstained/none"}
    alone = check_scorers({"none": lambda _, rs: [None] * len(rs)}, feedback, utility=sm.Tabular())
    assert of(alone, "optimisation/regret").verdict == "not_applicable"
    scores = tmp_path / "scores.csv"
    gold = np.array(list(WORTH.values()))
    columns = {"prompt": np.repeat(np.arange(120), 4), "good": gold, "bad": -gold, "gold": gold}
    pl.DataFrame(columns).write_csv(scores)
    done = CliRunner().invoke(app, ["optimise", "--scores", str(scores), "--proxy", "bad", "--proxy", "good"])
    assert "good is the most useful" in done.stdout.replace("\n", " ")
    assert done.exit_code == 1
    with pytest.raises(InvalidSetting, match="--proxy"):
        CliRunner().invoke(app, ["optimise", "prefs.jsonl", "--proxy", "bad"], catch_exceptions=False)


def test_scores_written_in_any_way_are_read(tmp_path: Path) -> None:
    """A score whose point comes late, and responses that look like numbers, stay what they are."""
    feedback = judged(2)
    texts = feedback.responses["text"].to_list()
    prompt = feedback.prompts["text"].to_list()
    rows = [
        (prompt[p], t, i if i < len(texts) - 1 else 0.5)
        for i, (p, t) in enumerate(zip(feedback.responses["prompt"].to_list(), texts, strict=True))
    ]
    table = tmp_path / "scores.csv"
    lines = ["prompt,response,score", *(f"{p},{t},{s}" for p, t, s in [("7", "1.50", 3), *rows])]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scorer = open_scorer(table)
    assert np.asarray(scorer(["7"], ["1.50"]), dtype=float) == [3]
    assert np.asarray(scorer([rows[-1][0]], [rows[-1][1]]), dtype=float) == [0.5]


def test_a_wrong_number_of_scores_that_single_calls_mend_is_said() -> None:
    found = evaluate_scores(lambda _, responses: [WORTH[responses[0]]], judged(2))
    assert of(found, "scorer/batches").verdict == "warning"
    assert "1 score for" in of(found, "scorer/batches").title


def test_of_several_reward_models_a_dead_one_does_not_hide_the_others() -> None:
    scorers: dict[str, Scorer] = {"good": scoring(1.0), "bad": scoring(-1.0), "none": lambda _, rs: [None] * len(rs)}
    found = check_scorers(scorers, judged(), utility=sm.Tabular())
    assert [f.code for f in found if f.code.startswith("usefulness/")] == ["usefulness/good", "usefulness/bad"]
    assert of(found, "scorer/none").verdict == "blocking"
    assert len({f.code for f in found}) == len(found)
    assert of(found, "optimisation/gold").verdict == "ok"
