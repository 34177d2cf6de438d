"""What occurs twice: judgments, texts, ids, and anything that is both in train and in the held-out part.

Conventions
-----------
Texts are *the same* when they are equal after lower-casing and leaving out white space, and *near-copies* when the Jaccard
similarity of their sets of 12-byte shingles is at least `THRESHOLDS.near_duplicate_jaccard`. Counts here are exact counts over
the data at hand, not estimates of something beyond it, so they have no interval.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from seamark.checks.comparisons import Codes, Comparisons, code_text, codes_of, combine, counted, percent, question_units
from seamark.checks.findings import Finding, Verdict
from seamark.checks.thresholds import THRESHOLDS
from seamark.records import Feedback

Hashes = NDArray[np.uint64]

_SHOWN = 12
_CHUNK = 50_000
_COUNTED = "An exact count over the data, so there is no interval."

# ---------------------------------------------------------------------------------------------- texts


def folded(texts: pl.Series) -> pl.Series:
    """Lower case, white space left out (character by character: many times faster than by a pattern)."""
    out = texts.cast(pl.String).str.to_lowercase()
    for blank in (" ", "\n", "\t", "\r", "\u00a0"):
        out = out.str.replace_all(blank, "", literal=True)
    return out


def text_keys(texts: pl.Series) -> Hashes:
    """A 64-bit key per text, equal for texts that are the same; 0 for null. Works in chunks, so memory stays bounded."""
    parts = [folded(texts[i : i + _CHUNK]).hash().to_numpy().astype(np.uint64) for i in range(0, len(texts), _CHUNK)]
    keys = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)
    return np.where(texts.is_null().to_numpy(), np.uint64(0), np.maximum(keys, np.uint64(1)))


_WIDTH = 12
_SIGNATURES = 10
_AGREEING = 6  # of pairs with Jaccard 0.9, 99.8% share at least 6 of 10 minima
_TEXTS = 10_000
_BYTES = 8_000_000
_BYTES_EACH = 4_000
_VERIFIED = 4_000
_RADIX = 0x9E3779B97F4A7C15


def _mix(h: Hashes) -> Hashes:
    """The splitmix64 finaliser: every output bit depends on every input bit (Steele, Lea & Flood 2014)."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _shingles(data: NDArray[np.uint8]) -> Hashes:
    """A hash of every run of `_WIDTH` bytes, by doubling: 1, 2, 4, 8, then 8 + 4."""

    def power(n: int) -> np.uint64:
        return np.uint64(pow(_RADIX, n, 2**64))

    h1 = data.astype(np.uint64) + np.uint64(1)
    h2 = h1[:-1] * power(1) + h1[1:]
    h4 = h2[:-2] * power(2) + h2[2:]
    h8 = h4[:-4] * power(4) + h4[4:]
    return _mix(h8[:-4] * power(4) + h4[8:])


