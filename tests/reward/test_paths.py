"""Each way of reading a checkpoint against a naive version of it; HTTP against recorded answers and a server that misbehaves."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from small_models import save_small, small_tokenizer
from small_server import serve

from seamark.errors import InvalidSetting, UnreadableSource
from seamark.models.conversations import plain_template
from seamark.reward import paths
from seamark.reward.paths import Reference, by_http, by_seamark, by_transformers, by_trl, by_trl_trainer, describe

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Why?"}]
PLAIN = [("How do I bake bread?", "Mix flour and water."), ("Why?", "So."), (None, "Paris.")]
ALL = [*PLAIN, (TURNS, "Because it is so, and has always been.")]
KINDS = ("llama", "gpt2", "bert")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def _saved(kind: str) -> str:
        if kind not in made:
            tokenizer = small_tokenizer(bert=kind == "bert")
            if kind == "bert":
                tokenizer.chat_template = plain_template(tokenizer)
            made[kind] = str(save_small(tmp_path_factory.mktemp(kind), kind, tokenizer=tokenizer, problem_type="regression"))
        return made[kind]

    return _saved


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_the_head_at_the_last_token(kind: str, saved: Callable[[str], str]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(saved(kind)), AutoModelForSequenceClassification.from_pretrained(saved(kind))
    reading = by_seamark(saved(kind), ALL)
    for (prompt, response), score, tokens in zip(ALL, reading.scores, reading.tokens, strict=True):
        turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt or ""}]
        ids = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": response}], tokenize=True, return_dict=False)
        assert tokens.tolist() == ids
        with torch.no_grad():
            whole = model(torch.tensor([ids])).logits  # a batch of one, whose last token is no pad
            last = whole if kind == "bert" else model.score(model.base_model(torch.tensor([ids])).last_hidden_state[0, -1])
        assert score == pytest.approx(float(last), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_programs_read_the_tokens_that_they_are_known_to_read(kind: str, saved: Callable[[str], str]) -> None:
    from transformers import AutoTokenizer

    tokenizer, reference = AutoTokenizer.from_pretrained(saved(kind)), by_seamark(saved(kind), ALL)
    rows = [row.tolist() for row in reference.tokens]
    for read in (by_transformers, by_trl, by_trl_trainer):
        reading = read(saved(kind), ALL)
        assert [row.tolist() for row in reading.tokens] == rows, read.__name__
        np.testing.assert_allclose(reading.scores, reference.scores, atol=1e-5)
    texts = [tokenizer.decode(row) for row in rows]
    assert [row.tolist() for row in by_transformers(saved(kind), ALL, read="text").tokens] == tokenizer(texts)["input_ids"]
    # TRL 1.16 scores plain texts without any special token, and trains on them with these and the end token
    joined = [(prompt or "") + response for prompt, response in PLAIN]
    scored = by_trl(saved(kind), PLAIN, data="standard").tokens
    assert [row.tolist() for row in scored] == tokenizer(joined, add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token is None:
        with pytest.raises(UnreadableSource, match="TRL cannot score with it"):
            by_trl_trainer(saved(kind), PLAIN, data="standard")
    else:
        trained = by_trl_trainer(saved(kind), PLAIN, data="standard").tokens
        assert [row.tolist() for row in trained] == tokenizer([text + tokenizer.eos_token for text in joined])["input_ids"]


def test_batches_are_longer_than_one(saved: Callable[[str], str]) -> None:
    """Nine conversations are two batches in every program; the order is kept."""
    many = [(f"Question {i}?", "word " * i + "end") for i in range(9)]
    want = by_seamark(saved("llama"), many).scores
    assert len(np.unique(want)) == 9
    for read in (by_transformers, by_trl, by_trl_trainer):
        np.testing.assert_allclose(read(saved("llama"), many).scores, want, atol=1e-5)


def test_a_reading_seeds_nobody(saved: Callable[[str], str]) -> None:
    import torch

    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    want = torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    by_trl_trainer(saved("llama"), PLAIN)
    by_transformers(saved("llama"), PLAIN, seed=1)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == want  # noqa: NPY002


def test_standard_data_takes_one_text(saved: Callable[[str], str]) -> None:
    with pytest.raises(InvalidSetting, match="one text"):
        by_trl(saved("llama"), ALL, data="standard")


def test_what_a_checkpoint_says_of_itself(saved: Callable[[str], str]) -> None:
    found = describe(saved("gpt2"))
    assert (found.n_labels, found.problem_type, found.causal, found.pad, found.eos, found.model_pad) == (
        1, "regression", True, "<pad>", "</s>", "<pad>",
    )  # fmt: skip
    assert found.has_template
    assert found.missing_head is None
    assert found.as_trained is None
    assert not describe(saved("bert")).causal


# ---------------------------------------------------------------------------------------------- HTTP


@pytest.mark.parametrize(
    ("path", "send"),
    [("/classify", "text"), ("/classify", "messages"), ("", "text"), ("/get_reward", "text"), ("/v1/score/evaluation", "text")],
)
def test_servers_are_asked_in_their_own_shape(path: str, send: Any, saved: Callable[[str], str]) -> None:
    reference = by_seamark(saved("llama"), ALL)
    with serve(saved("llama")) as served:
        reading = by_http(saved("llama"), ALL, served.url + path, send=send)
    np.testing.assert_allclose(reading.scores, reference.scores, atol=1e-6)
    assert reading.tokens is None
    (where, first), *others = served.asked
    text = Reference.open(saved("llama")).conversations.render(*ALL[0])
    if send == "messages":
        assert first == {
            "messages": [{"role": "user", "content": ALL[0][0]}, {"role": "assistant", "content": ALL[0][1]}],
            "use_activation": False,
        }
        assert len(others) == len(ALL) - 1
    elif path in ("/classify", ""):
        assert where == "/classify"
        assert first["input"][0] == text
        assert first["add_special_tokens"] is False
        assert first["use_activation"] is False
    elif path == "/get_reward":
        assert first == {"query": [text], "prompts": [ALL[0][0]], "labels": [None]}
    else:
        assert first["messages"][0] == text


VLLM = {
    "id": "classify-7c87cac407b749a6935d8c7ce2a8fba2", "object": "list", "created": 1745383065, "model": "reward",
    "data": [
        {"index": 1, "label": "LABEL_0", "probs": [-3.25], "num_classes": 1},
        {"index": 0, "label": "LABEL_0", "probs": [0.565970778465271], "num_classes": 1},
    ],
    "usage": {"prompt_tokens": 10, "total_tokens": 10, "completion_tokens": 0, "prompt_tokens_details": None},
}  # fmt: skip
"""In the shape of vLLM's ClassificationResponse, answers out of order."""
OPENRLHF = {"rewards": [0.5], "scores": [0.5], "extra_logs": {"dummy_scores": [0.5]}}
"""In the shape that OpenRLHF's remote reward client reads (openrlhf/utils/agent.py)."""
LLAMA_FACTORY = {"id": "scoreeval-1", "object": "score.evaluation", "model": "reward", "scores": [0.5, -1.0]}
"""In the shape of LLaMA-Factory's ScoreEvaluationResponse."""


