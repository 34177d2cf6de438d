"""Objectives that are taken for one, reward models ranked by what following them leads to, and what filtering by reward does and does not say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from seamark.checks import check_optimisation
from seamark.checks.findings import Finding, Findings
from seamark.checks.mismatch import associate, check_mismatch, objectives, pair_accuracy, rank_rewards
from seamark.cli import app
from seamark.errors import InvalidSetting, SeamarkError
from seamark.reward import Pool

# Malik et al. 2025 (arXiv 2506.01937), Figure 4: RewardBench 2, PPO, best-of-n of 17 reward models
STRONG = [(68.7, 59.8, 52.4), (68.0, 60.4, 53.8), (64.8, 59.9, 51.7), (60.0, 59.5, 53.6), (60.0, 60.1, 52.2), (59.9, 59.6, 51.2), (59.1, 60.3, 53.0),
          (55.6, 60.7, 51.5), (49.8, 60.2, 48.0)]  # fmt: skip
WEAK = [(42.0, 56.4, 49.8), (21.9, 54.2, 39.7), (6.1, 38.0, 20.8)]
OFF_POLICY = [(72.9, 54.5, 56.4), (71.9, 55.8, 55.7), (69.4, 56.4, 54.7), (66.7, 57.0, 50.0), (65.6, 58.5, 49.2)]


def columns(rows: list[tuple[float, float, float]]) -> dict[str, list[float]]:
    return dict(zip(("RewardBench 2", "PPO", "best-of-n"), (list(c) for c in zip(*rows, strict=True)), strict=True))


def get(found: Findings, code: str) -> Finding:
    finding = found.get(code)
    assert finding is not None, [f.code for f in found]
    return finding


# ---------------------------------------------------------------------------------------------- the register


def test_N36_the_same_benchmark_score_has_opposite_uses() -> None:
    """RewardBench 2 against PPO, 17 reward models: Pearson .717 [.36, .89], Spearman -.039; off-policy alone -.947 and -1; the 9 strong on-policy ones -.253
    and -.335; without the weak ones -.718 [-.90, -.30]; against best-of-n .915 and .793.
    """
    found = check_mismatch(columns(STRONG + WEAK + OFF_POLICY))
    ppo = get(found, "mismatch/RewardBench 2/PPO")
    assert (ppo.estimate, ppo.low, ppo.high) == pytest.approx((0.717, 0.36, 0.89), abs=5e-3)
    assert ppo.details["spearman"] == pytest.approx(-0.039, abs=5e-4)
    assert ppo.verdict == "warning"
    assert "a few rows carry it" in ppo.title
    best = get(found, "mismatch/RewardBench 2/best-of-n")
    assert (best.estimate, best.details["spearman"]) == pytest.approx((0.915, 0.793), abs=5e-4)
    assert best.verdict == "ok"
    off = get(check_mismatch(columns(OFF_POLICY)), "mismatch/RewardBench 2/PPO")
    assert (off.estimate, off.details["spearman"]) == pytest.approx((-0.947, -1.0), abs=5e-4)
    assert off.verdict == "blocking"
    assert off.details["spearman_low"] == pytest.approx(-1)
    assert -0.9 < off.details["spearman_high"] < 0, "five that agree wholly are few"
    strong, without_weak = (associate(*list(columns(rows).values())[:2]) for rows in (STRONG, STRONG + OFF_POLICY))
    assert (strong.pearson, strong.spearman) == pytest.approx((-0.253, -0.335), abs=5e-4)
    assert (without_weak.pearson, without_weak.pearson_low, without_weak.pearson_high) == pytest.approx((-0.718, -0.90, -0.30), abs=5e-3)
    register = get(found, "mismatch")
    assert register.estimate == pytest.approx(1 / 3)
    assert register.verdict == "warning"
    assert json.loads(found.to_json())


def test_N36_three_objectives_of_planted_policies_disagree_where_it_was_planted() -> None:
    """Reward models with a Gaussian error: accuracy goes with evaluation. With a spike of 0 to 8 on one response in twenty, whatever its worth: accuracy stays above .93, and the further the policy
    climbs the less it is worth, which is blocking."""
    gauss = check_mismatch({k: v for k, v in objectives(models("gauss", 30)).items() if k != "usefulness"})
    assert get(gauss, "mismatch/accuracy/evaluation").verdict == "ok"
    spiked = models("spike", 30)
    table = objectives(spiked)
    assert table["accuracy"].min() > 0.93
    found = check_mismatch({k: v for k, v in table.items() if k != "usefulness"}, names=list(spiked))
    climbed = get(found, "mismatch/climbed/evaluation")
    assert climbed.verdict == "blocking"
    assert climbed.high < -0.5  # type: ignore[operator]  # it has an interval
    assert "more climbed goes with less evaluation" in climbed.title
    assert get(found, "mismatch").details["objectives"] == ["accuracy", "climbed", "evaluation"]
    assert len(found) == 4


def test_intervals_of_correlations_cover() -> None:
    """1,000 samples of 15 normal pairs with a correlation of .6: Pearson's interval holds .6, and Spearman's the rank correlation (6 / pi) asin(.3), in about 95%."""
    rng = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(0.3)
    inside = []
    for _ in range(1000):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=15).T
        a = associate(x, y)
        inside.append((a.pearson_low < 0.6 < a.pearson_high, a.spearman_low < truth < a.spearman_high))
    print(np.mean(inside, axis=0))
    assert (np.abs(np.mean(inside, axis=0) - 0.95) < 0.025).all()
    x, y = np.array([1, 2, 2, 4, 5.0]), np.array([2, 1, 3, 3, 5.0])
    assert associate(x, y).spearman == pytest.approx(stats.spearmanr(x, y).statistic), "ties share ranks"


def test_the_command_reads_a_table_of_models_and_objectives(tmp_path: Path) -> None:
    """The numbers of 17 reward models, a cell of which is empty: what the function says of the columns."""
    table = columns(STRONG + WEAK + OFF_POLICY)
    table["PPO"][2] = float("nan")
    names = [f"model {i}" for i in range(17)]
    path, run = tmp_path / "models.csv", CliRunner().invoke
    rows = [[names[i], *("" if np.isnan(c[i]) else str(c[i]) for c in table.values())] for i in range(17)]
    path.write_text("\n".join(",".join(row) for row in [["model", *table], *rows]), encoding="utf-8")
    expected = check_mismatch(table, names=names)
    done = run(app, ["mismatch", str(path), "--json"])
    assert done.exit_code == (1 if expected.blocking else 0), done.output
    said = json.loads(done.stdout)["findings"]
    assert [(f["code"], f["estimate"], f["n"]) for f in said] == [(f.code, f.estimate, f.n) for f in expected]
    assert said[1]["details"]["without"].startswith("model ")
    shown = run(app, ["mismatch", str(path)]).stdout
    assert shown.startswith("objectives: RewardBench 2, PPO, best-of-n; the first column has the names")
    lines = [{"best-of-n": table["best-of-n"][i], "PPO": None if i == 2 else table["PPO"][i], "name": names[i]} for i in range(17)]
    (tmp_path / "models.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    again = json.loads(run(app, ["mismatch", str(tmp_path / "models.jsonl"), "--json"]).stdout)["findings"][1]
    assert (again["code"], again["estimate"]) == ("mismatch/best-of-n/PPO", pytest.approx(said[3]["estimate"]))
    gated = run(app, ["mismatch", str(path), "--fail-on", '"mismatch/RewardBench 2/PPO".low<0.999'])
    assert gated.exit_code == 1
    assert "mismatch/RewardBench 2/PPO.low is" in gated.stderr
    turned = json.loads(run(app, ["mismatch", str(path), "--lower", "PPO", "--json"]).stdout)["findings"]
    assert turned[1]["code"] == "mismatch/RewardBench 2/-PPO"
    assert "-PPO" in turned[1]["title"]
    assert turned[1]["estimate"] == pytest.approx(-said[1]["estimate"])
    assert (turned[1]["low"], turned[1]["high"]) == pytest.approx((-said[1]["high"], -said[1]["low"]), abs=0.05)
    with pytest.raises(SeamarkError, match=r"--lower is 'loss'\. The objectives of .* are RewardBench 2, PPO, best-of-n"):
        run(app, ["mismatch", str(path), "--lower", "loss"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,a,b\nx,1,2\ny,3,high\n", r"line 3: field 'b' is 'high'\. Write a number"),
        ("model,a,b\nx,1,2\ny,3,inf\n", "field 'b' is 'inf'"),
        ("model,a\nx,1\ny,3\n", r"numbers stand in 1 column \(a\)"),
        ("model,maker,b,c\nx,m,1,2\n", "field 'maker' is 'm'"),
    ],
)
def test_a_table_that_is_none_is_one_clear_error(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SeamarkError, match=said):
        CliRunner().invoke(app, ["mismatch", str(tmp_path / "t.csv")], catch_exceptions=False)


def test_what_cannot_be_compared_is_said() -> None:
    few = check_mismatch({"a": [1, 2, 3], "b": [1, 3, 2]})
    assert [f.verdict for f in few] == ["not_applicable"] * 2
    flat = check_mismatch({"a": [1, 2, 3, 4, 5], "b": [1.0] * 5, "c": [1, 2, 4, 3, float("nan")]})
    assert get(flat, "mismatch/a/b").verdict == "not_applicable"
    assert get(flat, "mismatch/a/c").n == 4
    for table in ({"a": [1.0]}, {"a": [1.0, 2.0], "b": [1.0]}):
        with pytest.raises(InvalidSetting, match="Give"):
            check_mismatch(table)


# 80 verdicts of gpt-4o on the first 40 questions, both orders, Apache-2.0: artifacts/exploded-multifactor-scoring-4o-judge-scores-only.csv of github.com/penfever/sos-bench
# @3755105 (Feuer et al. 2025): correctness, completeness, safety, conciseness, style and the final score, of 1 (A) to 5 (B)
JUDGED = """323422 343244 323422 333244 223422 443244 323422 343244 223422 243244 323422 343244 223422 443244 223422 343244 323422 443244 223222 443233
323433 343244 122222 443344 333333 433344 123222 543344 113422 553255 223422 443244 223422 543244 223322 443244 223322 543244 323422 343244
223422 343244 223422 443244 223422 443244 223422 453244 223422 543244 123222 553444 223422 343244 333333 333244 323422 443244 223422 454244
223333 333333 323422 343244 113422 553244 323422 343244 223422 454244 223422 443244 223322 553344 233222 443244 223422 343244 323322 343244"""


def test_N11_the_final_verdict_of_a_judge_is_its_score_for_style() -> None:
    """Of six criteria that a judge was asked for, style is the final score in all 80 verdicts (r = 1); correctness goes with it less, conciseness against it."""
    scores = np.array([[int(c) for c in row] for row in JUDGED.split()], dtype=float)
    assert scores.shape == (80, 6)
    names = ("correctness", "completeness", "safety", "conciseness", "style", "final")
    table = dict(zip(names, scores.T, strict=True))
    found = {name: associate(table[name], table["final"]) for name in names[:-1]}
    print({name: (round(a.pearson, 3), round(a.pearson_low, 3), round(a.pearson_high, 3)) for name, a in found.items()})
    assert (table["style"] == table["final"]).all()
    assert found["style"].pearson == pytest.approx(1)
    assert found["correctness"].pearson_high < 0.95
    assert found["conciseness"].pearson_high < 0
    assert found["safety"].pearson_high < found["correctness"].pearson_low


# ---------------------------------------------------------------------------------------------- by what following leads to


def models(error: str, k: int, *, n_prompts: int = 60, m: int = 32) -> dict[str, Pool]:
    """k reward models over the same pools: gold with a Gaussian error of different sizes, with a heavy-tailed one (t with 1.3 degrees of freedom), or with spikes of different heights."""
    rng = np.random.default_rng(5)
    gold = rng.normal(size=n_prompts * m)
    prompt = np.repeat(np.arange(n_prompts), m)
    sizes = {"gauss": np.linspace(0.2, 3.0, k), "heavy": np.linspace(0.1, 1.0, k), "spike": np.linspace(0.0, 8.0, k)}[error]
    draw = {
        "gauss": lambda: rng.normal(size=len(gold)), "heavy": lambda: stats.t.rvs(1.3, size=len(gold), random_state=rng),
        "spike": lambda: rng.random(len(gold)) < 0.05,
    }[error]  # fmt: skip
    return {f"{error} {i}": Pool.of(prompt, gold + size * draw(), gold) for i, size in enumerate(sizes)}


def shuffled(rng: np.random.Generator, gold: np.ndarray, *, above: bool) -> np.ndarray:
    """Only those above the median, or only those below, in random order among themselves."""
    return np.where((gold > 0) == above, np.sign(gold) * np.abs(rng.normal(size=gold.shape)), gold)


def planted() -> dict[str, Pool]:
    """Reward models at 300 prompts of 64: Gaussian error (accuracy .80), a spike of +6 unrelated to quality on 22.5% (.80), only those above the median in random order (.875), only those
    below (.875)."""
    rng = np.random.default_rng(1)
    gold = rng.normal(size=(300, 64))
    prompt = np.repeat(np.arange(300), 64)
    proxies = {
        "even": gold + np.sqrt(1 / np.sin(0.3 * np.pi) ** 2 - 1) * rng.normal(size=gold.shape),
        "spiked": np.where(rng.random(gold.shape) < 0.225, 6 + rng.normal(size=gold.shape), gold),
        "errs at the top": shuffled(rng, gold, above=True), "errs at the bottom": shuffled(rng, gold, above=False),
    }  # fmt: skip
    return {name: Pool.of(prompt, proxy.ravel(), gold.ravel()) for name, proxy in proxies.items()}


def test_R12_two_rewards_of_equal_accuracy_get_different_and_right_verdicts_downstream() -> None:
    """Accuracy .80 twice: with a Gaussian error gold rises to the end, with spikes optimisation gains nothing of what gold would (regret .20 and 1.0)."""
    pools = planted()
    accuracy = {name: float(np.nanmean(pair_accuracy(pools[name]))) for name in ("even", "spiked")}
    assert accuracy == pytest.approx({"even": 0.80, "spiked": 0.80}, abs=0.01)
    even, spiked = (check_optimisation(pools[name]) for name in ("even", "spiked"))
    assert [get(even, f"optimisation/{what}").verdict for what in ("best-of-n", "regret")] == ["ok", "ok"]
    assert get(even, "optimisation/regret").estimate == pytest.approx(0.20, abs=0.03)
    assert get(spiked, "optimisation/regret").verdict in ("warning", "blocking")
    assert get(spiked, "optimisation/regret").estimate == pytest.approx(1.0, abs=0.05)
    assert get(spiked, "optimisation/best-of-n").verdict in ("warning", "blocking")


def test_R14_the_less_accurate_reward_that_is_worth_more_is_picked() -> None:
    """A reward that errs at the top (.875 of pairs, and best of 64 gains .80 of 2.35) against one that errs at the bottom and, by noise there, now and then takes a bad one for good
    (.83 of pairs, and gains nearly all)."""
    pools = planted()
    rng = np.random.default_rng(2)
    bottom = pools["errs at the bottom"]
    noise = np.where(bottom.gold < 0, 0.8 * rng.normal(size=len(bottom.gold)), 0.0)
    worse = Pool(bottom.prompt, bottom.proxy + noise, bottom.gold, bottom.log_start)
    found = rank_rewards({"accurate": pools["errs at the top"], "useful": worse, "spiked": pools["spiked"]})
    first = get(found, "usefulness")
    rows = {row["reward"]: row for row in first.details["rewards"]}
    print(first.title)
    assert rows["accurate"]["accuracy_low"] > rows["useful"]["accuracy_high"], "it is surely more accurate"
    assert rows["useful"]["low"] > rows["accurate"]["high"], "and surely worth less to follow"
    assert first.title.startswith("Of 3 reward models, useful is the most useful")
    assert first.details["forgone_low"] > 0.5
    assert first.verdict == "warning"
    assert first.remedy == "Choose useful, not accurate."
    assert [f.code for f in found[1:]] == ["usefulness/useful", "usefulness/accurate", "usefulness/spiked"]
    assert rows["useful"]["most_useful"] == 1.0
    assert json.loads(found.to_json())
    # one that is best in both needs no warning, and one that does harm is blocking
    again = rank_rewards({"gold": bottom.turned(), "even": pools["even"]})
    assert get(again, "usefulness").verdict == "ok"
    harm = Pool(bottom.prompt, -bottom.gold, bottom.gold, bottom.log_start)
    assert get(rank_rewards({"harm": harm}), "usefulness").verdict == "blocking"
    with pytest.raises(InvalidSetting, match="same prompts, responses and gold"):
        rank_rewards({"a": bottom, "b": Pool(bottom.prompt, bottom.proxy, bottom.proxy, bottom.log_start)})
    few = Pool.of([0, 0, 1, 1], [1, 2, 1, 2], [1, 2, 1, 2])
    assert rank_rewards({"a": few})[0].verdict == "not_applicable"


def test_the_most_useful_by_luck_is_not_said_to_be_sure() -> None:
    """Rewards that are alike: the first comes first in about as many resamples as chance would have it."""
    rng = np.random.default_rng(3)
    gold = rng.normal(size=(40, 16))
    prompt = np.repeat(np.arange(40), 16)
    pools = {f"r{i}": Pool.of(prompt, (gold + rng.normal(size=gold.shape)).ravel(), gold.ravel()) for i in range(5)}
    first = rank_rewards(pools)[0]
    assert max(row["most_useful"] for row in first.details["rewards"]) < 0.95
    assert first.details["forgone_low"] <= 0 or "as well" in first.title


def test_N9_rewards_of_equal_accuracy_are_separated_by_their_regret_and_accuracy_ranks_them_only_within_a_kind_of_error() -> None:
    """Regret is 1 less the normalised drop ratio. Equal accuracy .80: regret .20 and 1.0; .875 and .876: .65 and .00. Over 36 rewards of one kind of error accuracy ranks regret; over
    72 of two kinds it ranks it less, and of the heavy-tailed kind alone with an interval that says how far."""
    table = objectives(planted())
    regret = dict(zip(planted(), 1 - table["usefulness"], strict=True))
    accuracy = dict(zip(planted(), table["accuracy"], strict=True))
    assert regret["even"] == pytest.approx(0.20, abs=0.03)
    assert regret["spiked"] == pytest.approx(1.0, abs=0.05)
    assert abs(accuracy["errs at the top"] - accuracy["errs at the bottom"]) < 0.01
    assert regret["errs at the bottom"] == pytest.approx(0.0, abs=0.005)
    assert regret["errs at the top"] == pytest.approx(0.65, abs=0.04)
    gauss, heavy = objectives(models("gauss", 36)), objectives(models("heavy", 36))
    both = {name: np.concatenate([gauss[name], heavy[name]]) for name in gauss}
    a, b = (associate(t["accuracy"], t["usefulness"]) for t in (gauss, both))
    print(
        f"one kind {a.spearman:.3f} [{a.spearman_low:.3f}, {a.spearman_high:.3f}], both {b.spearman:.3f} [{b.spearman_low:.3f}, {b.spearman_high:.3f}]"
    )
    assert a.spearman > 0.97
    assert b.spearman_high < a.spearman_low
    assert b.spearman_low > 0, "within kinds accuracy still says something"


def test_the_worst_domain_predicts_what_is_worth_most_only_where_the_worst_domain_is_what_counts() -> None:
    """60 reward models, each with a Gaussian error of its own size in each of 5 domains. The mean of the domains' accuracies goes best with the gold of best-of-16 where welfare is its mean over
    domains, the lowest accuracy where welfare is the lowest of the domains': that the worst domain is the better predictor, as Frick et al. 2025 found over 9 reward models, is no law.
    """
    rng = np.random.default_rng(4)
    gold = rng.normal(size=(5, 40 * 16))
    prompt = np.repeat(np.arange(40), 16)
    accuracy, welfare = (np.zeros((60, 5)) for _ in range(2))
    for k in range(60):
        for d, size in enumerate(rng.uniform(0.1, 3.0, 5)):
            found = objectives({"r": Pool.of(prompt, gold[d] + size * rng.normal(size=gold.shape[1]), gold[d])})
            accuracy[k, d], welfare[k, d] = found["accuracy"][0], found["evaluation"][0]
    table = {(how, what): associate(a, w) for how, a in (("mean", accuracy.mean(1)), ("worst", accuracy.min(1)))
             for what, w in (("mean", welfare.mean(1)), ("worst", welfare.min(1)))}  # fmt: skip
    print({key: f"{a.pearson:.2f} [{a.pearson_low:.2f}, {a.pearson_high:.2f}]" for key, a in table.items()})
    assert table["mean", "mean"].pearson_low > table["worst", "mean"].pearson_high
    assert table["worst", "worst"].pearson > table["mean", "worst"].pearson_high