def near_duplicates(texts: list[str]) -> tuple[Codes, Codes, NDArray[np.float64]]:
    """Pairs of rows whose texts are near-copies but not the same, with their Jaccard similarity.

    MinHash with 10 minima finds candidates among texts that share at least one of them (Broder 1997); at most 4,000 candidates
    are compared shingle by shingle, the rest by the share of equal minima. Texts of fewer than 12 bytes have none, and texts
    are read up to 4,000 bytes. A group of n near-copies comes as a chain of pairs, not as all n (n - 1) / 2.

    Parameters
    ----------
    texts : folded texts.
    """
    encoded = [t.encode()[:_BYTES_EACH] for t in texts]
    lengths = np.array([len(e) for e in encoded], dtype=np.int64)
    rows = np.flatnonzero(lengths >= _WIDTH)
    minima = np.zeros((len(rows), _SIGNATURES), dtype=np.uint64)
    factors = _mix(np.arange(1, _SIGNATURES + 1, dtype=np.uint64) * np.uint64(_RADIX)) | np.uint64(1)
    done = 0
    while done < len(rows):
        # runs of about 2 MB: each byte costs some 40 bytes while it is hashed
        end = done + max(1, int(np.searchsorted(np.cumsum(lengths[rows[done:]]), 2_000_000, side="right")))
        chunk = rows[done:end]
        hashes = _shingles(np.frombuffer(b"".join(encoded[r] for r in chunk), dtype=np.uint8))
        size = lengths[chunk]
        start = np.cumsum(size) - size
        inside = np.arange(int(size.sum())) - np.repeat(start, size) <= np.repeat(size - _WIDTH, size)
        kept = hashes[inside[: len(hashes)]]
        first = np.cumsum(size - _WIDTH + 1) - (size - _WIDTH + 1)
        for j, factor in enumerate(factors):
            minima[done:end, j] = np.minimum.reduceat(kept * factor, first)
        done = end

    pairs: list[NDArray[np.int64]] = []
    for j in range(_SIGNATURES):
        order = np.argsort(minima[:, j], kind="stable")
        value = minima[order, j]
        repeats = np.flatnonzero(value[1:] == value[:-1])
        run_start = np.searchsorted(value, value[repeats])  # the first of each run, beside the neighbour
        for other in (order[repeats], order[run_start]):
            pairs.append(np.stack([np.minimum(other, order[repeats + 1]), np.maximum(other, order[repeats + 1])], 1))
    empty = np.zeros(0, dtype=np.int64)
    if not pairs or not sum(len(p) for p in pairs):
        return empty, empty, np.zeros(0)
    n = len(rows)
    distinct = np.unique(np.concatenate([p[:, 0] * n + p[:, 1] for p in pairs]))
    a, b = distinct // n, distinct % n
    agreeing = (minima[a] == minima[b]).sum(1)
    keep = agreeing >= _AGREEING
    a, b, agreeing = a[keep], b[keep], agreeing[keep]
    similar = agreeing / _SIGNATURES
    cache: dict[int, Hashes] = {}

    def shingle_set(row: int) -> Hashes:
        if row not in cache:
            cache[row] = np.unique(_shingles(np.frombuffer(encoded[rows[row]], dtype=np.uint8)))
        return cache[row]

    for i in range(min(len(a), _VERIFIED)):
        one, two = shingle_set(int(a[i])), shingle_set(int(b[i]))
        common = len(np.intersect1d(one, two, assume_unique=True))
        similar[i] = common / (len(one) + len(two) - common)
    keep = similar >= THRESHOLDS.near_duplicate_jaccard
    first, second = rows[a[keep]], rows[b[keep]]
    different = np.array([texts[i] != texts[j] for i, j in zip(first, second, strict=True)], dtype=bool)
    return first[different], second[different], similar[keep][different]


def _sample(size: NDArray[np.int64], rng: np.random.Generator) -> Codes:
    """Rows to look at: all, or as many drawn at random as stay within the bounds, in order."""
    if len(size) <= _TEXTS and size.sum() <= _BYTES:
        return np.arange(len(size))
    order = rng.permutation(len(size))[:_TEXTS]
    fits = np.cumsum(np.minimum(size[order], _BYTES_EACH)) <= _BYTES
    return np.sort(order[fits])


def check_near_duplicates(feedback: Feedback, *, keys: Hashes | None = None, seed: int = 0) -> Finding:
    """How many responses have a copy or near-copy among the other responses; `keys`: their `text_keys`, if at hand."""
    text = feedback.responses["text"]
    known = np.flatnonzero(text.is_not_null().to_numpy())
    if len(known) < 2:
        return Finding.not_applicable(
            "duplicates/responses", "Near-copies of responses cannot be looked for.", "Fewer than two responses have a text."
        )
    keys = text_keys(text[known]) if keys is None else keys[known]
    _, key, count = np.unique(keys, return_inverse=True, return_counts=True)
    copies = count[key] > 1
    home = codes_of(feedback.responses["prompt"])[known]
    # one row per distinct text is enough to look for near-copies
    once = np.unique(key, return_index=True)[1]
    looked = once[_sample(text[known[once]].str.len_bytes().cast(pl.Int64).to_numpy(), np.random.default_rng(seed))]
    a, b, similar = near_duplicates(folded(text[known[looked]]).to_list())
    a, b = looked[a], looked[b]
    near_key = np.zeros(len(count), dtype=bool)
    near_key[key[a]] = near_key[key[b]] = True
    near = near_key[key]
    sampled = len(looked) < len(once)
    base = np.isin(key, key[looked])
    n = int(base.sum())
    any_copy = (copies | near) & base
    estimate = float(any_copy.sum() / n)
    ids = feedback.responses["id"].to_list()
    order = np.argsort(-similar, kind="stable")[:_SHOWN]
    examples = [{"a": ids[known[a[i]]], "b": ids[known[b[i]]], "jaccard": float(similar[i])} for i in order]
    exact = [
        {"text_occurs": int(count[k]), "ids": [ids[r] for r in known[np.flatnonzero(key == k)[:4]]]}
        for k in np.argsort(-count, kind="stable")[:_SHOWN]
        if count[k] > 1
    ]
    same_prompt = int(((home[a] == home[b]) & (home[a] >= 0)).sum())
    verdict: Verdict = "warning" if estimate >= THRESHOLDS.near_duplicates_warning else "notice" if any_copy.any() else "ok"
    reason = (
        f"Copies: equal after lower-casing and leaving out white space. Near-copies: Jaccard similarity of 12-byte shingles at least "
        f"{THRESHOLDS.near_duplicate_jaccard:g}. {_COUNTED}"
    )
    if sampled:
        reason += (
            f" Near-copies were looked for among {len(looked):,} of {len(once):,} texts, drawn at random (seed {seed}): an underestimate."
        )
    return Finding(
        code="duplicates/responses",
        title=f"{int(any_copy.sum()):,} of {counted(n, 'response')} ({percent(estimate)}) recurred among the others: "
        f"{int((copies & base).sum()):,} as a copy, {int((near & base).sum()):,} as a near-copy.",
        estimate=estimate,
        n=n,
        unit="share",
        verdict=verdict,
        reason=reason,
        remedy="Split by prompt cluster, so that copies stay on one side." if verdict != "ok" else None,
        source="Broder 1997; Lee et al. 2022",
        details={
            "n_copies": int((copies & base).sum()),
            "n_near": int((near & base).sum()),
            "n_near_same_prompt": same_prompt,
            "near": examples,
            "copies": exact,
        },
    )


