"""Social choice: agreement with pref_voting on random profiles, known cases, which rule breaks which axiom, and seconds.

    python benchmarks/social_choice.py                        every part
    python benchmarks/social_choice.py agreement speed        some of them: cases, agreement, axioms, speed
    python benchmarks/social_choice.py --profiles 500         agreement on fewer profiles
    python benchmarks/social_choice.py --write                the tables of docs/benchmarks.md, from what was measured last

Agreement: profiles of 3 to 6 options and 5 to 101 ballots; a quarter each of uniform rankings, of rankings near one of a few (cycles and
near-ties abound), of those with equal ranks, and of uniform rankings with equal ranks; half with whole weights from 1 to 5. Winners
must be the same set. pref_voting returns one of several optimal lotteries; where it is another than ours both must lose to nothing in
its own margins, and ours have the least sum of squares. Every disagreement that is not that is printed. Batches that are done are kept
in benchmarks/results/social_choice.json and added to: remove it to compare anew.

Speed: utilities in single precision, people in five groups whose tastes differ. Rules run one after the other on one profile, in this
process; the margins are computed once, by the first that needs them, and are shown apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.aggregation.axioms import AXIOMS, check_axioms
from seamark.aggregation.profiles import Profile
from seamark.aggregation.rules import RULES, decide

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
RESULTS = HERE / "results"
START, END = "<!-- social choice: written by benchmarks/social_choice.py --write -->", "<!-- end of social choice -->"
PACKAGES = ("seamark", "numpy", "scipy", "pref_voting")
MIXED = {"parts": {"maximal-lottery": 0.5, "expected-utility": 0.5}}

# ---------------------------------------------------------------------------------------------- random profiles


def profiles(n: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], str]]:
    """(N, M) ranks from 1, whole weights (N,), and the kind of profile."""
    rng = np.random.default_rng(seed)
    for k in range(n):
        people, options = int(rng.integers(5, 102)), int(rng.integers(3, 7))
        near, tied = k % 4 in (1, 2), k % 4 >= 2
        if near:
            centres = rng.normal(size=(int(rng.integers(2, 5)), options))
            liking = centres[rng.integers(len(centres), size=people)] + rng.choice([0.0, 0.3]) * rng.normal(size=(people, options))
        else:
            liking = rng.normal(size=(people, options))
        ranks = (-liking).argsort(-1).argsort(-1) + 1
        if tied:  # neighbours in the order merge: (1, 2), (3, 4), ... on some ballots, other neighbours on others
            ranks = (ranks + rng.integers(0, 3, size=(people, 1))) // rng.integers(1, 4, size=(people, 1))
        weights = rng.integers(1, 6, size=people) if k // 4 % 2 else np.ones(people, dtype=np.int64)
        yield ranks, weights, f"{'few kinds' if near else 'uniform'}{', ties' if tied else ''}{', weights' if weights.max() > 1 else ''}"


# ---------------------------------------------------------------------------------------------- the other library

Winners = frozenset[int]


def theirs(ranks: NDArray[np.int64], weights: NDArray[np.int64]) -> Any:
    """pref_voting's profile: of linear orders where there are no ties, as its own rules for these are then used."""
    from pref_voting.profiles import Profile as Linear
    from pref_voting.profiles_with_ties import ProfileWithTies

    n_options = ranks.shape[1]
    if all(len(set(row)) == n_options for row in ranks.tolist()):
        return Linear(ranks.argsort(-1).tolist(), rcounts=weights.tolist())
    return ProfileWithTies([dict(enumerate(row)) for row in ranks.tolist()], rcounts=weights.tolist(), candidates=list(range(n_options)))


def _linear(profile: Any) -> bool:
    return type(profile).__name__ == "Profile"


def _borda(profile: Any) -> list[int]:
    from pref_voting.scoring_methods import borda, symmetric_borda_scores

    if _linear(profile):
        return borda(profile)
    scores = symmetric_borda_scores(profile)
    return [c for c, s in scores.items() if s == max(scores.values())]


def _copeland(profile: Any) -> list[int]:
    from pref_voting.c1_methods import copeland

    return copeland(profile)


def _kemeny(profile: Any) -> list[int]:
    from pref_voting.other_methods import kemeny_young

    return kemeny_young(profile)


def _ranked_pairs(profile: Any) -> list[int]:
    """Over all orders of equal margins where these are at most 3,000, else by its other algorithm: stacks."""
    from pref_voting.margin_based_methods import ranked_pairs, ranked_pairs_with_test

    return ranked_pairs_with_test(profile) or ranked_pairs(profile, algorithm="from_stacks")


