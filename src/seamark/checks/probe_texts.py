"""Which texts are probed and judged: drawn from those given, each scored once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seamark.checks.comparisons import compare, counted
from seamark.checks.covering import spread_sample
from seamark.checks.perturbations import stream
from seamark.checks.shortcuts import Judged
from seamark.errors import InvalidSetting
from seamark.models.features import hash_features
from seamark.records import Feedback
from seamark.reward.scorers import texts_of
from seamark.reward.signal import Text

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Drawn:
    """Distinct responses that are probed, those that are changed first."""

    prompts: list[Text]
    texts: list[str]
    prompt: Codes
    """Code of the prompt."""
    changed: int
    """How many are changed; the others are there to be compared with."""
    strata: Codes
    """(changed, 3) topic, length and shape."""
    n_there: int
    """Distinct responses that there were."""


class Texts:
    """Texts to be scored, each once, and where each of them is."""

    def __init__(self) -> None:
        self.prompts: list[Text] = []
        self.responses: list[str] = []
        self._place: dict[tuple[str, str], int] = {}

    def add(self, prompt: Text, response: str) -> int:
        """The row of a text."""
        key = (as_text(prompt), response)
        if key not in self._place:
            self._place[key] = len(self.responses)
            self.prompts.append(prompt)
            self.responses.append(response)
        return self._place[key]


def as_text(prompt: Text) -> str:
    """A prompt as text; several messages as their JSON."""
    return prompt if isinstance(prompt, str) else json.dumps([dict(turn) for turn in prompt], ensure_ascii=False)


def draw(prompts: Sequence[Text], responses: Sequence[str], n: int, seed: int) -> Drawn:
    """n responses that cover topics, lengths and shapes, and for each another one to the same prompt where there is one."""
    distinct: dict[tuple[str, str], int] = {}
    for i, (p, r) in enumerate(zip(prompts, responses, strict=True)):
        if r.strip():
            distinct.setdefault((as_text(p), r), i)
    names: dict[str, int] = {}
    code = np.array([names.setdefault(p, len(names)) for p, _ in distinct], dtype=np.int64)
    texts = [r for _, r in distinct]
    if len(texts) < 2:
        raise InvalidSetting(
            "responses", counted(len(texts), "distinct text"), "Give two responses that are not empty, or none for the built-in ones."
        )
    rng = stream(seed, "sample")
    strata = _strata(list(names), code, texts)
    chosen = spread_sample(strata, n, rng=rng)
    taken = set(chosen.tolist())
    members: dict[int, list[int]] = {}
    for i in rng.permutation(len(texts)).tolist():
        members.setdefault(int(code[i]), []).append(i)
    mates: list[int] = []
    for i in chosen.tolist():
        there = members[int(code[i])]
        if sum(j in taken for j in there) < 2:
            extra = next((j for j in there if j not in taken), None)
            if extra is not None:
                mates.append(extra)
                taken.add(extra)
    rows = [*chosen.tolist(), *mates]
    originals = list(distinct.values())
    return Drawn([prompts[originals[i]] for i in rows], [texts[i] for i in rows], code[rows], len(chosen), strata[chosen], len(texts))  # fmt: skip


def _strata(prompts: list[str], code: Codes, texts: list[str]) -> Codes:
    """(N, 3) topic: quarter of the prompts along the main direction of their words; third of the lengths; whether there is markup."""
    words = hash_features(prompts, n_columns=64).astype(np.float64)
    centred = words - words.mean(0)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    place = np.argsort(np.argsort(np.round(along, 9), kind="stable"), kind="stable")
    topic = place * min(4, len(prompts)) // len(prompts)
    length = np.argsort(np.argsort([len(t) for t in texts], kind="stable"), kind="stable") * 3 // len(texts)
    markup = np.array([any(mark in text for mark in ("**", "\n- ", "\n* ", "\n1.", "```", "\n#")) for text in texts])
    return np.column_stack([topic[code], length, markup]).astype(np.int64)


@dataclass(frozen=True)
class Questions:
    """Decided comparisons, before they are scored."""

    left: Codes
    right: Codes
    """Rows of the texts to be scored."""
    won: Flags
    unit: Codes
    prompts: list[str]
    n_there: int


def ask(feedback: Feedback | None, texts: Texts, most: int, seed: int, name: str) -> Questions | None:
    """Decided comparisons of two texts, of as many prompts as there are, until so many texts are in them."""
    if feedback is None:
        return None
    decided = compare(feedback, seed=seed).most_direct().decided()
    prompt, text = texts_of(feedback)
    there = np.array([text[a] is not None and text[b] is not None and text[a] != text[b] for a, b in zip(decided.left.tolist(), decided.right.tolist(), strict=True)], dtype=bool)  # fmt: skip
    decided = decided.where(there)
    if not len(decided):
        return None
    unit = np.unique(decided.topic(), return_inverse=True)[1].astype(np.int64)
    rng = stream(seed, name)
    order = rng.permutation(len(unit))
    # prompts take turns, so that a part of the judgments is about all of them
    seen = np.zeros(len(unit), dtype=np.int64)
    counts = np.zeros(int(unit.max()) + 1, dtype=np.int64)
    for j in order.tolist():
        seen[j] = counts[unit[j]]
        counts[unit[j]] += 1
    order = order[np.argsort(seen[order], kind="stable")]
    used: set[int] = set()
    rows: list[int] = []
    for j in order.tolist():
        new = {int(decided.left[j]), int(decided.right[j])}
        if len(used | new) <= most:
            used |= new
            rows.append(j)
    rows.sort()
    spot = {r: texts.add(prompt[r], text[r] or "") for r in sorted(used)}
    left, right = ([spot[int(side[j])] for j in rows] for side in (decided.left, decided.right))
    return Questions(
        np.array(left, dtype=np.int64), np.array(right, dtype=np.int64), decided.sign[rows] > 0, unit[rows],
        [as_text(prompt[r]) for r in decided.left[rows].tolist()], len(decided),
    )  # fmt: skip


def answered(asked: Questions | None, texts: Texts, scores: Array) -> Judged | None:
    """The comparisons with the reward's gaps; those without both scores left out."""
    if asked is None:
        return None
    gap = scores[asked.left] - scores[asked.right]
    known = np.isfinite(gap)
    if not known.any():
        return None
    return Judged(gap[known], asked.won[known], asked.unit[known], asked.left[known], asked.right[known], texts.responses, [p for p, k in zip(asked.prompts, known, strict=True) if k])  # fmt: skip
