"""Position, length and style against plain loops, planted effects and published figures."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seamark.checks.comparisons import combine, compact, compare, pairs_within
from seamark.checks.confounds import check_length, check_position, check_style, clustered_logistic
from seamark.intervals import clustered_share, mean, mean_share
from seamark.models.features import style_features
from seamark.records import Feedback
from seamark.sources import load


def text_pairs(prompts: list[str], texts: list[list[str]], outcomes: list[str], **more: list[object]) -> Feedback:
    return Feedback.from_columns({"kind": ["pair"] * len(texts), "prompt": prompts, "texts": texts, "outcome": outcomes, **more})


def planted_position(rng: np.random.Generator, share: float, n_raters: int = 40, n: int = 800, spread: float = 0.0) -> Feedback:
    """Pairs in which the first is chosen with probability `share`, which varies over raters by `spread`."""
    own = np.clip(share + spread * rng.choice([-1, 1], n_raters), 0, 1)
    rater = rng.integers(0, n_raters, n)
    return Feedback.from_columns(
        {
            "kind": ["pair"] * n,
            "ids": [[f"a{i}", f"b{i}"] for i in range(n)],
            "outcome": ["left" if u < own[r] else "right" for u, r in zip(rng.random(n), rater, strict=True)],
            "rater": [f"r{r}" for r in rater],
            "order_known": [True] * n,
        }
    )


# ------------------------------------------------------------------------------------ codes


def test_combine_and_compact_are_one_to_one():
    rng = np.random.default_rng(0)
    columns = [rng.integers(-1, 4, 500), rng.integers(0, 2**40, 500) // 2**38, rng.integers(-(2**61), 2**61, 500), rng.integers(0, 2, 500)]
    code = combine(*columns)
    rows = list(zip(*(c.tolist() for c in columns), strict=True))
    assert len(set(code.tolist())) == len(set(rows)) == int(code.max()) + 1
    assert len(set(zip(code.tolist(), rows, strict=True))) == len(set(rows))
    codes, n = compact(np.array([7, -3, 7, 2**50]))
    assert codes.tolist() == [1, 0, 1, 2]
    assert n == 3
    assert compact(np.zeros(0, dtype=np.int64))[1] == 0


def test_pairs_within_are_all_pairs_or_a_uniform_sample():
    group = np.array([2, 0, 2, 1, 2, 0])
    first, second, total = pairs_within(group, limit=100, rng=np.random.default_rng(0))
    expected = {(i, j) for i, j in combinations(range(6), 2) if group[i] == group[j]}
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
    assert total == len(expected) == 4
    group = np.repeat([0, 1], [10, 40])
    first, second, total = pairs_within(group, limit=300, rng=np.random.default_rng(1))
    assert total == 45 + 780
    assert (group[first] == group[second]).all()
    assert (first < second).all()
    # 45 of 825 pairs are in the small group; of some 250 drawn, 13.6 are expected
    assert 4 <= (group[first] == 0).sum() <= 25


def test_comparisons_against_loops():
    """Every kind, in a form that a reader can check by eye."""
    feedback = Feedback.from_columns(
        {
            "kind": ["pair", "choice", "ranking", "rating", "rating", "rating", "thumbs", "thumbs", "choice"],
            "prompt": ["p"] * 9,
            "texts": [["a", "b"], ["a", "b", "c"], ["a", "b", "c"], ["a"], ["b"], ["c"], ["a"], ["b"], ["a", "b"]],
            "outcome": ["right", *["answered"] * 7, "both_bad"],
            "best": [None, 1, *[None] * 7],
            "worst": [None, 2, *[None] * 7],
            "ranks": [None, None, [2, 1, 2], *[None] * 6],
            "rating": [None, None, None, 3.0, 3.0, 5.0, None, None, None],
            "thumb": [*[None] * 6, True, False, None],
            "rater": ["r"] * 9,
        }
    )
    c = compare(feedback)
    names = feedback.responses["text"].to_list()
    found = {(c.KIND_NAMES[k], names[a], names[b], int(s)) for k, a, b, s in zip(c.kind, c.left, c.right, c.sign, strict=True)}
    assert found == {
        ("pair", "a", "b", -1),
        *{("choice", "a", "b", -1), ("choice", "b", "c", 1), ("choice", "a", "c", 1)},
        *{("ranking", "a", "b", -1), ("ranking", "a", "c", 0), ("ranking", "b", "c", 1)},
        *{("rating", "a", "b", 0), ("rating", "a", "c", -1), ("rating", "b", "c", -1)},
        ("rating", "a", "b", 1),  # from the thumbs, which are never compared with ratings
    }


def test_cost_is_the_other_way_round_and_raters_are_not_mixed():
    columns = {
        "kind": ["rating"] * 4,
        "prompt": ["p"] * 4,
        "texts": [["a"], ["b"], ["a"], ["b"]],
        "outcome": ["answered"] * 4,
        "rating": [1.0, 2.0, 7.0, 6.0],
        "measure": ["cost"] * 4,
    }
    c = compare(Feedback.from_columns({**columns, "rater": ["r", "r", "s", "s"]}))
    assert c.sign.tolist() == [1, -1]
    assert len(compare(Feedback.from_columns({**columns, "axis": ["x", "x", "y", "y"]}))) == 2
    across = compare(Feedback.from_columns(columns))
    assert len(across) == 4  # without raters: everyone's a against everyone's b
    assert "across raters" in across.notes[0]


# ------------------------------------------------------------------------------------ position


def test_position_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _round in range(60):
        finding = check_position(planted_position(rng, 0.58, spread=0.2))[0]
        covered += finding.low <= 0.58 <= finding.high
        assert "rater" in (finding.reason or "")
    assert covered >= 52  # 57 expected


def test_position_verdicts():
    rng = np.random.default_rng(1)
    assert check_position(planted_position(rng, 0.7))[0].verdict == "warning"
    assert check_position(planted_position(rng, 0.5))[0].verdict == "ok"
    assert check_position(planted_position(rng, 0.53, n=20_000, n_raters=200))[0].verdict == "notice"


def test_position_not_applicable():
    columns = {"kind": ["pair"] * 2, "ids": [["a", "b"]] * 2, "outcome": ["left", "right"]}
    for order in (None, False):
        finding = check_position(Feedback.from_columns({**columns, "order_known": [order] * 2}))[0]
        assert finding.verdict == "not_applicable"
        assert "order" in (finding.reason or "")
    ties = Feedback.from_columns({**columns, "outcome": ["tie"] * 2, "order_known": [True] * 2})
    assert check_position(ties)[0].verdict == "not_applicable"


def test_position_counts_only_pairs_with_known_order():
    columns = {"kind": ["pair"] * 4, "ids": [["a", "b"]] * 4, "outcome": ["left", "left", "right", "right"]}
    finding = check_position(Feedback.from_columns({**columns, "order_known": [True, True, None, False]}))[0]
    assert finding.estimate == 1.0
    assert finding.n == 2


def test_qlora_position_and_consistency(real_data: Path):
    frame = pl.read_parquet(real_data / "qlora_gpt4_judge" / "oa_pairwise.parquet").filter(pl.col("verdict").is_in(["1", "2", "tie"]))
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * frame.height,
            "prompt_id": frame["question_id"].to_list(),
            "ids": [list(p) for p in zip(frame["system_1"], frame["system_2"], strict=True)],
            "outcome": [{"1": "left", "2": "right", "tie": "tie"}[v] for v in frame["verdict"]],
            "rater": ["gpt-4"] * frame.height,
            "order_known": [True] * frame.height,
        }
    )
    position, consistency = check_position(feedback)
    wins = frame["verdict"].value_counts()
    count = dict(wins.iter_rows())
    assert position.estimate == pytest.approx(count["1"] / (count["1"] + count["2"]), abs=1e-12)
    assert position.low > 0.5
    verdicts = {(q, a, b): v for q, a, b, v in frame.iter_rows()}
    flip = {"1": "2", "2": "1", "tie": "tie"}
    same = [flip[v] == verdicts[q, b, a] for (q, a, b), v in verdicts.items() if a < b and (q, b, a) in verdicts]
    assert consistency.estimate == pytest.approx(np.mean(same), abs=1e-12)
    assert consistency.n == len(same)


# ------------------------------------------------------------------------------------ length


def test_ukp_longer_wins(real_data: Path):
    table = pl.read_parquet(real_data / "ukp_convarg" / "pairs.parquet")
    strict = table.filter(pl.col("in_strict") & pl.col("gold").is_in(["a1", "a2"]))
    feedback = text_pairs(
        strict["side"].to_list(),
        [list(t) for t in zip(strict["arg1"], strict["arg2"], strict=True)],
        [{"a1": "left", "a2": "right"}[g] for g in strict["gold"]],
    )
    assert check_length(feedback)[0].estimate == pytest.approx(0.778, abs=5e-4)
    votes = pl.read_parquet(real_data / "ukp_convarg" / "judgments.parquet").join(table, on="pair_id", maintain_order="left")
    feedback = text_pairs(
        votes["side"].to_list(),
        [list(t) for t in zip(votes["arg1"], votes["arg2"], strict=True)],
        [{"a1": "left", "a2": "right", "equal": "tie"}[v] for v in votes["value"]],
        rater=votes["worker"].to_list(),
    )
    finding = check_length(feedback)[0]
    assert finding.estimate == pytest.approx(0.687, abs=5e-4)
    curve = finding.details["curve"]
    assert len(curve) == 8
    assert sum(b["n"] for b in curve) == finding.n
    assert curve[-1]["share"] > curve[0]["share"] + 0.2
    assert all(b["share_low"] <= b["share"] <= b["share_high"] for b in curve)


def test_hh_shorter_wins(real_data: Path):
    frame = pl.read_parquet(real_data / "hh_rlhf_harmless_test" / "pairs.parquet")
    texts = [list(t) for t in zip(frame["chosen_response"], frame["rejected_response"], strict=True)]
    finding = check_length(text_pairs(frame["prompt"].to_list(), texts, ["left"] * frame.height))[0]
    assert 1 - finding.estimate == pytest.approx(0.55, abs=0.006)
    assert finding.high < 0.5
    longer = [len(a) > len(b) for a, b in texts if len(a) != len(b)]
    assert finding.estimate == pytest.approx(np.mean(longer), abs=1e-12)


def test_fine_grained_position(real_data: Path):
    frame = pl.read_parquet(real_data / "fine_grained_rlhf_dev" / "preferences.parquet")
    feedback = Feedback.from_columns(
        {
            "kind": ["pair"] * frame.height,
            "prompt_id": [str(q) for q in frame["q_id"]],
            "ids": [[f"{q}/{a}", f"{q}/{b}"] for q, a, b in frame.select("q_id", "a", "b").iter_rows()],
            "outcome": [["tie", "left", "right"][p] for p in frame["preference"]],
            "order_known": [True] * frame.height,
        }
    )
    assert check_position(feedback)[0].estimate == pytest.approx(0.603, abs=5e-4)


def test_length_by_axis_and_same_length():
    texts = [["a", "bb"], ["a", "bb"], ["aa", "bb"]]
    feedback = text_pairs(["p", "q", "r"], texts, ["left", "right", "left"], axis=["x", "y", "y"])
    found = {f.code: f for f in check_length(feedback)}
    assert found["length"].n == 2
    assert found["length/x"].estimate == 0.0
    assert found["length/y"].estimate == 1.0
    equal = text_pairs(["p"], [["aa", "bb"]], ["left"])
    assert check_length(equal)[0].verdict == "not_applicable"
    ids = Feedback.from_columns({"kind": ["pair"], "ids": [["a", "b"]], "outcome": ["left"]})
    assert check_length(ids)[0].verdict == "not_applicable"


def pairs_and_ratings(n: int = 40) -> Feedback:
    """A judge who prefers the longer of two when asked, and whose ratings, which are more, imply the opposite."""
    rows: dict[str, list[object]] = {name: [] for name in ("kind", "prompt", "texts", "outcome", "rating", "rater")}
    for i in range(n):
        rng = np.random.default_rng(i)
        texts = [" ".join(["word"] * int(k)) + "!" * int(rng.integers(0, 3)) for k in rng.choice(np.arange(3, 60), 4, replace=False)]
        rows["kind"] += ["pair", *["rating"] * 4]
        rows["texts"] += [texts[:2], *[[t] for t in texts]]
        rows["outcome"] += ["left" if len(texts[0]) > len(texts[1]) else "right", *["answered"] * 4]
        rows["rating"] += [None, *[-float(len(t)) for t in texts]]
        rows["prompt"] += [f"p{i}"] * 5
        rows["rater"] += ["judge"] * 5
    return Feedback.from_columns(rows)


def test_implied_comparisons_do_not_drown_the_stated_ones():
    feedback = pairs_and_ratings()
    found = {f.code: f for f in check_length(feedback)}
    assert found["length"].estimate == 1.0
    assert found["length"].n == 40
    assert found["length/rating"].estimate == 0.0
    assert found["length/rating"].n == 40 * 6
    assert "ratings" in found["length/rating"].title
    effects = {e["feature"]: e["estimate"] for e in check_style(feedback).details["effects"]}
    assert effects["log_characters"] > 0
    ratings = feedback.filter(pl.col("kind") == "rating")
    assert [f.code for f in check_length(ratings)] == ["length"]  # nothing was stated: the implied ones are the headline
    assert check_length(ratings)[0].estimate == 0.0


def test_qlora_length_is_what_the_verdicts_say(real_data: Path):
    """GPT-4 prefers the longer of two answers when asked; its scores, far more when paired up, imply the opposite."""
    feedback = load(real_data / "qlora_gpt4_judge")
    found = {f.code: f for f in check_length(feedback)}
    folder = real_data / "qlora_gpt4_judge"
    length = {
        (q, s): len(r) for q, s, r in pl.read_parquet(folder / "vicuna_responses.parquet")["question_id", "system", "response"].iter_rows()
    }
    verdicts = pl.read_parquet(folder / "vicuna_pairwise.parquet").filter(pl.col("verdict").is_in(["1", "2"]))
    wins = []
    for q, one, two, verdict in verdicts["question_id", "system_1", "system_2", "verdict"].iter_rows():
        gap = length[q, one] - length[q, two]
        if gap:
            wins.append((gap > 0) == (verdict == "1"))
    assert found["length"].n == len(wins) == 3863
    assert found["length"].estimate == pytest.approx(np.mean(wins), abs=1e-12)
    assert found["length"].estimate == pytest.approx(0.724, abs=5e-4)
    assert found["length/rating"].high < 0.5  # type: ignore[operator]


def test_length_interval_is_clustered_by_prompt():
    """Ten copies of each prompt's answer carry no more information than one."""
    rng = np.random.default_rng(2)
    wins = rng.random(60) < 0.6
    once = text_pairs([f"p{i}" for i in range(60)], [["aaaa", "b"]] * 60, ["left" if w else "right" for w in wins])
    many = text_pairs([f"p{i}" for i in range(60)] * 10, [["aaaa", "b"]] * 600, ["left" if w else "right" for w in wins] * 10)
    one, ten = check_length(once)[0], check_length(many)[0]
    assert ten.estimate == pytest.approx(one.estimate)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.05)


