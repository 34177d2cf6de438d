"""A server of a reward model on loopback: answers as vLLM, OpenRLHF and LLaMA-Factory do, and wrongly on purpose."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from seamark.reward.paths import Reference, describe


@dataclass
class Served:
    """Where it is, and what it was asked."""

    url: str
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def serve(checkpoint: Path | str, *wrong: str) -> Generator[Served]:
    """Serve it as vLLM would, or with these faults.

    Faults: sigmoid (whatever is asked), bos (special tokens are added to any text), eos (the last end token is dropped), pad (read before the
    pads at the end), place (scores depend on the place in the request), noise, cut (64 tokens are read), plain (messages are joined without a
    template), prompted (a generation prompt is appended), turns (no messages), other (another model), half (bfloat16).
    """
    described = describe(str(checkpoint))
    reference = Reference.open(str(checkpoint), dtype="bfloat16") if "half" in wrong else described.reference
    tokenizer, rng = reference.conversations.tokenizer, np.random.default_rng(0)

    def score(rows: list[list[int]], activated: bool) -> list[float]:
        if "eos" in wrong:
            rows = [row[: len(row) - row[::-1].index(tokenizer.eos_token_id) - 1] for row in rows]
        if "pad" in wrong:
            rows = [row[: max(i for i, t in enumerate(row) if t != tokenizer.pad_token_id) + 1] for row in rows]
        if "cut" in wrong:
            rows = [row[:64] for row in rows]
        out = reference.score([np.array(row) for row in rows])
        out = -(out[::-1] ** 2) if "other" in wrong else out
        out = out + 10 * (np.arange(len(out)) < len(out) / 2) if "place" in wrong else out
        out = out + rng.normal(size=len(out)) if "noise" in wrong else out
        return (1 / (1 + np.exp(-out)) if activated or "sigmoid" in wrong else out).astype(np.float32).tolist()

    def text_of(messages: list[dict[str, str]]) -> str:
        if "plain" in wrong:
            return "".join(m["content"] for m in messages)
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt="prompted" in wrong)

    def classify(asked: dict[str, Any]) -> dict[str, Any]:
        """vLLM's defaults: special tokens are added to `input` and not to `messages`; an activation unless the problem is a regression."""
        if "messages" in asked:
            texts, special = [text_of(asked["messages"])], asked.get("add_special_tokens", False)
        else:
            texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
            special = asked.get("add_special_tokens", True) or "bos" in wrong
            end = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
            plain = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
            texts = [t + end[len(plain) :] for t in texts] if "prompted" in wrong else texts
        rows = tokenizer(texts, add_special_tokens=special)["input_ids"]
        scores = score(rows, asked.get("use_activation", described.problem_type != "regression"))
        data = [{"index": i, "label": "LABEL_0", "probs": [s], "num_classes": 1} for i, s in enumerate(scores)]
        n = sum(map(len, rows))
        return {
            "id": "classify-1", "object": "list", "created": 0, "model": asked.get("model", "reward"), "data": data[::-1],
            "usage": {"prompt_tokens": n, "total_tokens": n, "completion_tokens": 0, "prompt_tokens_details": None},
        }  # fmt: skip

    def as_text(texts: list[str]) -> list[float]:
        return score(tokenizer(texts, add_special_tokens=False)["input_ids"], False)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append((self.path, asked))
            if self.path == "/classify" and not ("turns" in wrong and "messages" in asked):
                self.answer(200, classify(asked))
            elif self.path == "/get_reward":
                self.answer(200, {"rewards": as_text(asked["query"])})
            elif self.path == "/v1/score/evaluation":
                self.answer(200, {"id": "scoreeval-1", "object": "score.evaluation", "model": "m", "scores": as_text(asked["messages"])})
            else:
                self.answer(400, {"error": {"message": "input: field required", "type": "BadRequestError", "code": 400}})

        def answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Served(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