def _instant_runoff(profile: Any) -> list[int]:
    from pref_voting.iterative_methods import instant_runoff_put

    return instant_runoff_put(profile) if _linear(profile) else instant_runoff_put(profile, score_method="split")


def _condorcet(profile: Any) -> list[int]:
    winner = profile.condorcet_winner()
    return [] if winner is None else [winner]


def _condorcet_loser(profile: Any) -> list[int]:
    loser = profile.condorcet_loser()
    return [] if loser is None else [loser]


ORDINAL: dict[str, Callable[[Any], list[int]]] = {
    "borda": _borda,
    "copeland": _copeland,
    "kemeny": _kemeny,
    "ranked-pairs": _ranked_pairs,
    "instant-runoff": _instant_runoff,
    "Condorcet winner": _condorcet,
    "Condorcet loser": _condorcet_loser,
}


def cardinal(utilities: NDArray[np.float64], benefits: NDArray[np.float64], weights: NDArray[np.int64]) -> dict[str, Winners]:
    """What pref_voting's rules for utilities choose: eighths, whose sums are exact, and for Nash powers of 2, whose products are."""
    from pref_voting.grade_methods import approval
    from pref_voting.grade_profiles import GradeProfile
    from pref_voting.utility_methods import maximin, nash, sum_utilitarian
    from pref_voting.utility_profiles import UtilityProfile

    maps = [dict(enumerate(row)) for row in utilities.tolist()]
    counts = weights.tolist()
    society = UtilityProfile(maps, ucounts=counts)
    status_quo = utilities.shape[1]
    with_quo = UtilityProfile([{**dict(enumerate(row)), status_quo: 0.0} for row in benefits.tolist()], ucounts=counts)
    grades = [{c: int(u > sum(row.values()) / len(row)) for c, u in row.items()} for row in maps]
    graded = GradeProfile(maps, sorted({u for row in maps for u in row.values()}), gcounts=counts)
    medians = {c: graded.median(c) for c in range(status_quo)}
    return {
        "expected-utility": frozenset(sum_utilitarian(society)),
        "maximin": frozenset(maximin(society)),
        "nash": frozenset(nash(with_quo, sq=status_quo)),
        "approval": frozenset(approval(GradeProfile(grades, [0, 1], gcounts=counts))),
        "median": frozenset(c for c, m in medians.items() if m == max(medians.values())),
    }


def _lottery(ours: NDArray[np.float64], profile: Any) -> str:
    """equal; another (both optimal in their margins, ours of least squares); or what is wrong."""
    from pref_voting.probabilistic_methods import maximal_lottery

    margins = np.array(profile.strength_matrix()[0], dtype=float)
    found = maximal_lottery(profile)
    other = np.array([found[c] for c in range(len(ours))])
    if np.abs(ours - other).max() < 1e-7:
        return "equal"
    scale = np.abs(margins).max()
    lost = [float((p @ margins).min()) / scale for p in (ours, other)]
    if min(lost) < -1e-7:
        return f"loses by {min(lost):.2g}"
    return "another" if ours @ ours < other @ other else "not of least squares"


def agreement(n: int, seed: int = 0, kemeny_options: int = 6) -> dict[str, Any]:
    """Counts per rule: compared, equal, and (lotteries) how many were another optimal one; and every disagreement."""
    counts: dict[str, Counter[str]] = {}
    wrong: list[dict[str, Any]] = []
    kinds: Counter[str] = Counter()
    rng = np.random.default_rng(seed + 1)
    for number, (ranks, weights, kind) in enumerate(profiles(n, seed)):
        kinds[kind] += 1
        profile, other = Profile.of_rankings(ranks, weights=weights.astype(float)), theirs(ranks, weights)
        found: dict[str, tuple[Winners, Winners]] = {}
        for rule, choose in ORDINAL.items():
            if rule == "kemeny" and ranks.shape[1] > kemeny_options:
                continue
            if rule.startswith("Condorcet"):
                code = int((profile.condorcet if rule.endswith("winner") else profile.condorcet_loser)[0])
                mine = frozenset([code] if code >= 0 else [])
            else:
                mine = frozenset(np.flatnonzero(decide(profile, rule).winners[0]).tolist())
            found[rule] = mine, frozenset(choose(other))
        utilities = np.round(8 * rng.normal(size=ranks.shape)) / 8
        benefits = rng.choice([0.5, 1.0, 2.0], size=ranks.shape)
        alone = np.arange(len(weights))  # everyone a group: the worst-off group is the worst-off person
        for rule, chosen in cardinal(utilities, benefits, weights).items():
            society = Profile((benefits if rule == "nash" else utilities)[None], weights.astype(float), alone)
            settings = {"benefit": "given"} if rule == "nash" else {}
            found[rule] = frozenset(np.flatnonzero(decide(society, rule, **settings).winners[0]).tolist()), chosen
        for rule, (mine, chosen) in found.items():
            counts.setdefault(rule, Counter())["equal" if mine == chosen else "different"] += 1
            counts[rule]["tied"] += len(mine) > 1
            if mine != chosen:
                wrong.append({"profile": number, "kind": kind, "rule": rule, "ours": sorted(mine), "theirs": sorted(chosen)})
        said = _lottery(decide(profile, "maximal-lottery").lottery[0], other)
        counts.setdefault("maximal-lottery", Counter())[said if said in ("equal", "another") else "different"] += 1
        if said not in ("equal", "another"):
            wrong.append({"profile": number, "kind": kind, "rule": "maximal-lottery", "said": said})
    return {"profiles": n, "seed": seed, "kinds": dict(kinds), "counts": {r: dict(c) for r, c in counts.items()}, "wrong": wrong}


