"""`check_parity`: does a saved reward model give the same scores wherever it is used? If not, why.

Conventions
-----------
The reference is Seamark's own reading: one conversation at a time, without pads, in float32, at its last token. Differences are in
standard deviations of the reference's scores over the conversations. Where another program shows which tokens it read, the tokens are
compared; where it does not, what it might have read is scored until one possibility gives its scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.checks.comparisons import Comparisons, compare, counted, percent
from seamark.checks.findings import Finding, Findings, Verdict
from seamark.checks.repeats import check_leakage
from seamark.checks.thresholds import THRESHOLDS
from seamark.errors import InvalidSetting, MissingExtra, SeamarkError, UnreadableSource
from seamark.intervals import share
from seamark.models.conversations import Tokens, turns_of
from seamark.progress import Progress
from seamark.records import Feedback
from seamark.reward.paths import (
    Conversation,
    Described,
    Reading,
    Reference,
    by_http,
    by_transformers,
    by_trl,
    by_trl_trainer,
    describe,
)

Array = NDArray[np.float64]

_CONVERSATIONS = 64
"""Most conversations that are scored; every way reads each, some of them several times."""
_TAIL = 4
"""Tokens at the end of a conversation among which its end token is looked for: templates put a line break after it."""
_SHOWN = 12
_TOLERANCE = 1e-3
"""Largest difference, in standard deviations of the scores, that the order of summation makes in float32."""
_ROUNDING = 2.0**-21
"""Of a float32 sum, as a share of its size: four times the spacing of numbers near 1."""
_COUNTED = "An exact figure about these conversations, so there is no interval."

_CAUSES: dict[str, tuple[str, str]] = {
    "bos-doubled": (
        "the special token that begins a text is there twice",
        "Tokenise what the chat template has rendered with add_special_tokens=False, or send turns (messages).",
    ),
    "bos-missing": (
        "the special token that begins a text is missing",
        "Render the conversation with the saved chat template, which holds it.",
    ),
    "eos-doubled": (
        "the special token that ends a text is there twice",
        "Tokenise what the chat template has rendered with add_special_tokens=False, and append nothing to it.",
    ),
    "eos-missing": (
        "the end token is missing, and the score is read at a token that it was not trained at",
        "Score whole conversations in the saved chat template: in TRL, data with turns (conversational), not plain texts (standard).",
    ),
    "template": (
        "the turns are rendered otherwise than by the chat template of the checkpoint",
        "Render with the saved chat template: in TRL, data with turns (conversational); for a server, messages, or text rendered before.",
    ),
    "generation-prompt": (
        "the beginning of another answer (the generation prompt) is put after the response",
        "Render with add_generation_prompt=False.",
    ),
    "whole": (
        "the whole conversation is read, where the checkpoint was trained on its first token and the last ones (overlong='cut')",
        "Cut conversations in the same way before they are scored, or train with a length that holds them.",
    ),
    "cut": ("the conversation is cut", "Raise the length up to which it reads (max_length, max_model_len), or leave long conversations out."),
    "pad-is-eos": (
        "the end token is taken for a pad, and the score is read before it",
        "Save the checkpoint with a pad token of its own (pad_token='<pad>'), in the tokenizer and in config.json.",
    ),
    "left-padding": (
        "pads on the left shift the positions",
        "Save the tokenizer with padding_side='right', or pad on the right.",
    ),
    "sigmoid": (
        "a sigmoid is applied, and differences between high scores vanish",
        "Write \"problem_type\": \"regression\" into config.json, and ask the server with \"use_activation\": false.",
    ),
    "half-precision": (
        "the weights are read in half precision",
        "Write \"dtype\": \"float32\" into config.json, by which transformers loads 16-bit weights into 32 bits, or ask for it where it is loaded.",
    ),
    "not-repeatable": (
        "the same conversations get other scores when they are read again",
        "Switch off dropout (model.eval()) and look for weights that are made at random when the model is loaded.",
    ),
    "unexplained": (
        "none of the known causes explains it",
        "Compare the tokens and the weights that it reads: it may serve another model, or another revision.",
    ),
}  # fmt: skip
"""What may make scores differ: in words, and what to do."""


@dataclass(frozen=True)
class _Way:
    """One way of reading a checkpoint."""

    code: str
    name: str
    read: Callable[[Sequence[Conversation]], Reading]
    trap: bool = False
    """Whether it is known to mislead, so that a difference is the user's to avoid and no fault of the checkpoint or server."""
    plain: bool = False
    """Whether it takes only prompts of one text."""
    right: Callable[[Sequence[Conversation]], Reading] | None = None
    """The same with pads on the right."""