# ------------------------------------------------------------------------------------ style


def written(rng: np.random.Generator) -> str:
    words = ["stone", "river", "lamp", "green", "walk", "often"]
    every = rng.integers(2, 15)  # words per sentence, so that this feature is not given by the others
    text = " ".join(w + "." if i % every == every - 1 else w for i, w in enumerate(rng.choice(words, rng.integers(5, 40))))
    if rng.random() < 0.5:
        text += "\n" + "\n".join(f"- {w}" for w in rng.choice(words, rng.integers(1, 6)))
    return text + "!" * int(rng.integers(0, 3)) + "?" * int(rng.integers(0, 3))


def planted_style(rng: np.random.Generator, n_prompts: int, effects: dict[str, float]) -> tuple[Feedback, dict[str, float]]:
    """Pairs won by a logistic rule on standardised style differences; returns the truth per standard deviation as well."""
    texts = [[written(rng), written(rng)] for _ in range(n_prompts)]
    values = [style_features([t[i] for t in texts]) for i in range(2)]
    names = values[0].names
    difference = values[0].values - values[1].values
    scale = np.sqrt((difference**2).mean(0))
    beta = np.array([effects.get(name, 0.0) for name in names])
    gap = difference @ np.where(scale > 0, beta / np.where(scale > 0, scale, 1), 0.0)
    wins = rng.random(n_prompts) < 1 / (1 + np.exp(-gap))
    prompts = [f"p{i}" for i in range(n_prompts)]
    return text_pairs(prompts, texts, ["left" if w else "right" for w in wins]), effects


