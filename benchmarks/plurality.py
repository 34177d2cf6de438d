"""What it is worth to serve several sets of values: planted groups, a newcomer's regret by number of labels, planted bubbles.

    python benchmarks/plurality.py                         measure what has not been measured, and print the tables
    python benchmarks/plurality.py --parts matching        one part
    python benchmarks/plurality.py --write                 the tables of docs/benchmarks.md, from what has been measured

The truth is planted; every figure is a mean over seeds, each a society of its own, with Student's t over them. Regret and gain are in
logits of the people concerned: what they get less than their own favourite, more than a response drawn at random. A fit of a newcomer's
own knows what they were asked about and nothing else. Where nothing is planted, what the meter reads off a fit is the fit's error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from seamark import intervals
from seamark.aggregation.matching import information, question_probs, unmatched, updated
from seamark.aggregation.plurality import (
    Views,
    bubbles,
    serve_maximin,
    serve_one,
    serve_own,
    views_of,
    views_of_fit,
    worth,
)
from seamark.models import Fit, Groups, Observation, Personas, Same, Tabular, fit
from seamark.records import Feedback
from seamark.simulation import Personas as Planted
from seamark.simulation import Society, simulate

Array = NDArray[np.float64]
HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "plurality.jsonl", HERE.parent / "docs"
START, END = "<!-- plurality: written by benchmarks/plurality.py --write -->", "<!-- end of plurality -->"

PLAIN = Observation(effects=(), lapse=False)
CAREFUL: dict[str, Any] = {"careless": 0.0, "opposed": 0.0, "position": 0.0, "length": 0.0, "lapse": 0.0, "tie": None, "spread": 1.0}
LABELS = (0, 1, 2, 3, 5, 10, 20, 40)
ALONE = (5, 20, 40)
"""Labels after which a newcomer's own fit is made: it takes longer than all the rest."""
DEVIATIONS = (0.0, 0.3, 0.6, 1.2, 2.4)
"""Of the groups from their mean, logits."""
HALFWAY = "between"
PEOPLE = 40


# ---------------------------------------------------------------------------------------------- planted groups


def planted_groups(seed: int, *, disagreement: float) -> dict[str, float]:
    """Gain of 60 raters and of 6 under each way of serving them, chosen by fits to 6,000 judgments and judged by the truth."""
    society = simulate(
        n_prompts=40, n_raters=66, n_judgments=6000, group_shares=(10, 1), disagreement=disagreement, **CAREFUL, seed=seed
    )  # fmt: skip
    feedback, truth = society.feedback, society.truth
    names = truth.group_names
    people = views_of(truth.value_by_group, feedback, names=names, share=truth.group_shares)
    pooled = fit(feedback, utility=Tabular(), people=Same(), observation=PLAIN).utilities(feedback)
    grouped = views_of_fit(fit(feedback, utility=Tabular(), people=Groups(), observation=PLAIN), feedback)
    assert grouped.names == names
    assert (grouped.response == people.response).all()
    served = {
        "single": serve_one(views_of(np.stack([pooled, pooled], 1), feedback, names=names)),
        "by share": serve_one(grouped),
        "half and half": serve_one(grouped, np.ones(2)),
        "maximin": serve_maximin(grouped),
        "each their own": serve_own(grouped),
        "best possible": serve_own(people),
    }
    out: dict[str, float] = {}
    for how, shown in served.items():
        majority, minority = worth(people, shown)
        out |= {f"{how}/majority": majority.gain.estimate, f"{how}/minority": minority.gain.estimate}
        out[f"{how}/everyone"] = float(people.share @ [majority.gain.estimate, minority.gain.estimate])
    return out


# ---------------------------------------------------------------------------------------------- a newcomer


def divided(seed: int) -> tuple[Society, Fit]:
    """120 people in three personas, which no column tells, with 80 judgments each, and the fit of them."""
    society = simulate(
        n_prompts=40, n_raters=120, n_judgments=9600, groups=1, disagreement=0.0, personas=Planted((0.5, 0.3, 0.2), deviation=1.2),
        **CAREFUL, seed=seed,
    )  # fmt: skip
    return society, fit(society.feedback, utility=Tabular(), people=Personas(3), require_converged=False, seed=seed)