# ---------------------------------------------------------------------------------------------- judgments


def _answer_codes(feedback: Feedback, unit: Codes) -> Codes:
    """A code per judgment for its unit, rater and whole answer, whichever way round a pair was shown."""
    frame = feedback.judgments
    outcome, words = code_text(frame["outcome"])
    rater = codes_of(frame["rater"])
    shown = frame["responses"]
    left, right = codes_of(shown.list.first()), codes_of(shown.list.last())
    of_pair = (frame["kind"].cast(pl.String) == "pair").to_numpy()
    index = {word: i for i, word in enumerate(words)}
    swap = np.arange(len(words), dtype=np.int64)
    if "left" in index and "right" in index:
        swap[index["left"]], swap[index["right"]] = index["right"], index["left"]
    else:  # only one of the two occurs: its mirror image gets a code of its own
        swap = np.where(np.isin(words, ["left", "right"]), len(words), swap)
    columns = [unit, rater, np.where(of_pair & (left > right), swap[outcome], outcome)]
    for name in ("best", "worst"):
        if feedback.has(name):
            columns.append(_pointed_at(frame, name))
    for name in ("strength", "rating", "thumb", "label"):
        if feedback.has(name):
            columns.append(code_text(frame[name])[0])
    if feedback.has("ranks"):
        columns.append(
            code_text(
                frame.select(
                    pl.col("ranks").cast(pl.List(pl.String)).list.join(",")
                    + ":"
                    + pl.col("responses").cast(pl.List(pl.String)).list.join(",")
                )["ranks"]
            )[0]
        )
    return combine(*columns)


def _pointed_at(frame: pl.DataFrame, name: str) -> Codes:
    """The response that an index points at, -1 where there is none."""
    return codes_of(frame.select(pl.col("responses").list.get(pl.col(name), null_on_oob=True))["responses"])


def find_repeats(feedback: Feedback, unit: Codes | None = None) -> tuple[Codes, Codes]:
    """Rows of judgments that repeat an earlier one by the same rater in everything, circumstances included; and of all with the same answer
    to the same question. `unit` are the `question_units`, if at hand."""
    rater = codes_of(feedback.judgments["rater"])
    answer = _answer_codes(feedback, question_units(feedback) if unit is None else unit)
    known = np.flatnonzero(rater >= 0)

    def repeats(codes: Codes) -> Codes:
        first = np.unique(codes[known], return_index=True)[1]
        mask = np.ones(len(known), dtype=bool)
        mask[first] = False
        return known[mask]

    again = repeats(answer)
    circumstances = [answer]  # asked at another time, or under other circumstances, is a question asked again on purpose
    for name in ("session", "ui_version", "guideline_version", "assistance"):
        if feedback.has(name):
            circumstances.append(code_text(feedback.judgments[name])[0])
    if feedback.has("models"):  # two models that wrote the same text
        circumstances.append(code_text(feedback.judgments["models"].list.sort().list.join("|", ignore_nulls=True))[0])
    if feedback.has("time"):
        time = feedback.judgments["time"].dt.epoch("us").fill_null(-1).to_numpy()
        circumstances.append(np.unique(time, return_inverse=True)[1].astype(np.int64))
    if feedback.has("order_known"):
        shown = feedback.judgments["responses"]
        forward = codes_of(shown.list.first()) <= codes_of(shown.list.last())
        circumstances.append((forward & feedback.judgments["order_known"].fill_null(False).to_numpy()).astype(np.int64))
    return repeats(combine(*circumstances)), again