def check_parity(
    checkpoint: str,
    conversations: Sequence[Conversation] | None = None,
    *,
    url: str | None = None,
    judgments: Feedback | None = None,
    train: Feedback | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """Whether a reward model gives the same scores in Seamark, transformers, TRL and on a server; and what differs where it does not.

    Parameters
    ----------
    checkpoint : folder or hub name of a reward model.
    conversations : (prompt, response) pairs to score, at least two. Left out, some of the responses of `judgments`, or built-in ones.
    url : of a server that serves the checkpoint: its path ends in /classify (vLLM, SGLang), /get_reward or /v1/score/evaluation.
    judgments : comparisons, for the tests that need labels: swapped labels, pairs that are the same tokens, ties in half precision.
    train : what the model was trained on, to look for overlap with `judgments`.
    tolerance : in standard deviations of the scores; left out, that of the precision: 0.001 in float32.
    seed : of the sample of conversations.
    progress : is told what is being read and the share done.

    Raises
    ------
    UnreadableSource
        If there is no such reward model, or nobody answers at the URL.
    InvalidSetting
        If there are fewer than two conversations, a tolerance that is not positive, or a train without judgments.
    """
    say: Progress = progress or (lambda _stage, _share: None)
    if tolerance is not None and not tolerance > 0:
        raise InvalidSetting("tolerance", tolerance, "Use a positive number of standard deviations.")
    if train is not None and judgments is None:
        raise InvalidSetting("train", "given", "Its overlap is looked for in judgments: give those as well.")
    say("opening", 0.0)
    described = describe(checkpoint)
    reference = described.reference
    findings = [*_structure(described), _special_text(reference)]
    of_data = [*check_leakage(train, judgments, seed=seed)] if train is not None and judgments is not None else []
    pairs = None if judgments is None else _sampled(judgments, seed)
    if judgments is not None:
        of_data = [_same_tokens(judgments, reference, seed), *of_data]
    if conversations is None:
        conversations = trap_conversations(reference) if pairs is None else pairs.conversations
    if len(conversations) < 2:
        raise InvalidSetting("conversations", len(conversations), "Give at least two: differences are measured by their spread.")
    if described.missing_head is not None:
        return Findings((*findings, _random_head(checkpoint, described, conversations[:8]), *of_data)).with_access("white-box")
    ways = _ways(checkpoint, url)
    say("Seamark", 0.1)
    rows = reference.encode(conversations)
    compared = _Compared(checkpoint, reference, conversations, tuple(rows), reference.score(rows), tolerance)
    findings.append(_policy_tokens(compared))
    for i, way in enumerate(ways):
        say(way.code, 0.15 + 0.6 * i / len(ways))
        findings += _compare(way, compared)
    if pairs is not None and len(pairs.left):
        for way in ways:
            if way.code in ("transformers", "http"):
                say(f"swap/{way.code}", 0.8)
                of_data.append(_swap(way, pairs, tolerance))
        say("half precision", 0.9)
        of_data.append(_half_ties(checkpoint, reference, pairs))
    elif judgments is not None:
        why = "No judgment prefers one response to another."
        of_data.append(Finding.not_applicable("swap", "Swapping the labels cannot be tried.", why))
    return Findings((*findings, *of_data)).with_access("white-box")


def _ways(checkpoint: str, url: str | None) -> list[_Way]:
    transformers, trl = partial(by_transformers, checkpoint), partial(by_trl, checkpoint)
    ways = [
        _Way("transformers", "transformers, in padded batches", transformers, right=partial(transformers, padding_side="right")),
        _Way("transformers/single", "transformers, one at a time", partial(transformers, batch=1)),
        _Way("transformers/text", "transformers, as text with the usual special tokens (as pipelines do)", partial(transformers, read="text"), trap=True),
        _Way("trl", "TRL's reward models in GRPO and RLOO, data with turns", trl),
        _Way("trl/trainer", "TRL's RewardTrainer, data with turns", partial(by_trl_trainer, checkpoint)),
        _Way("trl/standard", "TRL's reward models in GRPO and RLOO, plain texts", partial(trl, data="standard"), trap=True, plain=True),
        _Way(
            "trl/trainer-standard", "TRL's RewardTrainer, plain texts", partial(by_trl_trainer, checkpoint, data="standard"), trap=True,
            plain=True,
        ),
    ]  # fmt: skip
    if url is not None:
        http = partial(by_http, checkpoint, url=url)
        ways.append(_Way("http", "the server, as text", http))
        if url.rstrip("/").endswith("/classify") or "/" not in url.rstrip("/").partition("://")[2]:
            ways += [
                _Way("http/messages", "the server, as turns", partial(http, send="messages")),
                _Way("http/defaults", "the server, as text and with its own defaults", partial(http, send="defaults"), trap=True),
            ]
    return ways


# ---------------------------------------------------------------------------------------------- one way against the reference


@dataclass(frozen=True)
class _Compared:
    """What the reference makes of the conversations."""

    checkpoint: str
    reference: Reference
    conversations: Sequence[Conversation]
    tokens: tuple[Tokens, ...]
    scores: Array
    tolerance: float | None

    def of(self, rows: Sequence[int]) -> _Compared:
        tokens = tuple(self.tokens[i] for i in rows)
        return _Compared(
            self.checkpoint, self.reference, [self.conversations[i] for i in rows], tokens, self.scores[list(rows)], self.tolerance
        )


def _compare(way: _Way, compared: _Compared) -> list[Finding]:
    """The finding that they agree, or one for each cause of a difference."""
    if way.plain:
        rows = [i for i, (prompt, _) in enumerate(compared.conversations) if prompt is None or isinstance(prompt, str)]
        if len(rows) < 2:
            why = "It takes prompts of one text, and fewer than two are."
            return [Finding.not_applicable(f"parity/{way.code}", f"Reading by {way.name} does not apply.", why)]
        compared = compared.of(rows)
    try:
        theirs = way.read(compared.conversations)
    except MissingExtra as error:
        return [Finding.not_applicable(f"parity/{way.code}", f"Reading by {way.name} cannot be tried.", _sentence(error))]
    except SeamarkError as error:
        if way.code == "http":
            raise  # nobody answers: there is nothing to compare
        return [_failed(way, error)]
    n = len(theirs.scores)
    difference = np.abs(theirs.scores - compared.scores)
    scale = _scale(compared.scores)
    details: dict[str, Any] = {
        "max_sd": float(difference.max() / scale), "median_sd": float(np.median(difference) / scale), "sd": scale, "dtype": theirs.dtype,
        "share_reversed": _reversed(compared.scores, theirs.scores), "reference": compared.scores[:_CONVERSATIONS].tolist(),
        "scores": theirs.scores[:_CONVERSATIONS].tolist(),
    }  # fmt: skip
    found = _causes(way, compared, theirs)
    sizes = f"at most {_figure(details['max_sd'])} sd, median {_figure(details['median_sd'])}"
    measured = f"Differences in standard deviations of the reference's scores ({scale:.3g}); n counts conversations."
    if not found:
        return [
            Finding(
                code=f"parity/{way.code}", title=f"Read by {way.name}, {counted(n, 'conversation')} have the scores of the reference: {sizes} apart.",
                estimate=details["max_sd"], n=n, unit="sd", reason=f"{measured} {_COUNTED}", details=details,
            )
        ]  # fmt: skip
    out: list[Finding] = []
    for cause, count in found.items():
        words, remedy = _CAUSES[cause]
        verdict: Verdict = "warning" if way.trap or cause == "half-precision" else "blocking"
        how = (
            "No change of the tokens, of where the score is read, of precision or by a sigmoid gives its scores."
            if cause in ("unexplained", "not-repeatable")
            else f"Undone{' with the other causes named' if len(found) > 1 else ''}, it gives the scores of the reference."
        )
        out.append(
            Finding(
                code=f"parity/{way.code}/{cause}", verdict=verdict, estimate=details["max_sd"], n=n, unit="sd", remedy=remedy, details=details,
                title=f"Read by {way.name}, scores differ from the reference by {sizes}: {words}"
                + (f", in {count:,} of {counted(n, 'conversation')}." if count < n else "."),
                reason=f"{measured} {how} {percent(details['share_reversed'])} of pairs of conversations change their order. {_COUNTED}",
            )
        )  # fmt: skip
    return out


def _failed(way: _Way, error: SeamarkError) -> Finding:
    if way.code == "http/messages":  # older servers take text alone
        return Finding.not_applicable(f"parity/{way.code}", "The server does not take turns (messages).", _sentence(error))
    return Finding(
        code=f"parity/{way.code}/fails", title=f"Read by {way.name}, the checkpoint gives no scores.", reason=_sentence(error),
        verdict="warning" if way.trap else "blocking", remedy="Mend the checkpoint, unless nobody reads it in this way.",
    )  # fmt: skip


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _sentence(error: SeamarkError) -> str:
    text = error.problem if isinstance(error, UnreadableSource) else str(error)
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else text + "."


def _scale(scores: Array) -> float:
    """Their standard deviation; their size where all are alike."""
    sd, size = float(scores.std(ddof=1)), float(np.abs(scores).max())
    return sd if sd > 1e-6 * size else max(size, 1e-12)


def _reversed(one: Array, two: Array) -> float:
    """Share of pairs that one orders otherwise than the other."""
    i, j = np.triu_indices(len(one), 1)
    return float(((one[i] - one[j]) * (two[i] - two[j]) < 0).mean())


def _distance(one: Array, two: Array) -> float:
    """Largest difference in standard deviations of the second, less what rounding alone may make where all scores are alike."""
    return max(0.0, float(np.abs(one - two).max()) - _ROUNDING * float(np.abs(two).max())) / _scale(two)


def _policy_tokens(compared: _Compared) -> Finding:
    """What becomes of scores that are read at the end token, where the template puts something after it."""
    code, special = "parity/policy-tokens", _Special.of(compared.reference)
    tails = [special.tail(row) for row in compared.tokens]
    n, after = len(tails), sum(tail > 1 for tail in tails)
    where = "Programs that score a policy's own tokens (OpenRLHF) read at the end token, where generation stops."
    if not any(tails):
        return Finding.not_applicable(code, "Scores are not read at an end token.", "No conversation ends with one in the chat template.")
    cut = [row[: len(row) - tail + 1] if tail else row for row, tail in zip(compared.tokens, tails, strict=True)]
    difference = np.abs(compared.reference.score(cut) - compared.scores) / _scale(compared.scores)
    wrong = float(difference.max()) > (compared.tolerance or _TOLERANCE)
    sizes = f"at most {_figure(float(difference.max()))} sd, median {_figure(float(np.median(difference)))}"
    return Finding(
        code=code, estimate=float(difference.max()), n=n, unit="sd", verdict="warning" if wrong else "ok",
        title=f"The chat template puts text after the end token in {after:,} of {counted(n, 'conversation')}; read at the end token itself, scores "
        f"differ from the reference by {sizes}." if after else f"{counted(n, 'conversation')} end with the end token, where a policy stops as well.",
        reason=f"{where} In standard deviations of the reference's scores; n counts conversations. {_COUNTED}",
        remedy="Train with a chat template whose text ends with the end token, or send such programs whole texts (a reward server)." if wrong else None,
    )  # fmt: skip


def _sigmoid(scores: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(scores, -500, 500)))