def test_style_recovers_planted_effects():
    rng = np.random.default_rng(0)
    feedback, truth = planted_style(rng, 3000, {"log_characters": 0.8, "list_items": -0.5})
    finding = check_style(feedback)
    assert finding.verdict == "warning"
    assert "log characters" in finding.title
    effects = {e["feature"]: e for e in finding.details["effects"]}
    for name, value in truth.items():
        assert effects[name]["low"] < value < effects[name]["high"]
    others = [e for name, e in effects.items() if name not in truth]
    assert others
    assert sum(e["low"] <= 0 <= e["high"] for e in others) >= len(others) - 1


def test_style_intervals_cover():
    rng = np.random.default_rng(1)
    covered = total = 0
    for _round in range(25):
        feedback, truth = planted_style(rng, 400, {"list_items": 0.6})
        for effect in check_style(feedback).details["effects"]:
            value = truth.get(effect["feature"], 0.0)
            covered += effect["low"] <= value <= effect["high"]
            total += 1
    assert 0.90 <= covered / total <= 0.99


def testclustered_logistic_against_plain_algebra():
    """First-order condition at the estimate, and the sandwich by loops over clusters."""
    rng = np.random.default_rng(3)
    x, cluster = rng.normal(size=(200, 3)), rng.integers(0, 25, 200)
    y = (rng.random(200) < 1 / (1 + np.exp(-x @ [1.0, -0.5, 0.0]))).astype(float)
    beta, se = clustered_logistic(x, y, cluster)
    p = 1 / (1 + np.exp(-x @ beta))
    assert np.abs(x.T @ (y - p) - beta).max() < 1e-3
    hessian = sum(pi * (1 - pi) * np.outer(xi, xi) for pi, xi in zip(p, x, strict=True)) + np.eye(3)
    meat = np.zeros((3, 3))
    for g in range(25):
        score = (x[cluster == g] * (y - p)[cluster == g][:, None]).sum(0)
        meat += np.outer(score, score)
    variance = np.linalg.inv(hessian) @ meat @ np.linalg.inv(hessian) * 25 / 24
    assert se == pytest.approx(np.sqrt(np.diag(variance)), rel=1e-4)
    # separated data: the ridge keeps the estimate finite
    separated, _se = clustered_logistic(x[:, :1], (x[:, 0] > 0).astype(float), cluster)
    assert np.isfinite(separated).all()