def check_duplicates(feedback: Feedback, *, comparisons: Comparisons | None = None) -> Finding:
    """How many judgments repeat one by the same rater: same question, same answer, same time."""
    unit = question_units(feedback) if comparisons is None else comparisons.question
    rater = codes_of(feedback.judgments["rater"])
    if not (rater >= 0).any():
        return Finding.not_applicable(
            "duplicates",
            "Repeated judgments cannot be told from agreeing ones.",
            "Without rater ids, two equal answers to one question may come from two people.",
            remedy="Record a rater id.",
        )
    known = np.flatnonzero(rater >= 0)
    exact, again = find_repeats(feedback, unit)
    later = len(again) - len(exact)
    estimate = len(exact) / len(known)
    verdict: Verdict = "warning" if estimate >= THRESHOLDS.duplicates_warning else "notice" if len(exact) else "ok"
    more = (
        f" Another {later:,} gave the same answer under other circumstances (time, order, session, source model): asked again on purpose."
        if later
        else ""
    )
    title = f"{len(exact):,} of {counted(len(known), 'judgment')} ({percent(estimate)}) repeated an earlier one: same rater, question and answer."
    ids = feedback.raters["id"].to_list()
    responses = feedback.responses["id"].to_list()
    lines = feedback.judgments["id"].to_list() if feedback.has("id") else None
    examples: list[dict[str, object]] = []
    for row in exact[:_SHOWN]:
        shown = feedback.judgments["responses"][int(row)].to_list()
        entry: dict[str, object] = {"judgment": int(row), "rater": ids[rater[row]], "responses": [responses[r] for r in shown]}
        if lines is not None and lines[row] is not None:
            entry["id"] = lines[row]
        examples.append(entry)
    return Finding(
        code="duplicates",
        title=title + more,
        estimate=estimate,
        n=len(known),
        unit="share",
        verdict=verdict,
        reason="Same rater, prompt, responses in any order, axis, kind and whole answer, and circumstances (time, order, session, "
        f"source models, ...) where known; n counts judgments with a rater id. {_COUNTED}",
        remedy="Remove the repeats if they are an export error; keep them if raters were asked twice." if len(exact) else None,
        details={"n_repeats": len(exact), "n_asked_again": later, "examples": examples},
    )


def check_identical_pairs(feedback: Feedback, *, keys: Hashes | None = None) -> Finding:
    """How many judgments compare a text with itself; `keys`: the `text_keys` of the responses, if at hand."""
    frame = feedback.judgments
    of_several = frame["kind"].cast(pl.String).is_in(["pair", "choice", "ranking"]).to_numpy()
    rows = np.flatnonzero(of_several)
    if not len(rows):
        return Finding.not_applicable("identical-pairs", "No judgment compares responses.", "There are only ratings, thumbs or labels.")
    shown = frame["responses"][rows]
    n_shown = shown.list.len().cast(pl.Int64).to_numpy()
    response = codes_of(shown.explode())
    owner = np.repeat(np.arange(len(rows)), n_shown)

    def with_repeat(code: NDArray[np.uint64] | Codes) -> NDArray[np.bool_]:
        if (n_shown == 2).all():
            return code[::2] == code[1::2]
        order = np.lexsort((code, owner))
        same = (owner[order][1:] == owner[order][:-1]) & (code[order][1:] == code[order][:-1])
        out = np.zeros(len(rows), dtype=bool)
        out[owner[order][1:][same]] = True
        return out

    exact = with_repeat(response)
    keys = text_keys(feedback.responses["text"]) if keys is None else keys
    own = np.arange(len(keys), dtype=np.uint64)  # a response without text equals only itself
    same = with_repeat(np.where(keys[response] == 0, own[response], keys[response]))
    n_same = int(same.sum())
    estimate = n_same / len(rows)
    verdict: Verdict = "warning" if estimate >= THRESHOLDS.identical_pairs_warning else "notice" if n_same else "ok"
    prompts = feedback.responses["id"].to_list()
    starts = np.cumsum(n_shown) - n_shown
    examples = [{"judgment": int(rows[i]), "response": prompts[response[starts[i]]]} for i in np.flatnonzero(same)[:_SHOWN]]
    said = frame["outcome"].cast(pl.String)[rows]
    chosen = int((pl.Series(same) & said.is_in(["left", "right"])).sum())
    return Finding(
        code="identical-pairs",
        title=f"{n_same:,} of {counted(len(rows), 'comparison')} ({percent(estimate)}) showed the same text twice: {int(exact.sum()):,} exactly, "
        f"{n_same - int(exact.sum()):,} but for case or white space.",
        estimate=estimate,
        n=len(rows),
        unit="share",
        verdict=verdict,
        reason=f"Such a comparison says nothing about value; {chosen:,} of these got a winner nevertheless, which "
        f"shows position or chance. {_COUNTED}",
        remedy="Leave them out of the fit, and find out how they came about." if n_same else None,
        details={"n_exact": int(exact.sum()), "n_same": n_same, "n_decided": chosen, "examples": examples},
    )