def _causes(way: _Way, compared: _Compared, theirs: Reading) -> Counter[str]:
    """Why scores differ, and how many conversations each cause concerns; empty where they do not differ.

    Each possibility of what was read is scored, the simplest first, as it is and under a sigmoid, until one gives their scores.
    """
    tolerance, n = compared.tolerance or _TOLERANCE, len(theirs.scores)
    nearest: tuple[float, Counter[str]] = (np.inf, Counter())
    for causes, rows in _possibilities(compared, theirs):
        read = compared.scores if rows is compared.tokens else compared.reference.score(rows)
        for more, values in ((Counter[str](), read), (Counter(sigmoid=n), _sigmoid(read))):
            distance = _distance(theirs.scores, values)
            if distance <= tolerance:
                return causes + more
            nearest = min(nearest, (distance, causes + more), key=lambda pair: pair[0])
    loose = tolerance
    if theirs.tokens is None or theirs.dtype != "float32":
        # a server may well compute in half precision, and does not say so: it may be off by twice what our own reading is then
        half = Reference.open(compared.checkpoint, dtype="bfloat16" if theirs.tokens is None else theirs.dtype)
        loose = max(tolerance, 2 * _distance(half.score(compared.tokens), compared.scores))
        if nearest[0] <= loose:
            return nearest[1] + Counter({"half-precision": n})
    return _from_tokens(compared, theirs) + Counter({_last_resort(way, compared, theirs, loose): n})