def test_style_does_not_depend_on_which_response_is_left():
    rng = np.random.default_rng(4)
    feedback, _truth = planted_style(rng, 300, {"list_items": 1.0})
    frame = feedback.judgments
    text = feedback.responses["text"].to_list()
    swapped = text_pairs(
        [feedback.prompts["text"][p] for p in frame["prompt"]],
        [[text[b], text[a]] for a, b in frame["responses"].to_list()],
        [{"left": "right", "right": "left"}[o] for o in frame["outcome"]],
    )
    assert check_style(feedback).estimate == pytest.approx(check_style(swapped).estimate, abs=1e-6)


def test_style_not_applicable():
    ids = Feedback.from_columns({"kind": ["pair"], "ids": [["a", "b"]], "outcome": ["left"]})
    assert check_style(ids).verdict == "not_applicable"
    few = text_pairs(["p", "q"], [["a b", "c!"]] * 2, ["left", "right"])
    finding = check_style(few)
    assert finding.verdict == "not_applicable"
    assert "Too few" in (finding.reason or "")


def test_few_clusters_are_not_trusted():
    """One rater who gave everything: the interval is over prompts and says for whom it holds."""
    hits = np.tile([1.0, 1.0, 0.0], 50)
    interval, how = clustered_share(hits, {"rater": np.zeros(150, dtype=np.int64), "prompt": np.arange(150)})
    assert interval.high - interval.low < 0.2
    assert "1 rater" in how
    _interval, how = clustered_share(hits, {"rater": np.full(150, -1)})
    assert "independent" in how