def check_ids(feedback: Feedback) -> Finding:
    """Which ids differ only by case, white space or Unicode form."""
    named: dict[str, pl.Series] = {"raters": feedback.raters["id"], "prompts": feedback.prompts["name"]}
    named["responses"] = feedback.responses.filter(pl.col("text").is_null())["name"]
    if feedback.has("models"):
        named["models"] = feedback.judgments["models"].drop_nulls().explode().unique()
    for name in ("axis", "group", "label"):
        if feedback.has(name):
            named[name] = feedback.judgments[name].cast(pl.String).unique()
    groups: list[dict[str, Any]] = []
    n_ids = 0
    for what, series in named.items():
        table = pl.DataFrame({"id": series.cast(pl.String)}).drop_nulls().unique()
        n_ids += table.height
        folded = pl.col("id").str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars(" ")
        same = table.group_by(folded.alias("key")).agg(pl.col("id").sort()).filter(pl.col("id").list.len() > 1).sort("key")
        groups += [{"field": what, "ids": ids} for ids in same["id"].to_list()]
    if not n_ids:
        return Finding.not_applicable("duplicates/ids", "There are no ids to compare.", "Raters, prompts, models and axes have no names.")
    shown = "; ".join(" and ".join(repr(i) for i in g["ids"][:3]) for g in groups[:3])
    title = (
        f"Ids that differ only by case, white space or Unicode form: {counted(len(groups), 'group')}, {shown}."
        if groups
        else "No two ids differ only by case, white space or Unicode form."
    )
    return Finding(
        code="duplicates/ids",
        title=title,
        estimate=float(len(groups)),
        n=n_ids,
        unit="count",
        verdict="notice" if groups else "ok",
        reason=f"Ids of raters, prompts, models, axes, groups and labels, compared after Unicode NFKC and lower-casing. {_COUNTED}",
        remedy="If they name the same thing, make them equal before loading." if groups else None,
        details={"groups": groups[:100]},
    )


# ---------------------------------------------------------------------------------------------- train and held out


def check_leakage(feedback: Feedback, held_out: Feedback | None, *, seed: int = 0) -> list[Finding]:
    """What the held-out part shares with the part to learn from: questions, prompts, near-copies of prompts, responses."""
    if held_out is None:
        return [
            Finding.not_applicable(
                "leakage", "Leakage cannot be measured.", "No held-out part was given.", remedy="Pass held_out=, e.g. from Feedback.split."
            )
        ]
    return [_shared_questions(feedback, held_out), *_shared_prompts(feedback, held_out, seed=seed), _shared_responses(feedback, held_out)]


def shares_answers(feedback: Feedback, held_out: Feedback) -> bool:
    """Whether the same rater answered the same question in both; true where some raters are not known, since it then may be."""

    def seats(part: Feedback) -> Hashes:
        ids = np.append(part.raters["id"].cast(pl.String).hash(seed=4).to_numpy().astype(np.uint64), np.uint64(0))
        return _mix(_question_keys(part)[0] ^ _mix(ids[codes_of(part.judgments["rater"])]))

    known = all(part.judgments["rater"].null_count() == 0 for part in (feedback, held_out))
    return not known or bool(np.isin(seats(held_out), seats(feedback)).any())