def _possibilities(compared: _Compared, theirs: Reading) -> Iterator[tuple[Counter[str], Sequence[Tokens]]]:
    """What may have been read, with the causes that it would be named by."""
    special = _Special.of(compared.reference)
    candidates: Iterator[tuple[Counter[str], Sequence[Tokens]]] = (
        iter([(_from_tokens(compared, theirs), theirs.tokens)]) if theirs.tokens is not None else _guesses(compared, special)
    )
    for causes, rows in candidates:
        yield causes, compared.tokens if not causes else rows
        stripped = [_without(row, special.pad) for row in rows]
        if changed := sum(len(one) < len(two) for one, two in zip(stripped, rows, strict=True)):
            yield causes + Counter({"pad-is-eos": changed}), stripped


def _from_tokens(compared: _Compared, theirs: Reading) -> Counter[str]:
    return Counter() if theirs.tokens is None else _differences(compared.tokens, theirs.tokens, _Special.of(compared.reference))


def _guesses(compared: _Compared, special: _Special) -> Iterator[tuple[Counter[str], Sequence[Tokens]]]:
    """What a server may read that does not say it."""
    yield Counter(), compared.tokens
    reading = compared.reference.conversations
    tokenizer: Any = reading.tokenizer
    texts = [reading.render(prompt, response) for prompt, response in compared.conversations]
    plain = ["".join(_contents(prompt)) + response for prompt, response in compared.conversations]
    prompted = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt or ""}, {"role": "assistant", "content": response}]
            if prompt is None or isinstance(prompt, str)
            else [*(dict(m) for m in prompt), {"role": "assistant", "content": response}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for prompt, response in compared.conversations
    ]
    end = np.array(sorted(special.ends), dtype=np.int32)[:1]
    edits: tuple[tuple[str | None, Sequence[Tokens]], ...] = (
        (None, _tokenised(tokenizer, texts, special_tokens=True)),
        (None, [row[special.lead(row) :] for row in compared.tokens]),
        (None, [row[: len(row) - special.tail(row)] for row in compared.tokens]),
        (None, [np.concatenate([row, end]) for row in compared.tokens]),
        ("generation-prompt", _tokenised(tokenizer, prompted, special_tokens=False)),
        (None, _tokenised(tokenizer, plain, special_tokens=True)),
        (None, _tokenised(tokenizer, plain, special_tokens=False)),
    )
    for name, rows in edits:
        changed = sum(not np.array_equal(one, two) for one, two in zip(rows, compared.tokens, strict=True))
        if changed and all(len(row) for row in rows):
            yield (_differences(compared.tokens, rows, special) if name is None else Counter({name: changed})), rows