def newcomers(seed: int, *, people: int = PEOPLE, alone: int = 10, labels: tuple[int, ...] = LABELS) -> dict[str, float]:
    """Regret of people who were not in the data, after n of their labels, by how a response is chosen for them.

    Each answers carefully; the same question gets the same answer whoever asks it. `alone` of them also have a fit of their own.
    """
    society, result = divided(seed)
    feedback, truth = society.feedback, society.truth
    rng = np.random.default_rng(seed)
    views = views_of_fit(result, feedback)
    left, right = _pairs(views)
    probs = question_probs(result, feedback, left, right)
    nobody = unmatched(result)
    own_values = truth.value[:, None] + truth.persona_values
    shares = np.bincount(truth.persona, minlength=3) / len(truth.persona)
    regrets: dict[str, list[float]] = {}

    def note(how: str, value: float) -> None:
        regrets.setdefault(how, []).append(value)

    for i in range(people):
        persona, other = rng.choice(3, p=shares), rng.choice(3, p=shares)
        for kind, values in (("", own_values[:, persona]), (f"{HALFWAY}/", own_values[:, [persona, other]].mean(1))):
            gap = values[left] - values[right]
            first = rng.random(len(gap)) < expit(gap)
            person = views_of(np.stack([values], 1), feedback, names=["newcomer"])

            def lost(scores: Array, person: Views = person) -> float:
                """Regret of whoever is served the favourite of these scores (Q, M)."""
                shown = serve_own(Views(("scores",), np.ones(1), scores[:, None], person.response))
                return worth(person, shown)[0].regret.estimate

            by_entry = np.array([lost(views.values[:, e]) for e in range(3)])
            note(f"{kind}random entry", float(by_entry.mean()))
            note(f"{kind}best entry", float(by_entry.min()))
            note(f"{kind}everybody's mean", lost(np.einsum("qem,e->qm", views.values, views.share)))
            order = rng.permutation(len(left))
            for policy in ("random", "active"):
                matched = nobody
                asked = np.zeros(len(left), dtype=bool)
                for n in range(max(labels) + 1):
                    if n in labels:
                        note(f"{kind}{policy}/entry/{n}", float(by_entry[int(matched.posterior.argmax())]))
                        note(f"{kind}{policy}/mixture/{n}", lost(np.einsum("qem,e->qm", views.values, matched.posterior)))
                    told = np.where(asked, -np.inf, information(matched, probs)) if policy == "active" else None
                    j = int(order[n]) if told is None else int(told.argmax())
                    asked[j] = True
                    matched = updated(matched, probs[j, :, :, 0 if first[j] else 1])
            for n in ALONE if i < alone and not kind else ():
                own = fit(
                    _answers(feedback, left[order[:n]], right[order[:n]], first[order[:n]]), utility=Tabular(), observation=PLAIN,
                    require_identified=False, require_converged=False,
                )  # fmt: skip
                found = np.nan_to_num(own.utilities(feedback))  # what they were not asked about is worth as much as anything
                note(f"own fit/{n}", lost(views_of(np.stack([found], 1), feedback, names=["own"]).values[:, 0]))
    return {how: float(np.mean(values)) for how, values in regrets.items()}