def _prompt_keys(feedback: Feedback) -> Hashes:
    """A key per prompt: of its text, else of its name."""
    keys = text_keys(feedback.prompts["text"])
    named = feedback.prompts["name"].cast(pl.String).fill_null("").hash(seed=1).to_numpy().astype(np.uint64)
    return np.where(keys == 0, named, keys)


def _question_keys(feedback: Feedback) -> tuple[Hashes, NDArray[np.bool_]]:
    """A key per judgment of its prompt and responses in any order; and whether it has a prompt or a text at all."""
    frame = feedback.judgments
    prompt = codes_of(frame["prompt"])
    prompt_key = np.append(_prompt_keys(feedback), np.uint64(0))[prompt]
    texts = text_keys(feedback.responses["text"])
    named = feedback.responses["name"].cast(pl.String).fill_null("").hash(seed=2).to_numpy().astype(np.uint64)
    response_key = _mix(np.where(texts == 0, named, texts))
    n_shown = frame["responses"].list.len().cast(pl.Int64).to_numpy()
    shown = codes_of(frame["responses"].explode())
    start = np.cumsum(n_shown) - n_shown
    summed = np.add.reduceat(response_key[shown], start)  # a sum does not depend on the order
    has_text = np.minimum.reduceat((texts[shown] > 0).astype(np.int64), start) > 0
    words = frame["axis"].cast(pl.String).fill_null("") + "/" + frame["kind"].cast(pl.String)
    return _mix(summed ^ _mix(prompt_key)) ^ words.hash(seed=3).to_numpy().astype(np.uint64), has_text | (prompt >= 0)


def _shared_questions(feedback: Feedback, held_out: Feedback) -> Finding:
    keys, usable = _question_keys(held_out)
    if not usable.any():
        return Finding.not_applicable(
            "leakage",
            "Leakage of questions does not apply.",
            "The responses have neither text nor prompt: the same items are meant to occur on both sides.",
        )
    shared = np.isin(keys, _question_keys(feedback)[0]) & usable
    n = int(usable.sum())
    estimate = float(shared.sum() / n)
    blocking = estimate >= THRESHOLDS.leakage_blocking
    return Finding(
        code="leakage",
        title=f"{int(shared.sum()):,} of {counted(n, 'held-out judgment')} ({percent(estimate)}) concerned a prompt and "
        "responses that were also judged in train.",
        estimate=estimate,
        n=n,
        unit="share",
        verdict="blocking" if blocking else "notice" if shared.any() else "ok",
        reason=f"Same prompt, same responses in any order, same axis and kind, without regard to case and white space. {_COUNTED}",
        remedy="Split by prompt. If the parts share questions on purpose (new raters on known questions), read the "
        "accuracy as that and nothing more."
        if shared.any()
        else None,
        details={"judgments": [int(r) for r in np.flatnonzero(shared)[:_SHOWN]]},
    )