def _tokenised(tokenizer: Any, texts: list[str], *, special_tokens: bool) -> list[Tokens]:
    return [np.asarray(row, dtype=np.int32) for row in tokenizer(texts, add_special_tokens=special_tokens)["input_ids"]]


def _contents(prompt: Any) -> list[str]:
    return [prompt or ""] if prompt is None or isinstance(prompt, str) else [str(m["content"]) for m in prompt]


def _last_resort(way: _Way, compared: _Compared, theirs: Reading, tolerance: float) -> str:
    """What is found out by reading again, or from which conversations differ."""
    if _distance(theirs.scores, way.read(compared.conversations).scores) > tolerance:
        return "not-repeatable"
    rows = compared.tokens if theirs.tokens is None else theirs.tokens
    if way.right is not None and _distance(way.right(compared.conversations).scores, compared.reference.score(rows)) <= tolerance:
        return "left-padding"
    differ = np.abs(theirs.scores - compared.scores) > _TOLERANCE * _scale(compared.scores)
    lengths = np.array([len(row) for row in rows])
    if theirs.tokens is None and differ.any() and (~differ).sum() > 1 and lengths[differ].min() > lengths[~differ].max():
        reading = compared.reference.conversations
        full = reading.lengths([reading.render(*c) for c, differs in zip(compared.conversations, differ, strict=True) if differs])
        return "whole" if full.min() > reading.longest else "cut"
    return "unexplained"


@dataclass(frozen=True)
class _Special:
    """The tokens that begin and end texts, and the pad token."""

    begins: frozenset[int]
    ends: frozenset[int]
    pad: int | None

    @staticmethod
    def of(reference: Reference) -> _Special:
        tokenizer: Any = reference.conversations.tokenizer
        begins = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}
        ends = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
        # without one, programs make the end token the pad
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return _Special(frozenset(begins), frozenset(ends), pad)

    def lead(self, row: Tokens) -> int:
        """How many tokens that begin a text it begins with."""
        return next((i for i, token in enumerate(row) if int(token) not in self.begins), len(row))

    def tail(self, row: Tokens) -> int:
        """Tokens from its last end token on, where that is near its end; else 0."""
        return next((i for i in range(1, min(_TAIL, len(row)) + 1) if int(row[-i]) in self.ends), 0)

    def ended(self, row: Tokens) -> int:
        """End tokens near its end."""
        return sum(int(token) in self.ends for token in row[-_TAIL:])

    def core(self, row: Tokens) -> list[int]:
        """Without what begins and ends it."""
        core = row[self.lead(row) : len(row) - self.tail(row)].tolist()
        while core and core[-1] in self.ends:
            core.pop()
        return core


def _differences(ours: Sequence[Tokens], theirs: Sequence[Tokens], special: _Special) -> Counter[str]:
    """In how many conversations what was read differs in what way."""
    found: Counter[str] = Counter()
    for one, two in zip(ours, theirs, strict=True):
        if not np.array_equal(one, two):
            found.update(_difference(one, two, special))
    if found["template"]:  # what is left of a conversation without its template may look as if it were cut
        found["template"] += found.pop("cut", 0) + found.pop("whole", 0)
    return +found


def _difference(ours: Tokens, theirs: Tokens, special: _Special) -> set[str]:
    found: set[str] = set()
    lead, ended = special.lead(theirs) - special.lead(ours), special.ended(theirs) - special.ended(ours)
    found |= {"bos-doubled"} if lead > 0 else {"bos-missing"} if lead < 0 else set()
    found |= {"eos-doubled"} if ended > 0 else {"eos-missing"} if ended < 0 else set()
    one, two = special.core(ours), special.core(theirs)
    if one != two:
        # cut on either side, and nothing else
        if len(two) < len(one) and two in (one[: len(two)], one[-len(two) :]):
            found |= {"cut"}
        # ours has the first token and the last ones; where the first begins a text it is not in the core
        elif 1 < len(one) < len(two) and one[1:] == two[1 - len(one) :] and one[0] in (two[0], two[-len(one)]):
            found |= {"whole"}
        else:
            found |= {"template"}
    return found or {"template"}


