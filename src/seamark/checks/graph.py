"""What the comparisons form together: one connected whole or parts, an order or cycles.

Conventions
-----------
Nodes are (axis, response); every comparison is an edge, ties included. Ratings and thumbs tie all responses that they are
about to one scale. Responses with text hang together through what their text has in common; responses without, only through
comparisons. Responses without text that occur under several prompts, or under none, form a leaderboard.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from seamark.checks.comparisons import Codes, Comparisons, bracket, code_text, codes_of, combine, compact, compare, counted, percent
from seamark.checks.findings import Finding, Verdict
from seamark.checks.thresholds import THRESHOLDS
from seamark.intervals import clustered_share
from seamark.records import Feedback

_SHOWN = 12
_TRIPLE_COST = 10_000_000
"""Wedges looked at; above it, edges are drawn at random."""


def _names(feedback: Feedback, responses: NDArray[np.int64]) -> list[str]:
    """What to call these responses: the id given, else the content id."""
    part = feedback.responses[responses].select(pl.coalesce("name", "id").alias("name"))
    return part["name"].to_list()


def _rated(feedback: Feedback) -> tuple[Codes, Codes]:
    """Axis and response of the judgments that put a response on a scale."""
    frame = feedback.judgments.select("axis", "responses", "kind")
    code, _ = code_text(frame["axis"])
    rows = np.flatnonzero(frame["kind"].cast(pl.String).is_in(["rating", "thumbs"]).to_numpy())
    return code[rows], codes_of(frame["responses"][rows].list.get(0))


_LEADERBOARD = -2


def _only_prompt(feedback: Feedback) -> Codes:
    """Per response, the one prompt under which it is judged; `_LEADERBOARD` where there are several, or none is known."""
    shown = feedback.judgments["responses"]
    prompt = np.repeat(codes_of(feedback.judgments["prompt"]), shown.list.len().cast(pl.Int64).to_numpy())
    response = codes_of(shown.explode())
    low = np.full(feedback.n_responses, np.iinfo(np.int64).max)
    high = np.full(feedback.n_responses, -1)
    np.minimum.at(low, response, prompt)
    np.maximum.at(high, response, prompt)
    return np.where((low == high) & (low >= 0), low, _LEADERBOARD)


def check_connectivity(feedback: Feedback, *, comparisons: Comparisons | None = None, seed: int = 0) -> list[Finding]:
    """Whether all responses that are compared hang together, and which of them won or lost everything."""
    comparisons = compare(feedback, seed=seed) if comparisons is None else comparisons
    direct = comparisons.where((comparisons.kind != 3) & (comparisons.left != comparisons.right))
    if not len(direct):
        why = (
            "Ratings and thumbs share one scale; no judgment compares responses."
            if len(_rated(feedback)[0])
            else "No judgment compares responses."
        )
        return [Finding.not_applicable("connectivity", "There is no comparison graph.", why)]
    n_axes = len(comparisons.axes) + 1
    left, right = direct.left * n_axes + direct.axis + 1, direct.right * n_axes + direct.axis + 1
    rated_axis, rated_response = _rated(feedback)
    rated = rated_response * n_axes + rated_axis + 1
    node, inverse = np.unique(np.concatenate([left, right, rated]), return_inverse=True)
    a, b, c = inverse[: len(left)], inverse[len(left) : 2 * len(left)], inverse[2 * len(left) :]
    n = len(node)
    scale = n + rated_axis + 1  # one more node per axis: the scale that ratings share
    start, end = np.concatenate([a, c]), np.concatenate([b, scale])
    graph = csr_array((np.ones(len(start), dtype=np.int8), (start, end)), shape=(n + n_axes, n + n_axes))
    part = connected_components(graph, directed=False)[1][:n]
    response, axis = node // n_axes, node % n_axes
    has_text = feedback.responses["text"].is_not_null().to_numpy()
    textless = ~has_text[response]
    home = codes_of(feedback.responses["prompt"])[response]  # responses with text meet inside their prompt
    if textless.any():
        home = np.where(textless, _only_prompt(feedback)[response], home)
        if len(np.unique(home[textless])) == 1:
            home = np.where(textless, _LEADERBOARD, home)
    group = combine(axis, home)
    return [
        _connectivity_finding(feedback, response, part, group, textless, home == _LEADERBOARD, n_judged=len(direct)),
        _separation_finding(feedback, direct, has_text),
    ]


def _connectivity_finding(
    feedback: Feedback,
    response: Codes,
    part: Codes,
    group: Codes,
    textless: NDArray[np.bool_],
    ranked_together: NDArray[np.bool_],
    *,
    n_judged: int,
) -> Finding:
    """One sentence on how many prompts (or leaderboards) fall apart."""
    n_groups = int(group.max()) + 1
    piece, n_pieces = compact(combine(group, part))
    piece_group = np.zeros(n_pieces, dtype=np.int64)
    piece_group[piece] = group
    pieces_per_group = np.bincount(piece_group, minlength=n_groups)
    cut = pieces_per_group > 1
    group_board = np.zeros(n_groups, dtype=bool)
    group_board[group] = ranked_together
    group_textless = np.zeros(n_groups, dtype=bool)
    group_textless[group[textless]] = True
    blocking = bool(group_board.any()) and int(pieces_per_group[group_board].max()) >= THRESHOLDS.cut_parts_blocking
    details: dict[str, object] = {
        "n_groups": n_groups,
        "n_cut": int(cut.sum()),
        "n_responses": len(np.unique(response)),
        "n_components": len(np.unique(part)),
    }
    shown: list[dict[str, Any]] = []
    size = np.bincount(piece)
    order = np.argsort(-size, kind="stable")
    candidates = order[(cut & group_board)[piece_group[order]]] if blocking else order[cut[piece_group[order]]]
    prompt_ids = feedback.prompts["id"].to_list()
    home = codes_of(feedback.responses["prompt"])
    for p in candidates[: _SHOWN * 2]:
        members = response[piece == p]
        entry: dict[str, Any] = {"size": int(size[p]), "responses": _names(feedback, members[:10])}
        where = home[members[0]]
        if where >= 0 and not blocking:
            entry["prompt"] = prompt_ids[where]
        shown.append(entry)
    details["parts"] = shown
    reason = "Responses are joined by comparisons (ties included) on the same axis. A count of facts: no interval."
    if blocking:
        g = np.flatnonzero(cut & group_board)
        total = int(pieces_per_group[g].max())
        names = "; ".join(", ".join(s["responses"][:3]) + (", ..." if s["size"] > 3 else "") for s in shown[:3])
        return Finding(
            code="connectivity",
            title=f"The comparison graph is cut into {total:,} parts; no judgment connects {names}{' and others' if total > 3 else ''}.",
            estimate=float(total),
            n=n_judged,
            unit="count",
            verdict="blocking",
            reason=reason + " The responses have no text, so nothing else ties the parts together and their utilities cannot be compared.",
            remedy="Collect comparisons between the parts, or analyse each part on its own.",
            source="Ford 1957",
            details=details,
        )
    if cut.any():
        n_cut = int(cut.sum())
        bare = bool((cut & group_textless).any())
        return Finding(
            code="connectivity",
            title=f"{n_cut:,} of {counted(n_groups, 'prompt')} ({percent(n_cut / n_groups)}) fell into parts that no judgment connects.",
            estimate=n_cut / n_groups,
            n=n_groups,
            unit="share",
            verdict="warning" if bare else "notice",
            reason=reason
            + (
                " Some of these responses have no text: nothing ties the parts of such a prompt together."
                if bare
                else " Within such a prompt the parts are tied together only by what a model reads in the texts."
            ),
            remedy="Compare one response of each part, or fit a utility on features rather than one number per response.",
            details=details,
        )
    whole = "The comparison graph is one whole." if n_groups == 1 else f"Each of the {n_groups:,} prompts is one connected whole."
    return Finding(code="connectivity", title=whole, estimate=0.0, n=n_groups, unit="share", reason=reason, details=details)


def _separation_finding(feedback: Feedback, direct: Comparisons, has_text: NDArray[np.bool_]) -> Finding:
    """Responses that won, or lost, every comparison."""
    decided = direct.decided()
    if not len(decided):
        return Finding.not_applicable("connectivity/separation", "No response won or lost.", "No comparison has a winner.")
    n_axes = len(direct.axes) + 1
    winner = np.where(decided.sign > 0, decided.left, decided.right) * n_axes + decided.axis + 1
    loser = np.where(decided.sign > 0, decided.right, decided.left) * n_axes + decided.axis + 1
    tied = direct.where(direct.sign == 0)
    drawn = np.concatenate([tied.left, tied.right]) * n_axes + np.concatenate([tied.axis, tied.axis]) + 1
    node, inverse = np.unique(np.concatenate([winner, loser, drawn]), return_inverse=True)
    wins = np.bincount(inverse[: len(winner)], minlength=len(node))
    losses = np.bincount(inverse[len(winner) : 2 * len(winner)], minlength=len(node))
    draws = np.bincount(inverse[2 * len(winner) :], minlength=len(node))
    all_won, all_lost = (wins > 0) & (losses + draws == 0), (losses > 0) & (wins + draws == 0)
    extreme = all_won | all_lost
    n = int(extreme.sum())
    played = wins + losses
    listed = np.flatnonzero(extreme)[np.argsort(-played[extreme], kind="stable")[:_SHOWN]]
    response = node // n_axes
    entries = [
        {"response": name, "won": bool(all_won[i]), "n": int(played[i])}
        for name, i in zip(_names(feedback, response[listed]), listed, strict=True)
    ]
    textual = bool(has_text[response].any())
    return Finding(
        code="connectivity/separation",
        title=f"{n:,} of {counted(len(node), 'compared response')} won every comparison ({int(all_won.sum()):,}) or lost every "
        f"one ({int(all_lost.sum()):,}).",
        estimate=n / len(node),
        n=len(node),
        unit="share",
        verdict="notice" if n else "ok",
        reason="Without a prior, the utility of such a response has no finite estimate. A count of facts: no interval."
        + (" With few judgments per text this is the normal case." if textual else ""),
        remedy="Fit with the prior (the default), and read these utilities with their intervals." if n else None,
        source="Albert & Anderson 1984",
        details={"responses": entries, "n_won": int(all_won.sum()), "n_lost": int(all_lost.sum())},
    )


# ---------------------------------------------------------------------------------------------- cycles


def check_intransitivity(feedback: Feedback, *, comparisons: Comparisons | None = None, seed: int = 0) -> Finding:
    """The share of cycles (a over b, b over c, c over a) among triples whose three pairs all have a majority."""
    comparisons = compare(feedback, seed=seed) if comparisons is None else comparisons
    title = "Whether preferences form cycles cannot be measured."
    decided = comparisons.where(comparisons.left != comparisons.right).decided()
    if comparisons.sampled:
        decided = decided.where(decided.kind < 2)
    if not len(decided):
        return Finding.not_applicable("intransitivity", title, "No judgment prefers one response to another.")
    n_axes = len(comparisons.axes) + 1
    node, ends = np.unique(np.concatenate([decided.left, decided.right]) * n_axes + np.tile(decided.axis + 1, 2), return_inverse=True)
    a, b = ends[: len(decided)], ends[len(decided) :]
    low, high = np.minimum(a, b), np.maximum(a, b)
    low_wins = decided.sign * np.sign(b - a)
    pair, first, inverse = np.unique(low.astype(np.int64) * len(node) + high, return_index=True, return_inverse=True)
    net = np.bincount(inverse, weights=low_wins, minlength=len(pair))
    kept = net != 0
    u, v = low[first][kept], high[first][kept]
    winner, loser = np.where(net[kept] > 0, u, v), np.where(net[kept] > 0, v, u)
    n = len(node)
    beats = csr_array((np.ones(len(winner), dtype=np.int32), (winner, loser)), shape=(n, n))
    either = (beats + beats.T).tocsr()
    degree = np.diff(either.indptr)
    cost = degree[winner].astype(np.int64) + degree[loser]
    edges = np.flatnonzero((degree[winner] > 1) & (degree[loser] > 1))
    rng = np.random.default_rng(seed)
    sampled = False
    if int(cost[edges].sum()) > _TRIPLE_COST:
        edges = rng.permutation(edges)
        edges = edges[: max(int((np.cumsum(cost[edges]) <= _TRIPLE_COST).sum()), 1)]
        sampled = True
    triples, cycles = np.zeros(len(edges)), np.zeros(len(edges))
    lost_to = beats.T.tocsr()
    step = 20_000
    budget = np.cumsum(cost[edges]) // 4_000_000  # bounded memory: edges are taken in runs of about so many wedges
    cuts = np.flatnonzero(np.diff(budget, prepend=-1) > 0) if len(edges) else np.zeros(0, dtype=np.int64)
    bounds = np.unique(np.concatenate([cuts, np.arange(0, len(edges), step), [len(edges)]]))
    for start, end in pairwise(bounds):
        won, lost = winner[edges[start:end]], loser[edges[start:end]]
        triples[start:end] = either[won].multiply(either[lost]).sum(axis=1)
        cycles[start:end] = beats[lost].multiply(lost_to[won]).sum(axis=1)  # the loser beats someone who beats the winner
    some = triples > 0
    if not some.any():
        return Finding.not_applicable(
            "intransitivity", title, "No three responses were all compared with each other and each pair decided by a majority."
        )
    edges, triples, cycles = edges[some], triples[some], cycles[some]
    home = codes_of(feedback.responses["prompt"])[node[winner[edges]] // n_axes]
    clusters: dict[str, Codes] = {"prompt": home} if (home >= 0).all() else {"winning response": winner[edges].astype(np.int64)}
    interval, clustering = clustered_share(cycles / triples, clusters, weight=triples)
    n_triples, n_cycles = round(float(triples.sum()) / 3), round(float(cycles.sum()) / 3)
    verdict: Verdict = "notice" if interval.estimate > THRESHOLDS.intransitive_notice else "ok"
    how = f"{len(edges):,} pairs drawn at random (seed {seed}), with all triples that they belong to" if sampled else "all triples"
    found = f"{'about ' if sampled else ''}{n_cycles:,} of {counted(n_triples, 'triple')}"
    return Finding.of(
        replace(interval, n=n_triples),
        code="intransitivity",
        title=f"{percent(interval.estimate)} {bracket(interval)} of triples are cycles ({found}); a random tournament has 25%.",
        unit="share",
        verdict=verdict,
        reason=f"Triples of responses whose three pairs each have a majority, by axis; {how}; {clustering}. Noise alone makes cycles, so "
        "this is an upper bound for cycles in what people value.",
        remedy="Many cycles: an order on one axis explains little; look for several axes or groups of raters." if verdict != "ok" else None,
        source="Kendall & Babington Smith 1940",
        details={"n_cycles": n_cycles, "n_triples": n_triples, "random": 0.25},
    )