@contextmanager
def answering(*answers: tuple[int, Any]) -> Generator[tuple[str, list[Any]]]:
    """A server that gives these answers in turn, the last one from then on; and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = answers[min(len(asked), len(answers)) - 1]
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_RETRY_S", 0.01)


@pytest.mark.parametrize(
    ("path", "answer", "want"),
    [
        ("/classify", VLLM, [0.565970778465271, -3.25]),
        ("/get_reward", OPENRLHF, [0.5, 0.5]),
        ("/v1/score/evaluation", LLAMA_FACTORY, [0.5, -1.0]),
    ],
)
def test_recorded_answers(path: str, answer: Any, want: list[float], saved: Callable[[str], str]) -> None:
    with answering((200, answer)) as (url, _):
        assert by_http(saved("llama"), PLAIN[:2], url + path).scores.tolist() == want


def test_what_may_pass_is_tried_again(saved: Callable[[str], str]) -> None:
    with answering((503, {}), (502, b"bad gateway"), (200, VLLM)) as (url, asked):
        assert len(by_http(saved("llama"), PLAIN[:2], url).scores) == 2
    assert len(asked) == 3
    assert asked[0] == asked[2]


@pytest.mark.parametrize(
    ("answer", "said", "tries"),
    [
        ((503, {"detail": "loading"}), r"answers 503 .*loading", 3),
        ((404, {"detail": "Not Found"}), r"answers 404 .*Not Found", 1),
        ((200, b"<html>"), "not JSON but <html>", 1),
        ((200, {"data": []}), "2 conversations were sent", 1),
        ((200, {"error": "none"}), "KeyError 'data'", 1),
        ((200, {"data": [{"index": i, "probs": [0.6, 0.4], "num_classes": 2} for i in range(2)]}), "2 scores for one conversation", 1),
        ((200, {"data": [{"index": i, "probs": [None]} for i in range(2)]}), "TypeError", 1),
        ((200, b'{"data": [{"index": 0, "probs": [NaN]}, {"index": 1, "probs": [1.0]}]}'), "2 conversations were sent", 1),
    ],
    ids=["503", "404", "html", "empty", "error", "two labels", "null", "nan"],
)
def test_what_is_no_answer(answer: tuple[int, Any], said: str, tries: int, saved: Callable[[str], str]) -> None:
    with answering(answer) as (url, asked), pytest.raises(UnreadableSource, match=said):
        by_http(saved("llama"), PLAIN[:2], url)
    assert len(asked) == tries


def test_a_server_that_hangs(saved: Callable[[str], str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as hanging, pytest.raises(UnreadableSource, match="does not answer"):
        by_http(saved("llama"), PLAIN[:2], f"http://127.0.0.1:{hanging.getsockname()[1]}", timeout_s=0.1)


def test_a_proxy_is_not_asked_about_this_machine(saved: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering((200, VLLM)) as (url, _):
        assert len(by_http(saved("llama"), PLAIN[:2], url).scores) == 2


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/classify", "127.0.0.1:8000", "http://", "http://host/v1/chat/completions"]
)
def test_urls_that_are_none_of_ours(url: str, saved: Callable[[str], str]) -> None:
    with pytest.raises(InvalidSetting, match="url"):
        by_http(saved("llama"), PLAIN[:2], url)