def _without(row: Tokens, pad: int | None) -> Tokens:
    """Up to the last token that is no pad: where transformers reads."""
    kept = np.flatnonzero(row != pad)
    return row[: kept[-1] + 1] if len(kept) else row


# ---------------------------------------------------------------------------------------------- the checkpoint itself


def _structure(described: Described) -> list[Finding]:
    """What a checkpoint must hold so that every program reads it alike."""
    d, asked = described, "Asked of the configuration and the files of the checkpoint; a fact, so there is no interval."

    def finding(code: str, wrong: Verdict | None, title: str, remedy: str | None) -> Finding:
        return Finding(code=f"checkpoint/{code}", title=title, verdict=wrong or "ok", reason=asked, remedy=remedy if wrong else None)

    unlike = d.model_pad != d.pad
    ends = d.causal and d.pad is not None and d.pad == d.eos
    pad = (
        "The tokenizer has no pad token, and batches need one." if d.pad is None
        else f"The model's pad token is {d.model_pad!r} and the tokenizer's {d.pad!r}: transformers reads the score at another place than a "
        "batch ends." if unlike and d.causal
        else f"The pad token {d.pad!r} is also the token that ends a text: what transformers takes for the last token, others do not." if ends
        else f"The pad token is {d.pad!r}, in the tokenizer and in the model."
    )  # fmt: skip
    out = [
        finding(
            "head", "blocking" if d.missing_head else None,
            f"The weights of the reward head ({d.missing_head}) are not saved: every load makes random ones." if d.missing_head
            else "The weights of the reward head are saved.",
            "Save it: with PEFT, task_type='SEQ_CLS' or modules_to_save=['score']; merge adapters into a model for sequence classification.",
        ),
        finding(
            "labels", "blocking" if d.n_labels != 1 else None,
            f"The checkpoint gives {counted(d.n_labels, 'score')} for each conversation.",
            "Save one with num_labels=1: programs read the first of several, or refuse.",
        ),
        finding(
            "problem-type", "warning" if d.problem_type != "regression" else None,
            f"The configuration says problem_type {d.problem_type!r}" + (
                "; vLLM returns the raw score." if d.problem_type == "regression" else ": vLLM puts a sigmoid on the score unless it is asked not to."
            ),
            "Write \"problem_type\": \"regression\" into config.json.",
        ),
        finding(
            "pad", "blocking" if d.pad is None or (unlike and d.causal) else "warning" if ends else None, pad,
            "Give it a pad token of its own (pad_token='<pad>'), and save tokenizer and model with it.",
        ),
        finding(
            "template", "blocking" if not d.has_template else None,
            "The chat template is saved with the tokenizer." if d.has_template else "No chat template is saved with the tokenizer.",
            "Save the template that was trained with: without it every program renders conversations in its own way.",
        ),
    ]  # fmt: skip
    if d.as_trained is None:
        why = "The checkpoint has no seamark.json that says what it was trained with."
        out.append(Finding.not_applicable("checkpoint/digest", "Whether it is read as it was trained cannot be told.", why))
    else:
        out.append(
            finding(
                "digest", None if d.as_trained else "blocking",
                "Template, vocabulary and length are those it was trained with." if d.as_trained
                else "Template, vocabulary or length are not those it was trained with (the digest in seamark.json differs).",
                "Restore tokenizer files and chat template of the training run.",
            )
        )  # fmt: skip
    return out


def _random_head(checkpoint: str, described: Described, conversations: Sequence[Conversation]) -> Finding:
    """What a head that is made at random does: two loads, two sets of scores."""
    kind = "lora-head-lost" if described.adapter else "random-head"
    title = "An adapter without its reward head" if described.adapter else "A checkpoint without its reward head"
    try:
        first, second = (by_transformers(checkpoint, conversations, seed=seed).scores for seed in (0, 1))
    except SeamarkError as error:
        return Finding.not_applicable(f"parity/{kind}", f"{title} cannot be scored with.", _sentence(error))
    difference = float(np.abs(first - second).max() / _scale(first))
    return Finding(
        code=f"parity/{kind}", verdict="blocking", estimate=difference, n=len(first), unit="sd",
        title=f"{title} has other scores at every load: two loads differ by up to {_figure(difference)} sd over "
        f"{counted(len(first), 'conversation')}.",
        reason=f"Read twice by transformers; in standard deviations of the scores of the first load; n counts conversations. {_COUNTED} "
        "Nothing else is compared.",
        remedy="Save the head that was trained (modules_to_save=['score'] with PEFT), or train it.",
    )  # fmt: skip


