"""Any reward model as one function, and scoring that outlives what is wrong with it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from seamark.checks.scored import check_scored
from seamark.cli import app
from seamark.errors import InvalidSetting, UnreadableSource
from seamark.reward.scorers import Scored, open_scorer, score_texts, scorer_name

TEXTS = [f"text {'a' * i}" for i in range(40)]
PROMPTS = ["a question"] * 40


def by_length(_prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    return [float(len(r)) for r in responses]


def verdicts(scored: Scored) -> dict[str, str]:
    return {f.code: f.verdict for f in check_scored(scored)}


def test_each_distinct_text_is_scored_once_and_a_few_again() -> None:
    asked: list[str] = []

    def scorer(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
        asked.extend(responses)
        return by_length(prompts, responses)

    scored = score_texts(scorer, PROMPTS * 3, TEXTS * 3, batch=7)
    np.testing.assert_array_equal(scored.values, [len(t) for t in TEXTS * 3])
    assert scored.n_distinct == 40
    assert len(asked) == 48
    assert verdicts(scored) == {"scorer": "ok"}


def test_the_same_text_under_another_prompt_is_another() -> None:
    scored = score_texts(lambda p, _r: [float(len(str(x))) for x in p], ["a", "bb", [{"role": "user", "content": "c"}]], ["x", "x", "x"])
    assert len(set(scored.values)) == 3


@pytest.mark.parametrize("wrong", ["nan", "none", "infinite", "count", "raise", "words", "constant", "noise"])
def test_what_is_wrong_with_a_scorer_is_a_finding(wrong: str) -> None:
    rng = np.random.default_rng(0)

    def scorer(prompts: Sequence[object], responses: Sequence[str]) -> object:
        good = by_length(prompts, responses)
        bad = [len(r) == 10 for r in responses]
        if wrong == "count" and any(bad):
            return good[:-1]
        if wrong == "raise" and any(bad):
            raise RuntimeError("out of memory\nat length 10")
        if wrong == "words" and any(bad):
            return ["good"] * len(good)
        if wrong == "constant":
            return np.ones(len(good))
        if wrong == "noise":
            return rng.normal(size=len(good))
        given = {"nan": np.nan, "none": None, "infinite": np.inf}
        return [given.get(wrong) if b and wrong in given else s for s, b in zip(good, bad, strict=True)]

    scored = score_texts(scorer, PROMPTS, TEXTS, batch=16)  # type: ignore[arg-type]
    expected = {
        "nan": "scorer/abstained", "none": "scorer/abstained", "infinite": "scorer/infinite", "count": "scorer/failed", "raise": "scorer/failed",
        "words": "scorer/failed", "constant": "scorer/constant", "noise": "scorer/drift",
    }[wrong]  # fmt: skip
    assert set(verdicts(scored)) == {"scorer", expected}
    lost = np.isnan(scored.values)
    assert lost.sum() == (wrong not in ("constant", "noise"))
    if lost.any():  # what is wrong with one text loses that one
        assert len(TEXTS[int(np.flatnonzero(lost)[0])]) == 10
    assert (verdicts(scored)["scorer"] == "blocking") == (wrong == "constant")
    if wrong == "raise":
        assert scored.problems == ("RuntimeError: out of memory",)


def test_a_scorer_that_always_fails_is_not_asked_for_ever() -> None:
    calls = []

    def scorer(_p: object, responses: Sequence[str]) -> list[float]:
        calls.append(len(responses))
        raise OSError("the server is gone")

    scored = score_texts(scorer, PROMPTS, TEXTS, batch=8)
    assert scored.died
    assert scored.failed == 40
    assert len(calls) < 12
    assert verdicts(scored) == {"scorer": "blocking", "scorer/failed": "blocking"}


def test_a_scorer_that_does_not_come_back_is_left() -> None:
    def scorer(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
        if len(responses[0]) > 20:
            time.sleep(20)
        return by_length(prompts, responses)

    start = time.monotonic()
    scored = score_texts(scorer, PROMPTS, TEXTS, batch=8, timeout_s=0.2)
    assert time.monotonic() - start < 5
    assert scored.died
    assert scored.problems == ("it did not answer within 0.2 s",)
    assert 0 < np.isfinite(scored.values).sum() < 40
    assert scored.failed == np.isnan(scored.values).sum()
    assert scored.abstained == 0


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    cache, left = tmp_path / "scores.jsonl", [3]

    def scorer(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return by_length(prompts, responses)

    def quick(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
        if left[0] <= 0:
            time.sleep(10)
        left[0] -= 1
        return by_length(prompts, responses)

    assert score_texts(quick, PROMPTS, TEXTS, batch=8, timeout_s=0.3, cache=cache, name="m").died
    with cache.open("a") as file:
        file.write('{"key": "half a li')
    left[0] = 100
    again = score_texts(scorer, PROMPTS, TEXTS, batch=8, cache=cache, name="m")
    assert (again.n_cached, again.failed, again.abstained) == (24, 0, 0)
    np.testing.assert_array_equal(again.values, by_length(PROMPTS, TEXTS))
    assert all(json.loads(line) for line in cache.read_text().splitlines())
    assert score_texts(scorer, PROMPTS, TEXTS, cache=cache, name="m").n_cached == 40
    assert score_texts(scorer, PROMPTS, TEXTS, cache=cache, name="another").n_cached == 0


def test_what_failed_is_asked_for_again_and_another_model_in_its_place_as_well(tmp_path: Path) -> None:
    cache, broken = tmp_path / "scores.jsonl", [True]

    def scorer(_prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
        if broken[0] and any(len(r) == 10 for r in responses):
            raise RuntimeError("busy")
        return [np.inf if broken[0] and len(r) == 12 else float(len(r)) for r in responses]

    first = score_texts(scorer, PROMPTS, TEXTS, cache=cache)
    assert [len(TEXTS[i]) for i in np.flatnonzero(first.lost)] == [10, 12]
    broken[0] = False
    again = score_texts(scorer, PROMPTS, TEXTS, cache=cache)
    assert (again.n_cached, again.abstained, again.lost.any()) == (38, 0, False)
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("one")
    before = scorer_name(model)
    assert scorer_name(model) == before
    (model / "weights").write_text("other")
    assert scorer_name(model) != before
    assert scorer_name("http://127.0.0.1:1/score") == "http://127.0.0.1:1/score"


def test_scores_of_a_model_that_was_changed_are_not_used_again(tmp_path: Path) -> None:
    """The command keeps what a model said under what it is: changed in its place, it is asked again."""
    model, bench, cache = tmp_path / "m.py", tmp_path / "bench.jsonl", tmp_path / "scores.jsonl"
    rows = [{"prompt": f"p{i}", "chosen": f"yes {i}", "rejected": f"no {i}", "subset": "hep-go", "id": i} for i in range(12)]
    bench.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["benchmark", f"python:{model}:score", str(bench), "--cache", str(cache)]
    model.write_text("def score(prompts, responses):\n    return [float(r[0] == 'y') for r in responses]\n")
    first = CliRunner().invoke(app, asked)
    assert "24 distinct texts, 0 of them from the cache" in first.stdout
    assert "24 of them from the cache" in CliRunner().invoke(app, asked).stdout
    model.write_text("def score(prompts, responses):\n    return [-float(r[0] == 'y') for r in responses]\n")
    stale = CliRunner().invoke(app, [*asked, "--json"])
    assert stale.exit_code == 1, "it is now wrong about everything"
    assert {f["code"]: f["estimate"] for f in json.loads(stale.stdout)["findings"]}["benchmark"] == 0
    assert len(cache.read_text().splitlines()) == 48


@pytest.mark.parametrize("command", ["benchmark", "probe", "search", "attacks", "explain"])
def test_every_command_that_scores_leaves_a_model_that_takes_too_long(command: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ndef score(prompts, responses):\n    time.sleep(3)\n    return [0.0] * len(responses)\n")
    model = f"python:{tmp_path}/slow.py:score"
    pairs = [
        {"prompt": f"p{i}", "chosen": f"yes it is {i}", "rejected": f"no it is not {i}", "subset": "hep-go", "id": i} for i in range(30)
    ]
    one = {"prompt": "p", "original": "o", "response": "r", "family": "f", "kind": "k"}
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(one if command == "attacks" else row) + "\n" for row in pairs))
    started = time.monotonic()
    done = CliRunner().invoke(app, [command, model, str(tmp_path / "pairs.jsonl"), "--timeout", "0.2", "--json"])
    assert done.exit_code == 1, done.output
    assert time.monotonic() - started < 2.5
    failed = next(f for f in json.loads(done.stdout)["findings"] if f["code"] == "scorer/failed")
    assert "did not answer within 0.2 s" in failed["title"]
    with pytest.raises(InvalidSetting, match=r"--timeout is 0\.0"):
        CliRunner().invoke(app, [command, model, str(tmp_path / "pairs.jsonl"), "--timeout", "0"], catch_exceptions=False)


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello\nworld\n")
    with pytest.raises(UnreadableSource, match="line 1 is no score"):
        score_texts(by_length, PROMPTS, TEXTS, cache=tmp_path / "x")


# ---------------------------------------------------------------------------------------------- what can be opened


def test_a_table_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("prompt,response,score\nq,one,1\nq,two,2.5\n,three,3\n")
    scored = score_texts(open_scorer(path), ["q", "q", "", "q"], ["two", "one", "three", "other"])
    np.testing.assert_array_equal(scored.values, [2.5, 1, 3, np.nan])
    assert scored.abstained == 1
    path.write_text("prompt,response,score\nq,one,1\nq,one,2\n")
    with pytest.raises(UnreadableSource, match="two scores for one response"):
        open_scorer(path)
    path.write_text("prompt,answer,score\nq,one,1\n")
    with pytest.raises(UnreadableSource, match="no column 'response'"):
        open_scorer(path)
    path.write_text("prompt,response,score\nq,one,good\n")
    with pytest.raises(UnreadableSource, match="which is no number"):
        open_scorer(path)


def test_a_table_whose_prompts_are_messages(tmp_path: Path) -> None:
    """As lists, in JSON lines beside texts and in Parquet, or as their JSON in CSV: the same prompt has its score, whatever the order of its keys."""
    talk = [{"role": "user", "content": "a\u2028b"}, {"role": "assistant", "content": "c"}]
    named = [{"content": "d", "role": "user", "name": "ann"}]
    rows = [{"prompt": talk, "response": "r", "score": 1}, {"prompt": named, "response": "r", "score": 2}]
    both = [*rows, {"prompt": "q", "response": "r", "score": None}, {"prompt": 7, "response": 8, "score": 4.5}]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in both) + "\n", encoding="utf-8")
    pl.DataFrame(rows).write_parquet(tmp_path / "t.parquet")
    pl.DataFrame([{**row, "prompt": json.dumps(row["prompt"], ensure_ascii=False)} for row in rows[:1]]).write_csv(tmp_path / "t.csv")
    asked = [talk, [{"role": "user", "name": "ann", "content": "d"}], "q", "7"]
    for name, scores in (("jsonl", [1, 2, np.nan, 4.5]), ("parquet", [1, 2, np.nan, np.nan]), ("csv", [1, np.nan, np.nan, np.nan])):
        np.testing.assert_array_equal(
            score_texts(open_scorer(tmp_path / f"t.{name}"), asked, ["r", "r", "r", "8"]).values, scores, err_msg=name
        )
    for wrong, said in (
        ("[1]", "line 1 is no record"),
        ("{", "line 1 is no record"),
        ("", "no column 'prompt'"),
        ('{"prompt": "q", "response": "r", "score": "x"}', "no number"),
    ):
        (tmp_path / "t.jsonl").write_text(wrong, encoding="utf-8")
        with pytest.raises(UnreadableSource, match=said):
            open_scorer(tmp_path / "t.jsonl")


def test_a_function_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    scored = score_texts(open_scorer(f"python:{tmp_path}/mine.py:score"), ["q"], ["four"])
    assert scored.values.tolist() == [4]
    for place, said in (("other", "no attribute 'other'"), ("__doc__", "is no function")):
        with pytest.raises(UnreadableSource, match=said):
            open_scorer(f"python:{tmp_path}/mine.py:{place}")
    with pytest.raises(InvalidSetting, match="Write python:MODULE:FUNCTION"):
        open_scorer("python:mine")
    with pytest.raises(UnreadableSource, match="No module named"):
        open_scorer("python:no_such_module:score")


def test_a_server_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seamark.reward.paths._RETRY_S", 0.0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/classify":
                answer: dict[str, object] = {"data": [{"index": 0, "probs": [float(len(asked["messages"][-1]["content"]))]}]}
            else:
                answer = {"scores" if self.path == "/score" else "rewards": [len(r) for r in asked["responses"]]}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path in ("/classify", "/score", "/reward"):
            scored = score_texts(open_scorer(f"http://127.0.0.1:{server.server_port}{path}"), ["q", "q"], ["four", "eleven char"])
            assert scored.values.tolist() == [4, 11]
        server.shutdown()
    gone = score_texts(open_scorer(f"http://127.0.0.1:{server.server_port}/score"), ["q", "q"], ["four", "eleven char"])
    assert gone.failed == 2
    assert "does not answer" in gone.problems[0]


def test_a_fit_is_a_scorer(tmp_path: Path) -> None:
    import seamark as sm

    feedback = sm.simulate(n_prompts=30, n_judgments=600, seed=0).feedback
    sm.fit(feedback).save(tmp_path / "fit")
    texts = feedback.responses["text"].to_list()[:30]
    prompts = [feedback.prompts["text"][i] for i in feedback.responses["prompt"].to_list()[:30]]
    scored = score_texts(open_scorer(tmp_path / "fit"), prompts, texts)
    np.testing.assert_allclose(scored.values, sm.Reward(tmp_path / "fit").score(prompts, texts).score)
    with pytest.raises(UnreadableSource, match="there is no such folder"):
        open_scorer(tmp_path / "nothing")