def _shared_prompts(feedback: Feedback, held_out: Feedback, *, seed: int) -> list[Finding]:
    prompt = codes_of(held_out.judgments["prompt"])
    known = prompt >= 0
    title = "Shared prompts cannot be looked for."
    if not known.any() or not feedback.n_prompts:
        why = "The judgments have no prompt."
        return [Finding.not_applicable("leakage/prompts", title, why)]
    keys = _prompt_keys(held_out)
    shared = np.isin(keys, _prompt_keys(feedback))
    hit = shared[prompt[known]]
    n = int(known.sum())

    def verdict(value: float) -> Verdict:
        return "warning" if value >= THRESHOLDS.leakage_warning else "notice" if value > 0 else "ok"

    ids = held_out.prompts["id"].to_list()
    estimate = float(hit.mean())
    out = [
        Finding(
            code="leakage/prompts",
            title=f"{int(hit.sum()):,} of {counted(n, 'held-out judgment')} ({percent(estimate)}) concerned a prompt that also occurs in train"
            + (f" ({counted(int(shared.sum()), 'prompt')})." if shared.any() else "."),
            estimate=estimate,
            n=n,
            unit="share",
            verdict=verdict(estimate),
            reason=f"Prompts are compared without regard to case and white space, by name where they have no text. {_COUNTED}",
            remedy="Split by prompt, unless the question is how well known prompts are judged by new raters." if hit.any() else None,
            details={"prompts": [ids[i] for i in np.flatnonzero(shared)[:_SHOWN]]},
        )
    ]
    text, train = held_out.prompts["text"], feedback.prompts["text"].drop_nulls()
    rows = np.flatnonzero(text.is_not_null().to_numpy() & ~shared)
    if not len(rows) or not len(train):
        if not text.is_not_null().any() or not len(train):
            out.append(
                Finding.not_applicable("leakage/near-prompts", "Near-copies of prompts cannot be looked for.", "The prompts have no text.")
            )
        return out
    joined = pl.concat([text[rows].cast(pl.String), train.cast(pl.String)])
    looked = _sample(joined.str.len_bytes().cast(pl.Int64).to_numpy(), np.random.default_rng(seed))
    a, b, similar = near_duplicates(folded(joined[looked]).to_list())
    a, b = looked[a], looked[b]
    # near-copies come as chains: a held-out prompt is near train if its chain holds a prompt of train
    graph = csr_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(len(joined), len(joined)))
    part = connected_components(graph, directed=False)[1]
    with_train = np.zeros(int(part.max()) + 1, dtype=bool)
    with_train[part[len(rows) :]] = True
    near = np.zeros(held_out.n_prompts, dtype=bool)
    near[rows] = with_train[part[: len(rows)]]
    hit = near[prompt[known]]
    estimate = float(hit.mean())
    crossing = (a < len(rows)) & (b >= len(rows))
    train_ids = feedback.prompts.filter(pl.col("text").is_not_null())["id"].to_list()
    examples = [
        {"held_out": ids[rows[i]], "train": train_ids[j - len(rows)], "jaccard": float(s)}
        for i, j, s in zip(a[crossing][:_SHOWN], b[crossing][:_SHOWN], similar[crossing][:_SHOWN], strict=True)
    ]
    reason = (
        f"Jaccard similarity of 12-byte shingles at least {THRESHOLDS.near_duplicate_jaccard:g}; prompts that "
        f"are the same are counted in leakage/prompts. {_COUNTED}"
    )
    if len(looked) < len(joined):
        reason += f" Looked for among {len(looked):,} of {len(joined):,} prompts, drawn at random (seed {seed}): an underestimate."
    out.append(
        Finding(
            code="leakage/near-prompts",
            title=f"{int(hit.sum()):,} of {counted(n, 'held-out judgment')} ({percent(estimate)}) concerned a near-copy of a prompt of train.",
            estimate=estimate,
            n=n,
            unit="share",
            verdict=verdict(estimate),
            reason=reason,
            remedy="Split by prompt cluster." if hit.any() else None,
            details={"examples": examples, "n_prompts": int(near.sum())},
        )
    )
    return out


def _shared_responses(feedback: Feedback, held_out: Feedback) -> Finding:
    keys = text_keys(held_out.responses["text"])
    known = keys > 0
    if not known.any() or not feedback.responses["text"].is_not_null().any():
        return Finding.not_applicable("leakage/responses", "Shared responses cannot be looked for.", "The responses have no text.")
    shared = np.isin(keys, text_keys(feedback.responses["text"])) & known
    shown = codes_of(held_out.judgments["responses"].explode())
    n_shown = held_out.judgments["responses"].list.len().cast(pl.Int64).to_numpy()
    touched = np.maximum.reduceat(shared[shown].astype(np.int64), np.cumsum(n_shown) - n_shown) > 0
    estimate = float(shared.sum() / known.sum())
    ids = held_out.responses["id"].to_list()
    return Finding(
        code="leakage/responses",
        title=f"{int(shared.sum()):,} of {counted(int(known.sum()), 'held-out response')} ({percent(estimate)}) shared their text with one "
        f"in train; {counted(int(touched.sum()), 'held-out judgment')} showed such a text.",
        estimate=estimate,
        n=int(known.sum()),
        unit="share",
        verdict="warning" if estimate >= THRESHOLDS.near_duplicates_warning else "notice" if shared.any() else "ok",
        reason="Texts are compared without regard to case and white space, whatever their prompt; stock answers "
        f"recur without harm. {_COUNTED}",
        remedy="If the texts are the same answers to the same prompts, split by prompt." if shared.any() else None,
        details={"responses": [ids[i] for i in np.flatnonzero(shared)[:_SHOWN]], "n_judgments": int(touched.sum())},
    )