def _special_text(reference: Reference) -> Finding:
    """Whether a response can hold special tokens by writing their names."""
    reading, tokenizer = reference.conversations, reference.conversations.tokenizer
    names: list[str] = sorted({*tokenizer.all_special_tokens, *(t for t in tokenizer.get_added_vocab())})
    plain = reading.encode([reading.render("Why?", "So it is.")])[0]
    written: list[str] = []
    for name in names:
        token = tokenizer.convert_tokens_to_ids(name)
        row = reading.encode([reading.render("Why?", f"So {name} it is.")])[0]
        if int((row == token).sum()) > int((plain == token).sum()):
            written.append(name)
    shown = ", ".join(repr(name) for name in written[:4]) + (", ..." if len(written) > 4 else "")
    return Finding(
        code="checkpoint/special-text", estimate=float(len(written)), n=len(names), unit="count", verdict="notice" if written else "ok",
        title=f"A response that writes {shown} is read as holding the {'token itself' if len(written) == 1 else 'tokens themselves'}: "
        "it can end its own turn and begin another." if written else "What a response writes is never read as a special token.",
        reason="Tokenizers of transformers look for the names of special tokens in any text, in every program alike, so scores agree; n counts "
        "special tokens. A fact, so there is no interval.",
        remedy="Take these names out of responses of a policy before they are scored, or a policy may learn to write them." if written else None,
        details={"tokens": written[:100]},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- built-in conversations


def trap_conversations(reference: Reference) -> list[Conversation]:
    """Conversations in which programs are known to differ: turns, a system message, white space, other scripts, short, long, special
    tokens as text."""
    reading, tokenizer = reference.conversations, reference.conversations.tokenizer
    special = next((t for t in (tokenizer.eos_token, tokenizer.sep_token) if t), "</s>")
    turns = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And of Japan?"},
    ]
    out: list[Conversation] = [
        ("How do I bake bread?", "Mix flour, water, salt and yeast, let it rise, and bake it."),
        ("How do I bake bread?", "I cannot help with that."),
        ("Is it safe to mix bleach and ammonia?", "No. It releases toxic gas."),
        ("Say yes.", "Y"),
        ("Write a line with space around it.", "\n  Here it is.  \n\n"),
        ("Translate 'good morning'.", "Guten Morgen, bonjour, \u304a\u306f\u3088\u3046, \u0635\u0628\u0627\u062d \u0627\u0644\u062e\u064a\u0631 \U0001f31e e\u0301"),
        ("How do I end a text?", f"Some models write {special} at the end."),
        (None, "There was no question, and this is the answer."),
        (turns, "Tokyo."),
        (turns, "I already told you: it is Paris, of course, and nothing but Paris."),
    ]  # fmt: skip
    system: list[Mapping[str, Any]] = [{"role": "system", "content": "Answer in one word."}, *turns[:1]]
    try:
        reading.render(system, "Paris")
        out.append((system, "Paris"))
    except SeamarkError:
        pass  # the template takes none
    sentence, long = "Then we walked on, and the road went ever on and on. ", ""
    room = min(reading.longest, 1024) // 2
    while len(reading.encode([reading.render("Tell me a story.", long + sentence)])[0]) < room:
        long += sentence
    return [*out, ("Tell me a story.", long + "The end.")]


# ---------------------------------------------------------------------------------------------- with judgments


@dataclass(frozen=True)
class _Pairs:
    """Some decided comparisons, the preferred response first."""

    conversations: Sequence[Conversation]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    """(m,) rows of `conversations`: preferred, and not."""
    topic: NDArray[np.int64]
    total: int
    """Comparisons there are."""
    seed: int

    @property
    def drawn(self) -> str:
        m = len(self.left)
        return (
            f"{m:,} of {counted(self.total, 'decided comparison')}, drawn at random (seed {self.seed})"
            if m < self.total
            else "All decided comparisons"
        )