def test_the_sentence_about_style_has_the_sign_of_the_effect():
    rng = np.random.default_rng(4)
    losing = check_style(planted_style(rng, 300, {"list_items": -1.0})[0])
    assert losing.estimate is not None
    assert losing.estimate < 0
    assert "list items goes along with losing most: -" in losing.title
    winning = check_style(planted_style(rng, 300, {"list_items": 1.0})[0])
    assert "goes along with winning most: +" in winning.title


def test_no_style_feature_is_named_as_clear_where_none_is():
    for seed in range(20):
        finding = check_style(planted_style(np.random.default_rng(seed), 60, {})[0])
        if finding.low is not None and finding.low <= 0 <= finding.high:  # type: ignore[operator]
            assert finding.title.startswith("None of ")
            return
    raise AssertionError("every seed had a clear effect")


def test_the_mean_of_few_shares_stays_within_0_and_1():
    """Three raters at 1, 1 and 1/7: Student's interval would end at 183%."""
    shares = np.array([1.0, 1.0, 1 / 7])
    found = mean_share(shares)
    assert found.estimate == pytest.approx(5 / 7)
    assert 0 < found.low < found.estimate < found.high <= 1
    assert mean(shares).high > 1
    many = np.random.default_rng(0).beta(7, 3, size=2000)
    assert (mean_share(many).low, mean_share(many).high) == pytest.approx((mean(many).low, mean(many).high), abs=1e-4)