BATCH = 250
"""Profiles of a seed: what is done is kept, so that a long comparison goes on where it was stopped."""


def compare(n: int, done: dict[str, Any] | None, keep: Callable[[dict[str, Any]], None]) -> None:
    """`agreement` in batches up to n profiles, added to what is done; `keep` is called after each."""
    whole = done or {"profiles": 0, "kinds": {}, "counts": {}, "wrong": []}
    while whole["profiles"] < n:
        batch = agreement(min(BATCH, n - whole["profiles"]), seed=whole["profiles"])
        counts = {r: dict(Counter(whole["counts"].get(r, {})) + Counter(c)) for r, c in batch["counts"].items()}
        wrong = whole["wrong"] + [{"seed": batch["seed"], **w} for w in batch["wrong"]]
        kinds = dict(Counter(whole["kinds"]) + Counter(batch["kinds"]))
        whole = {"profiles": whole["profiles"] + batch["profiles"], "kinds": kinds, "counts": counts, "wrong": wrong}
        keep(whole)
        print(f"agreement: {whole['profiles']:,} of {n:,}, {len(wrong)} different", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------- known cases

CASES: dict[str, tuple[dict[str, float], str]] = {
    "51% A>B>C, 49% B>C>A": ({"ABC": 0.51, "BCA": 0.49}, "ABC"),
    "60/40 of the same": ({"ABC": 0.60, "BCA": 0.40}, "ABC"),
    "A 55%, B 45%": ({"AB": 0.55, "BA": 0.45}, "AB"),
    "B copied: all put B above its copy C": ({"ABC": 0.55, "BCA": 0.45}, "ABC"),
    "cycle .40 ABC, .35 BCA, .25 CAB": ({"ABC": 0.40, "BCA": 0.35, "CAB": 0.25}, "ABC"),
    "equal cycle": ({"ABC": 1 / 3, "BCA": 1 / 3, "CAB": 1 / 3}, "ABC"),
}


def case(orders: dict[str, float], options: str) -> Profile:
    """Orders with their shares as a profile of one question."""
    return Profile.of_rankings(np.array([[o.index(c) + 1 for c in options] for o in orders]), weights=np.array(list(orders.values())))


def cases() -> list[dict[str, Any]]:
    """What each ordinal rule does with each known case; and Bradley-Terry where A and B are asked ten times as often."""
    rows: list[dict[str, Any]] = []
    for title, (orders, options) in CASES.items():
        profile = case(orders, options)
        row: dict[str, Any] = {"case": title, "logits": decide(profile, "bradley-terry").scores[0].round(2).tolist()}
        for rule in ("borda", "bradley-terry", "copeland", "kemeny", "ranked-pairs", "instant-runoff"):
            row[rule] = "".join(np.array(list(options))[decide(profile, rule).winners[0]])
        row["maximal-lottery"] = decide(profile, "maximal-lottery").lottery[0].round(3).tolist()
        rows.append(row)
    pairs = np.ones((3, 3))
    pairs[0, 1] = pairs[1, 0] = 10
    tenfold = decide(case(*CASES["51% A>B>C, 49% B>C>A"]), "bradley-terry", pairs=pairs)
    rows.append({"case": "the first, A-B asked 10 times as often", "logits": tenfold.scores[0].round(2).tolist(), "bradley-terry": "B"})
    rows[-1]["bradley-terry"] = "".join(np.array(list("ABC"))[tenfold.winners[0]])
    return rows


# ---------------------------------------------------------------------------------------------- axioms and speed


def axioms(n: int = 500, seed: int = 0) -> dict[str, Any]:
    """Violations of each axiom by each rule: n questions of 4 options, 15 people in 3 groups, utilities standard normal."""
    rng = np.random.default_rng(seed)
    profile = Profile(rng.normal(size=(n, 15, 4)), groups=rng.integers(0, 3, 15))
    table: dict[str, list[list[Any]]] = {}
    for rule in RULES:
        settings = MIXED if rule == "mixture" else {}
        found = check_axioms(profile, rule, witness=False, **settings)
        table[rule] = [[c.axiom, c.violated, c.applicable, round(c.low, 4), round(c.high, 4)] for c in found]
    return {"questions": n, "table": table}


def society(n_questions: int, n_people: int, n_options: int, seed: int = 0) -> Profile:
    """Responses of some quality, five groups that differ in taste, and people who differ within them."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 5, n_people)
    taste = rng.normal(size=(n_questions, 1, n_options)) + rng.normal(size=(n_questions, 5, n_options))[:, groups]
    utilities = (taste + rng.normal(size=(n_questions, n_people, n_options))).astype(np.float32)
    return Profile(utilities, rng.uniform(0.5, 2.0, n_people), groups)


def _seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def speed(n_questions: int, n_people: int, n_options: int, peer_questions: int = 3) -> dict[str, Any]:
    """Seconds of every rule on one profile, then of pref_voting on a few of its questions."""
    profile = society(n_questions, n_people, n_options)
    copy_s = min(_seconds(profile.utilities.copy) for _ in range(3))
    cpu = time.process_time()
    seconds = {"margins": _seconds(lambda: profile.margins)}
    for rule in RULES:
        seconds[rule] = _seconds(lambda rule=rule: decide(profile, rule, **(MIXED if rule == "mixture" else {})))
    cpu_s = time.process_time() - cpu
    ranks = (-profile.utilities[:peer_questions]).argsort(-1).argsort(-1) + 1
    ones = np.ones(n_people, dtype=np.int64)  # pref_voting counts whole people; the rankings are the same
    equal = Profile(profile.utilities[:peer_questions])
    peer: dict[str, float] = {}
    same: dict[str, bool] = {}
    try:
        societies: list[Any] = []
        peer["profile"] = _seconds(lambda: societies.extend(theirs(r, ones) for r in ranks)) / peer_questions
        for rule, choose in ORDINAL.items():
            if rule in RULES:
                chosen: list[Winners] = []
                peer[rule] = _seconds(lambda c=choose, out=chosen: out.extend(frozenset(c(p)) for p in societies)) / peer_questions
                won = decide(equal, rule).winners
                same[rule] = chosen == [frozenset(np.flatnonzero(w).tolist()) for w in won]
    except ImportError:
        print("pref_voting is not installed: no peer", file=sys.stderr)
    size = {"questions": n_questions, "people": n_people, "options": n_options, "bytes": profile.utilities.nbytes, "cpu_s": cpu_s}
    return {**size, "copy_s": copy_s, "seconds": seconds, "peer_questions": peer_questions, "peer_s_a_question": peer, "same_winners": same}


# ---------------------------------------------------------------------------------------------- tables


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(["| " + " | ".join(r) + " |" for r in [header, ["---"] * len(header), *rows]])


def report(found: dict[str, Any]) -> str:
    """All that has been measured."""
    where = found["machine"]
    named = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    parts = [f"`python benchmarks/social_choice.py`, then with `--write`. Python {where['python']}, {named}; load {where['load']:.1f}."]
    if "cases" in found:
        rules = ["borda", "bradley-terry", "copeland", "kemeny", "ranked-pairs", "instant-runoff", "maximal-lottery"]
        shown = [[r["case"], *(str(r.get(rule, "")) for rule in rules), str(r["logits"])] for r in found["cases"]]
        parts.append(_table(["case", *rules, "Bradley-Terry, logits"], shown))
    if "agreement" in found:
        a = found["agreement"]
        kinds = "; ".join(f"{kind} {count:,}" for kind, count in a["kinds"].items())
        rows = []
        for rule, c in a["counts"].items():
            compared = c.get("equal", 0) + c.get("another", 0) + c.get("different", 0)
            cells = [c.get("equal", 0), c.get("another", 0), c.get("different", 0)]
            rows.append([rule, f"{compared:,}", *(f"{cell:,}" for cell in cells), f"{c['tied']:,}" if "tied" in c else ""])
        header = ["rule", "compared", "same", "another optimal lottery", "different", "of them with several winners"]
        parts.append(f"Beside pref_voting on {a['profiles']:,} random profiles ({kinds}); winners as sets.\n\n{_table(header, rows)}")
        if a["wrong"]:
            parts.append("Different:\n\n" + "\n".join(f"- {json.dumps(w)}" for w in a["wrong"]))
    if "axioms" in found:
        a = found["axioms"]
        rows = [[rule, *(f"{v}/{n} [{low:.3f}, {high:.3f}]" for _, v, n, low, high in checks)] for rule, checks in a["table"].items()]
        said = (
            f"Violations of those questions an axiom applies to, with the 95% interval of the share: {a['questions']} questions, 4 options, "
            "15 people in 3 groups, standard normal utilities. Monotonicity and participation are searched: a 0 there proves nothing."
        )
        parts.append(f"{said}\n\n{_table(['rule', *AXIOMS], rows)}")
    if "speed" in found:
        s = found["speed"]
        total = sum(s["seconds"].values())
        said = (
            f"{s['questions']:,} questions x {s['options']} options x {s['people']:,} weighted people, {s['bytes'] / 1e6:.0f} MB, "
            f"OMP_NUM_THREADS={where['threads']}: {total:.2f} s for all rules (Kemeny, exact, included; {s['cpu_s']:.2f} s of the processor), {s['seconds']['margins']:.2f} s of it "
            f"the margins; copying the utilities once takes {s['copy_s']:.3f} s. pref_voting: seconds a question on the first "
            f"{s['peer_questions']} of them, people alike, making its profile ({s['peer_s_a_question'].get('profile', float('nan')):.3g} s) apart; ours "
            "a question is with the margins, which it needs for the rule."
        )
        rows = []
        for rule, seconds in s["seconds"].items():
            theirs_s = s["peer_s_a_question"].get(rule)
            needs = s["seconds"]["margins"] if rule != "instant-runoff" else 0
            ratio = f"{theirs_s / ((seconds + needs) / s['questions']):,.3g}" if theirs_s else ""
            same = {True: "yes", False: "no", None: ""}[s["same_winners"].get(rule)]
            rows.append([rule, f"{seconds:.3f}", f"{theirs_s:.3g}" if theirs_s else "", ratio, same])
        parts.append(f"{said}\n\n{_table(['rule', 'seconds', 'pref_voting, s a question', 'ratio', 'same winners'], rows)}")
    return "\n\n".join(parts)


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return {"python": platform.python_version(), "versions": versions, "load": os.getloadavg()[0], "threads": threads}


def write(given: argparse.Namespace) -> None:
    """The part of docs/benchmarks.md between the marks."""
    path = given.results / "social_choice.json"
    if not path.exists():
        raise SystemExit("nothing has been measured yet; run without --write first")
    page = given.docs / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise SystemExit(f"{page} has no line {START!r} and {END!r} to write between")
    before, after = text.split(START)[0], text.split(END, 1)[1]
    made = report(json.loads(path.read_text(encoding="utf-8")))
    page.write_text(f"{before}{START}\n\n{made}\n\n{END}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parts = ("cases", "agreement", "axioms", "speed")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to run: {', '.join(parts)} (default: all)")
    parser.add_argument("--profiles", type=int, default=10_000, help="of agreement")
    parser.add_argument("--questions", type=int, default=1_000, help="of speed")
    parser.add_argument("--people", type=int, default=2_000, help="of speed")
    parser.add_argument("--options", type=int, default=8, help="of speed")
    parser.add_argument("--axiom-questions", type=int, default=500)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of what was measured")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of benchmarks.md, for --write")
    parser.add_argument("--write", action="store_true", help="write the tables of what has been measured, and measure nothing")
    given = parser.parse_args(arguments)
    if given.write:
        write(given)
        return 0
    if unknown := set(given.parts) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]!r}; use {', '.join(parts)}")
    asked = given.parts or parts
    path = given.results / "social_choice.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    given.results.mkdir(parents=True, exist_ok=True)

    def save(part: dict[str, Any]) -> None:
        found.update(part, machine=machine())
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "cases" in asked:
            save({"cases": cases()})
        if "agreement" in asked:
            compare(given.profiles, found.get("agreement"), lambda whole: save({"agreement": whole}))
        if "axioms" in asked:
            save({"axioms": axioms(given.axiom_questions)})
        if "speed" in asked:
            save({"speed": speed(given.questions, given.people, given.options)})
    print(report({key: found[key] for key in ("machine", *asked)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
