"""What deliberation changed: the same people, asked the same questions before and after they talked, and the reasons that they gave.

Conventions
-----------
Deliberated feedback needs no form of its own. A judgment before and one after are two judgments, told apart by a field that says the stage
(`session`, or any other text field), and their `rationale` is the reason. A *return* is one person's answers to one question in both
stages: the last of the first stage, and the last of the second. Answers that were skipped or "cannot tell" are not compared.

    changed     share of returns with another answer
    again       share of people's repeated answers within the first stage that differ: what is changed without deliberation
    converged   mean over returns of (agrees with the others' first majority after) - (agreed with it before), from -1 to 1

Others' majority is that of the other raters of the question in the first stage; where it is split, or there are none, a return says
nothing of it. Intervals are clustered by person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from seamark.checks.comparisons import question_units
from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidSetting
from seamark.intervals import Interval, mean, share
from seamark.records import Feedback


@dataclass(frozen=True)
class ChangeOfMind:
    """What people answered after deliberation, against what they answered before."""

    changed: Interval
    """n is returns, n_clusters people."""
    again: Interval | None
    """How often people answer otherwise when merely asked again; None where nobody was."""
    converged: Interval | None
    """Net movement towards what the others thought at first; None where there is no majority of others."""
    moved: Interval | None
    """Mean change of the answer itself where it has a direction, as a share of the scale: ratings, and thumbs (from down to up is 1)."""
    returns: pl.DataFrame
    """One row per return: rater, question (codes), before, after (answers in words), changed, majority (of the others, null where there is
    none), reason_before, reason_after."""

    @property
    def excess(self) -> float | None:
        """Share changed beyond what changes when people are merely asked again."""
        return None if self.again is None else self.changed.estimate - self.again.estimate


def change_of_mind(feedback: Feedback, *, before: str, after: str, by: str = "session") -> ChangeOfMind | None:
    """Who changed their mind between two stages; None where nobody answered a question in both.

    Parameters
    ----------
    by : text field of the judgments that says the stage.
    before, after : its values.

    Raises
    ------
    InvalidSetting
        If the field does not have these values.
    """
    frame = feedback.judgments
    if by not in frame.columns or frame[by].dtype != pl.String:
        raise InvalidSetting("by", by, "Use a text field of the judgments, such as session, ui_version or provenance.")
    known = set(frame[by].drop_nulls().unique().to_list())
    for name, stage in {"before": before, "after": after}.items():
        if stage not in known:
            raise InvalidSetting(name, stage, f"No judgment has it as its {by}; there are {', '.join(sorted(known)[:5]) or 'none'}.")
    said = _answers(feedback, by).filter(pl.col("stage").is_in([before, after]) & pl.col("answer").is_not_null())
    first = said.filter(pl.col("stage") == before)
    last = [part.unique(["rater", "question"], keep="last", maintain_order=True) for part in (first, said.filter(pl.col("stage") == after))]
    returns = last[0].join(last[1], on=["rater", "question"], suffix="_after", maintain_order="left")
    if not returns.height:
        return None
    majority = _others_majority(last[0])
    returns = returns.join(majority, on=["rater", "question"], how="left", maintain_order="left")
    changed = (returns["answer"] != returns["answer_after"]).to_numpy()
    person = returns["rater"].to_numpy()
    told = returns["majority"].is_not_null().to_numpy()
    joined = (returns["answer_after"] == returns["majority"]).fill_null(value=False).to_numpy().astype(np.float64)
    joined -= (returns["answer"] == returns["majority"]).fill_null(value=False).to_numpy()
    step = (returns["number_after"] - returns["number"]).to_numpy()
    has_step = np.isfinite(step.astype(np.float64))
    return ChangeOfMind(
        changed=share(changed.astype(np.float64), cluster=person),
        again=_again(first),
        converged=mean(joined[told], cluster=person[told]) if told.any() else None,
        moved=mean(step[has_step].astype(np.float64), cluster=person[has_step]) if has_step.any() else None,
        returns=returns.select(
            "rater", "question", pl.col("answer").alias("before"), pl.col("answer_after").alias("after"), pl.Series("changed", changed), "majority",
            pl.col("rationale").alias("reason_before"), pl.col("rationale_after").alias("reason_after"),
        ),
    )  # fmt: skip


def check_deliberation(feedback: Feedback, *, before: str, after: str, by: str = "session") -> Findings:
    """What deliberation changed, as findings.

    Returns `deliberation`, the share of returns with another answer; `deliberation/converged`, the net movement towards what the others
    thought at first; `deliberation/moved`, of answers with a direction; `deliberation/reasons`, how many of those who changed said why.
    """
    found = change_of_mind(feedback, before=before, after=after, by=by)
    if found is None:
        reason = f"Nobody whose name is known answered one question both in {before} and in {after}."
        return Findings((Finding.not_applicable("deliberation", "Whether deliberation changed minds", reason),))
    n_people = found.changed.n_clusters
    own = f"{found.changed.n:,} returns by {n_people:,} people"
    noise = (
        f"People merely asked again changed {found.again.estimate:.1%} (n = {found.again.n:,})"
        if found.again is not None
        else "How often people change an answer when merely asked again is not known, so this is not all deliberation's"
    )
    changed = found.returns.filter(pl.col("changed"))
    n_said = changed.height - changed["reason_after"].null_count()
    items = [
        Finding.of(
            found.changed, code="deliberation", unit="share",
            title=f"{found.changed.estimate:.1%} of answers were others after deliberation ({own}).",
            reason=f"n is returns: one person's answers to one question in {before} and {after}. Interval clustered by person. {noise}.",
            details={"again": None if found.again is None else found.again.estimate, "again_n": 0 if found.again is None else found.again.n,
                     "excess": found.excess},
        ),
        _net(found.converged, "converged", "Net movement towards what the others thought at first", own),
        _net(found.moved, "moved", "Net movement of ratings and thumbs, as a share of the scale", own),
        Finding(
            code="deliberation/reasons", title=f"{n_said:,} of {changed.height:,} changed answers come with a reason.",
            estimate=n_said / changed.height if changed.height else None, n=changed.height, unit="share",
            verdict="notice" if n_said < changed.height else "ok", reason="Rationales of the second answers; an exact count: no interval.",
            remedy="Ask people who change their mind what changed it." if n_said < changed.height else None,
            details={"reasons": changed["reason_after"].drop_nulls().to_list()[:100]},
        ),
    ]  # fmt: skip
    return Findings(tuple(items)).with_access("outside-the-box")


def _net(interval: Interval | None, name: str, what: str, own: str) -> Finding:
    code = f"deliberation/{name}"
    if interval is None:
        why = "No question has a majority of others" if name == "converged" else "No answer is a rating or a thumb"
        return Finding.not_applicable(code, what, f"{why} ({own}).")
    bounds = f" [{interval.low:+.3f}, {interval.high:+.3f}]" if interval.bounded else ""
    return Finding.of(
        interval, code=code, unit="share", title=f"{what}: {interval.estimate:+.3f}{bounds}.",
        reason="From -1 to 1, 0 where as many moved away; n is returns; interval clustered by person.",
        source="Lambert, Gilbert & Zick 2023 (preferences drift and depend on context)" if name == "moved" else None,
    )  # fmt: skip


def _answers(feedback: Feedback, by: str) -> pl.DataFrame:
    """One row per answered judgment of a known rater: rater, question, stage, rationale, the answer in words, and as a number from 0 to 1."""
    frame = feedback.judgments.with_columns(
        pl.Series("question", question_units(feedback)), pl.col(by).alias("stage"), pl.col("kind").cast(pl.String), pl.col("outcome").cast(pl.String)
    ).with_row_index("row")  # fmt: skip
    shown = pl.col("responses").list
    # responses by their code, so that an answer is the same in whatever order they were shown
    answer = (
        pl.when(pl.col("outcome").is_in(["tie", "both_bad"])).then(pl.col("outcome"))
        .when(pl.col("outcome").is_in(["skipped", "cannot_tell"])).then(None)
        .when(pl.col("outcome") == "left").then(shown.first().cast(pl.String))
        .when(pl.col("outcome") == "right").then(shown.last().cast(pl.String))
        .when(pl.col("kind") == "choice").then(shown.get(pl.col("best"), null_on_oob=True).cast(pl.String))
        .when(pl.col("kind") == "rating").then(pl.col("rating").cast(pl.String))
        .when(pl.col("kind") == "thumbs").then(pl.col("thumb").cast(pl.String))
        .when(pl.col("kind") == "label").then(pl.col("label"))
    )  # fmt: skip
    width = pl.col("scale_high") - pl.col("scale_low")
    number = (
        pl.when(pl.col("kind") == "thumbs")
        .then(pl.col("thumb").cast(pl.Float64))
        .when(width > 0)
        .then((pl.col("rating") - pl.col("scale_low")) / width)
    )
    found = frame.with_columns(answer.alias("answer"), number.alias("number"))
    order = pl.col("kind") == "ranking"
    if (found["kind"] == "ranking").any():
        ranked = [
            None if ranks is None else " ".join(f"{code}:{rank}" for code, rank in sorted(zip(codes, ranks, strict=True)))
            for codes, ranks in found.select("responses", "ranks").iter_rows()
        ]
        found = found.with_columns(pl.when(order).then(pl.Series(ranked, dtype=pl.String)).otherwise(pl.col("answer")).alias("answer"))
    columns = ("rater", "question", "stage", "rationale", "answer", "number")
    return found.filter(pl.col("rater").is_not_null()).sort("time", "row", nulls_last=False).select(*columns)


def _others_majority(first: pl.DataFrame) -> pl.DataFrame:
    """rater, question, and the answer that most of the other raters gave to it; null where there is no single one."""
    counts = first.group_by("question", "answer").len("n")
    each = first.select("rater", "question", pl.col("answer").alias("own")).join(counts, on="question")
    each = each.with_columns((pl.col("n") - (pl.col("answer") == pl.col("own")).cast(pl.Int64)).alias("n")).filter(pl.col("n") > 0)
    best = each.with_columns(pl.col("n").max().over("rater", "question").alias("most")).filter(pl.col("n") == pl.col("most"))
    found = best.group_by("rater", "question").agg(pl.col("answer").first().alias("majority"), pl.len().alias("ways"))
    return found.filter(pl.col("ways") == 1).select("rater", "question", "majority")


def _again(first: pl.DataFrame) -> Interval | None:
    """How often a second answer to the same question in the same stage differs from the first."""
    several = first.group_by("rater", "question", maintain_order=True).agg(
        pl.col("answer").first().alias("a"), pl.col("answer").get(1, null_on_oob=True).alias("b")
    )
    several = several.filter(pl.col("b").is_not_null())
    if not several.height:
        return None
    return share((several["a"] != several["b"]).to_numpy().astype(np.float64), cluster=several["rater"].to_numpy())