def _pairs(views: Views) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes of all pairs of options of a prompt."""
    i, j = np.triu_indices(views.response.shape[1], 1)
    left, right = views.response[:, i].ravel(), views.response[:, j].ravel()
    return left[(left >= 0) & (right >= 0)], right[(left >= 0) & (right >= 0)]


def _answers(feedback: Feedback, left: NDArray[np.int64], right: NDArray[np.int64], first: NDArray[np.bool_]) -> Feedback:
    texts, prompts = feedback.responses["text"].to_list(), feedback.prompts["text"].to_list()
    prompt = feedback.responses["prompt"].to_list()
    return Feedback.from_columns(
        {
            "kind": ["pair"] * len(left), "prompt": [prompts[prompt[r]] for r in left], "rater": ["new"] * len(left),
            "texts": [[texts[a], texts[b]] for a, b in zip(left, right, strict=True)],
            "outcome": ["left" if won else "right" for won in first],
        }
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- bubbles


def planted_bubbles(seed: int) -> dict[str, float]:
    """The meter's figures where three groups differ by ever more, each served its own favourite or all of them the mean's, by the truth
    and by the fit of 8,000 judgments."""
    out: dict[str, float] = {}
    for deviation in DEVIATIONS:
        society = simulate(n_prompts=40, n_raters=90, n_judgments=8000, groups=3, disagreement=deviation, **CAREFUL, seed=seed)
        truth = society.truth
        result = fit(society.feedback, utility=Tabular(), people=Groups(), observation=PLAIN)
        by_truth = views_of(truth.value_by_group, society.feedback, names=truth.group_names, share=truth.group_shares)
        for whose, seen in (("truth", by_truth), ("fit", views_of_fit(result, society.feedback))):
            for how, shown in (("own", serve_own(seen)), ("shared", serve_one(seen))):
                found = bubbles(seen, shown)
                for name in ("separation", "same", "disliked", "disagreement", "overlap"):
                    out[f"{deviation}/{whose}/{how}/{name}"] = getattr(found, name).estimate
    return out


# ---------------------------------------------------------------------------------------------- running and printing

PARTS: dict[str, tuple[Callable[[int], dict[str, float]], int]] = {
    "groups": (lambda seed: planted_groups(seed, disagreement=1.2), 10),
    "one group": (lambda seed: planted_groups(seed, disagreement=0.0), 10),
    "matching": (newcomers, 6),
    "bubbles": (planted_bubbles, 6),
}
"""What is measured, and over how many seeds."""


def measure(parts: list[str], results: Path, seeds: int | None) -> None:
    """Append what is not there yet, a line for each part and seed."""
    done = {(row["part"], row["seed"]) for row in _read(results)}
    results.parent.mkdir(parents=True, exist_ok=True)
    for part in parts:
        run, usual = PARTS[part]
        for seed in range(usual if seeds is None else seeds):
            if (part, seed) not in done:
                line = json.dumps({"part": part, "seed": seed, "found": run(seed)})
                with results.open("a", encoding="utf-8") as out:
                    out.write(line + "\n")
                print(f"{part}, seed {seed}", file=sys.stderr)


def _read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def tables(results: Path) -> str:
    """All that has been measured, as Markdown."""
    found: dict[str, list[dict[str, float]]] = {}
    for row in _read(results):
        found.setdefault(row["part"], []).append(row["found"])

    def cell(part: str, name: str, minus: str = "") -> str:
        values = np.array([one[name] - (one[minus] if minus else 0.0) for one in found[part] if name in one])
        if not len(values):
            return ""
        figure, sign = intervals.mean(values), "+" if minus else ""
        return f"{figure.estimate:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"

    lines: list[str] = []
    titles = {"groups": "Groups of 60 and of 6 raters who differ", "one group": "The same, of one mind"}
    ways = ("single", "by share", "half and half", "maximin", "each their own", "best possible")
    for part in [p for p in titles if p in found]:
        lines += [
            f"### {titles[part]} ({len(found[part])} seeds)",
            "",
            "| gain, logits | majority | minority | everyone |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| {how} | " + " | ".join(cell(part, f"{how}/{who}") for who in ("majority", "minority", "everyone")) + " |" for how in ways
        ]
        for how in ways[1:5]:
            cells = (cell(part, f"{how}/{who}", f"single/{who}") for who in ("majority", "minority", "everyone"))
            lines.append(f"| {how} - single | " + " | ".join(cells) + " |")
        lines.append("")
    for kind, title in (("", "A newcomer of one of three personas"), (f"{HALFWAY}/", "A newcomer halfway between two personas drawn")):
        if "matching" not in found:
            break
        lines += [f"### {title} ({len(found['matching'])} seeds of {PEOPLE} people)", ""]
        head = [f"{kind}{name}" for name in ("random entry", "everybody's mean", "best entry")]
        lines += ["Regret without labels: " + "; ".join(f"{name.removeprefix(kind)} {cell('matching', name)}" for name in head) + ".", ""]
        rows = {"entry, asked at random": "random/entry", "entry, asked actively": "active/entry", "mixture, asked at random": "random/mixture",
                "mixture, asked actively": "active/mixture"}  # fmt: skip
        lines += ["| labels | " + " | ".join(rows) + " | active - random, entry |" + ("" if kind else " own fit |")]
        lines += ["| --- " * (len(rows) + 2 + (not kind)) + "|"]
        for n in LABELS:
            cells = [cell("matching", f"{kind}{row}/{n}") for row in rows.values()]
            cells.append(cell("matching", f"{kind}active/entry/{n}", f"{kind}random/entry/{n}"))
            lines.append(f"| {n} | " + " | ".join(cells + ([] if kind else [cell("matching", f"own fit/{n}")])) + " |")
        lines.append("")
    if "bubbles" in found:
        lines += [f"### Planted bubbles ({len(found['bubbles'])} seeds)", ""]
        lines += [
            "| groups differ by, logits | served | separation, truth | separation, fit | same shown, fit | disliked, fit | disagreement, truth | disagreement, fit |"
        ]
        lines += ["| --- " * 8 + "|"]
        for deviation in DEVIATIONS:
            for how, said in (("own", "their own"), ("shared", "one reward")):
                names = (
                    "truth/{}/separation",
                    "fit/{}/separation",
                    "fit/{}/same",
                    "fit/{}/disliked",
                    "truth/{}/disagreement",
                    "fit/{}/disagreement",
                )
                cells = [cell("bubbles", f"{deviation}/{name.format(how)}") for name in names]
                lines.append(f"| {deviation} | {said} | " + " | ".join(cells) + " |")
    return "\n".join(lines).strip()


def write(results: Path, docs: Path) -> None:
    """The part of docs/benchmarks.md between the marks."""
    page = docs / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise SystemExit(f"{page} has no line {START!r} and {END!r} to write between")
    made = tables(results)
    if not made:
        raise SystemExit("nothing has been measured yet; run without --write first")
    said = "`python benchmarks/plurality.py`, then with `--write`. " + " ".join((__doc__ or "").split("\n\n")[-1].split())
    before, after = text.split(START)[0], text.split(END, 1)[1]
    page.write_text(f"{before}{START}\n\n{said}\n\n{made}\n\n{END}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seeds", type=int, help="in place of those of each part")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines of the finished seeds")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of benchmarks.md, for --write")
    parser.add_argument("--write", action="store_true", help="write the tables of what has been measured, and measure nothing")
    given = parser.parse_args(arguments)
    if given.write:
        write(given.results, given.docs)
        return 0
    measure(given.parts, given.results, given.seeds)
    print(tables(given.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