def _sampled(judgments: Feedback, seed: int) -> _Pairs:
    """At most so many responses that are judged against each other, or any, where none are."""
    turns = turns_of(judgments)
    rng = np.random.default_rng(seed)
    decided = compare(judgments, seed=seed).decided()
    decided = decided.where(decided.left != decided.right)
    chosen = np.sort(rng.permutation(len(decided))[: _CONVERSATIONS // 2])
    part: Comparisons = decided.where(np.isin(np.arange(len(decided)), chosen))
    better, worse = np.where(part.sign > 0, part.left, part.right), np.where(part.sign > 0, part.right, part.left)
    used = np.unique(np.concatenate([better, worse]))
    if not len(used):
        used = np.sort(rng.permutation(len(turns))[:_CONVERSATIONS])
    return _Pairs([turns[i] for i in used], np.searchsorted(used, better), np.searchsorted(used, worse), part.topic(), len(decided), seed)


def _swap(way: _Way, pairs: _Pairs, tolerance: float | None) -> Finding:
    """Accuracy with chosen and rejected as they are and swapped, each read anew in the order in which a trainer lays them out."""
    code = f"swap/{way.code}"

    def gaps(first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
        scores = way.read([pairs.conversations[i] for i in np.concatenate([first, second])]).scores
        return scores[: len(first)] - scores[len(first) :]

    try:
        gap, turned = gaps(pairs.left, pairs.right), gaps(pairs.right, pairs.left)
    except SeamarkError as error:
        return Finding.not_applicable(code, f"Swapping the labels cannot be tried with {way.name}.", _sentence(error))
    right, swapped = ((g > 0) + 0.5 * (g == 0) for g in (gap, turned))
    accuracy, total = share(right, cluster=pairs.topic), float(right.mean() + swapped.mean())
    near = float((np.abs(gap) <= (tolerance or _TOLERANCE) * _scale(gap)).mean()) if len(gap) > 1 else 1.0
    wrong = abs(total - 1) > near + 1e-9
    tied = float((gap == 0).mean())
    return Finding(
        code=code, estimate=total, n=len(gap), unit="share", verdict="blocking" if wrong else "ok",
        title=f"Read by {way.name}, accuracy is {percent(accuracy.estimate)} [{100 * accuracy.low:.0f}, {100 * accuracy.high:.0f}] and "
        f"{percent(float(swapped.mean()))} with chosen and rejected swapped, over {counted(len(gap), 'comparison')}: "
        + ("the two do not add up to 100%." if wrong else "the two add up to 100%."),
        reason=f"{pairs.drawn}; a tie counts half ({percent(tied)} are; programs that count ties as errors are off by that much). Scores that depend "
        f"on the place in a batch, or on labels, show here. {_COUNTED}",
        remedy="The score of a response depends on where it stands, or on its label: look at how batches are read." if wrong else None,
        details={"accuracy": accuracy.estimate, "low": accuracy.low, "high": accuracy.high, "swapped": float(swapped.mean()), "tied": tied},
    )  # fmt: skip


def _half_ties(checkpoint: str, reference: Reference, pairs: _Pairs) -> Finding:
    """How many pairs that differ in float32 tie in bfloat16."""
    rows = reference.encode(pairs.conversations)
    full, half = reference.score(rows), Reference.open(checkpoint, dtype="bfloat16").score(rows)
    differ = full[pairs.left] != full[pairs.right]
    if not differ.any():
        why = "Every compared pair has equal scores in float32."
        return Finding.not_applicable("ties/half-precision", "Ties that half precision makes cannot be counted.", why)
    tied = (half[pairs.left] == half[pairs.right])[differ]
    interval = share(tied.astype(np.float64), cluster=pairs.topic[differ])
    return Finding.of(
        interval, code="ties/half-precision", unit="share", verdict="notice" if tied.any() else "ok",
        title=f"Read in bfloat16, {int(tied.sum()):,} of {counted(len(tied), 'pair')} that differ in float32 have the same score "
        f"({percent(interval.estimate)} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]).",
        reason=f"{pairs.drawn}; the interval is clustered by prompt.",
        remedy="Keep the head and what it reads in float32: such ties are rounding, and count as errors or as half right." if tied.any() else None,
    )  # fmt: skip


def _same_tokens(judgments: Feedback, reference: Reference, seed: int) -> Finding:
    """Comparisons of two responses of which the model reads the same tokens."""
    rows = reference.encode(turns_of(judgments))
    comparisons = compare(judgments, seed=seed)
    if not len(comparisons):
        return Finding.not_applicable("identical-pairs/tokens", "No judgment compares responses.", "There is nothing to compare.")
    keys = np.unique(np.array([hash(row.tobytes()) for row in rows]), return_inverse=True)[1]
    same = keys[comparisons.left] == keys[comparisons.right]
    full = sum(len(row) == reference.conversations.longest for row in rows)
    estimate = float(same.mean())
    verdict: Verdict = "warning" if estimate >= THRESHOLDS.identical_pairs_warning else "notice" if same.any() else "ok"
    ids = judgments.responses["id"].to_list()
    examples = [[ids[comparisons.left[i]], ids[comparisons.right[i]]] for i in np.flatnonzero(same)[:_SHOWN]]
    return Finding(
        code="identical-pairs/tokens", estimate=estimate, n=len(same), unit="share", verdict=verdict,
        title=f"The model reads the same tokens of both responses in {int(same.sum()):,} of {counted(len(same), 'comparison')} "
        f"({percent(estimate)}); {counted(full, 'conversation')} of {len(rows):,} {'fills' if full == 1 else 'fill'} the "
        f"{reference.conversations.longest:,} tokens that are read.",
        reason="After the chat template, which may trim white space, and the cut of what is too long. Such a comparison teaches nothing: its loss "
        "is ln 2 and its gradient 0. An exact count over the data, so there is no interval.",
        remedy="Raise max_length, or leave these comparisons out." if same.any() else None, details={"examples": examples},
    )  # fmt: skip
