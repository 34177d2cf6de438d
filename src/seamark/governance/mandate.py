"""By whose authority: sign-offs by named people, and weights that are the ballots of an electorate.

Conventions
-----------
Everything is read from the entries of a log, in their order, so that the log alone says who decided.

    sign-off     {"subject": HASH}                      the actor puts their name to a charter or release with this hash
    withdrawal   {"subject": HASH, "reason": TEXT}      the actor takes it back
    electorate   {"poll": P, "options": [A, B], "voters": {VOTER: GROUP, ...}}      opens the poll; groups may be null
    ballot       {"poll": P, "voter": V, "choice": A}   null abstains; the last ballot of a voter counts
    mandate      {"poll": P, "voter": V, "delegate": D} V lets D vote in V's place; null takes it back

One person, one ballot: it counts once, for one option. A ballot or mandate is the voter's own where the actor is the voter. For each
voter counts the first of these that there is, and of several the last:

    1. a ballot of their own
    2. what their own mandate leads to: a ballot that the delegate entered for them, or else what the delegate votes
    3. nothing, where they took their mandate back
    4. a ballot that somebody else entered for them, such as a clerk for one on paper; then a mandate that somebody else entered

So nobody's word replaces the voter's, and `Count` names every ballot that somebody else entered or that does not count. Voters should be
pseudonyms: the log keeps them for good. There is no secrecy of the ballot here, and no proof that an actor is who the name says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from seamark.aggregation.charter import SUM, person
from seamark.checks.findings import Finding, Findings
from seamark.errors import InvalidSetting
from seamark.governance.log import Entry, problem_with
from seamark.intervals import wilson

_WEIGHTINGS = {
    "sizes": "as many raters as each group has",
    "equal": "all groups alike",
    "target": "as many as each group has in the population file",
}
_SHOWN = 10
"""How many ballots are named in a sentence; the details have all."""

# ---------------------------------------------------------------------------------------------- sign-offs


@dataclass(frozen=True)
class SignOff:
    """Who put their name to a hash."""

    subject: str
    proposed_by: str | None
    """Who put the charter or release into the log; None where the log does not have it."""
    signed_by: tuple[str, ...]
    """Distinct people other than the proposer whose signature stands, in the order of signing."""
    left_out: tuple[str, ...]
    """Why other signatures do not count, a sentence each."""


def sign_off(entries: Iterable[Entry], subject: str, *, named: Sequence[str] | None = None) -> SignOff:
    """Whose signatures stand under a charter or release.

    A signature counts once per person, from the moment the subject is in the log, unless the person proposed it, withdrew later, or is
    not among `named`. Two spellings that differ in case, blanks, Unicode form or what cannot be seen are one person.

    Parameters
    ----------
    subject : hash of a charter (`Charter.hash`) or release.
    named : who may sign; anybody where not given.
    """
    allowed = None if named is None else {person(name) for name in named}
    proposed_by: str | None = None
    signed: dict[str, str] = {}
    left_out: list[str] = []
    for entry in entries:
        who = person(entry.actor)
        if entry.kind in ("charter", "release") and entry.body["hash"] == subject and proposed_by is None:
            proposed_by = entry.actor
        if entry.kind not in ("sign-off", "withdrawal") or entry.body["subject"] != subject:
            continue
        if entry.kind == "withdrawal":
            if who in signed:
                left_out.append(f"{signed.pop(who)} withdrew (entry {entry.seq}): {entry.body['reason']}")
        elif not who:
            left_out.append(f"entry {entry.seq} is signed by nobody whose name can be seen")
        elif proposed_by is None:
            left_out.append(f"{entry.actor} signed (entry {entry.seq}) what was not in the log yet")
        elif who == person(proposed_by):
            left_out.append(f"{entry.actor} proposed it, and does not second it (entry {entry.seq})")
        elif allowed is not None and who not in allowed:
            left_out.append(f"{entry.actor} (entry {entry.seq}) is not among those named to sign")
        elif who in signed:
            left_out.append(f"{entry.actor} signed twice (entry {entry.seq}), which counts once")
        else:
            signed[who] = entry.actor
    return SignOff(subject, proposed_by, tuple(signed.values()), tuple(left_out))


def check_sign_off(entries: Iterable[Entry], subject: str, *, n: int = 2, named: Sequence[str] | None = None) -> Finding:
    """Whether `n` people other than the proposer signed the same hash.

    Raises
    ------
    InvalidSetting
        If fewer people are named than have to sign.
    """
    if n < 1 or (named is not None and len({person(name) for name in named}) < n):
        raise InvalidSetting("n", n, "Ask for at least one signature, and name at least as many different people as have to sign.")
    found = sign_off(entries, subject, named=named)
    have = len(found.signed_by)
    who = ", ".join(found.signed_by) or "nobody"
    missing = "it is not in the log" if found.proposed_by is None else f"{n - have} more must sign"
    return Finding(
        code="sign-off",
        title=f"{have} of {n} required people signed {subject[:12]} beside whoever proposed it: {who}" + (f"; {missing}." if have < n else "."),
        estimate=float(have), n=n, unit="count", verdict="ok" if have >= n else "blocking",
        reason="A count of facts in the log: no interval. Signatures are names in a hash chain; nothing proves who typed them."
        + "".join(f" Not counted: {why}." for why in found.left_out),
        remedy=None if have >= n else "Have another named person read it and sign: seamark audit append LOG sign-off.",
        details={"subject": subject, "proposed_by": found.proposed_by, "signed_by": list(found.signed_by), "left_out": list(found.left_out)},
        access="outside-the-box",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- ballots


@dataclass(frozen=True)
class Count:
    """What the ballots of one poll add up to."""

    poll: str
    options: tuple[str, ...]
    votes: dict[str, int]
    """Ballots per option, in the order of the options, those cast by a delegate included."""
    by_group: dict[str, dict[str, int]]
    """The same per group of voters; the empty text is the group of those without one."""
    n_voters: int
    """Size of the electorate."""
    n_own: int
    """Voters whose own ballot names an option."""
    n_carried: int
    """Voters whose ballot was cast by a delegate."""
    n_entered: int
    """Voters of whom nothing of their own is in the log, and for whom somebody else entered a ballot that names an option."""
    n_abstained: int
    """Voters who cast a ballot for nothing, or for whom a delegate or somebody else did."""
    n_silent: int
    """Voters from whom there is nothing, nor from whoever votes for them."""
    carried: dict[str, int] = field(default_factory=dict)
    """How many others each delegate voted for."""
    left_out: tuple[str, ...] = ()
    """Ballots and mandates that do not count, and why, a sentence each."""
    by_others: tuple[str, ...] = ()
    """Ballots and mandates that count, and that somebody else than the voter entered, a sentence each."""

    @property
    def total(self) -> int:
        return sum(self.votes.values())

    @property
    def weights(self) -> dict[str, float]:
        """The weights of a charter's electorate: each option's share of the ballots, from which they can be recounted."""
        return {option: n / self.total for option, n in self.votes.items() if n}


def count_ballots(entries: Iterable[Entry], poll: str) -> Count:
    """Count a poll from the log.

    Raises
    ------
    InvalidSetting
        If the log does not open the poll, or opens it twice with different voters or options.
    """
    groups: dict[str, str] | None = None
    options: tuple[str, ...] = ()
    ballots: dict[str, list[_Said]] = {}
    mandates: dict[str, list[_Said]] = {}
    left_out: list[str] = []
    for entry in entries:
        if str(entry.body.get("poll")) != poll or entry.kind not in ("electorate", "ballot", "mandate"):
            continue
        place = f"entry {entry.seq}"
        if problem := problem_with(entry.kind, entry.body):
            left_out.append(f"{place}: {problem[:1].lower()}{problem[1:]}")
            continue
        if entry.kind == "electorate":
            opened = ({str(v): str(g or "") for v, g in entry.body["voters"].items()}, tuple(map(str, entry.body["options"])))
            if groups is not None and opened != (groups, options):
                raise InvalidSetting("poll", poll, f"Entry {entry.seq} opens it again with other voters or options; use another name.")
            groups, options = opened
            continue
        voter = str(entry.body["voter"])
        what = entry.body["choice" if entry.kind == "ballot" else "delegate"]
        said = _Said(entry.seq, entry.actor, voter, None if what is None else str(what))
        if groups is None:
            left_out.append(f"{place}: the poll was not open yet")
        elif voter not in groups:
            left_out.append(f"{place}: {voter} is not in the electorate")
        elif entry.kind == "mandate" and said.what is not None and said.what not in groups:
            left_out.append(f"{place}: the delegate {said.what} is not in the electorate")
        elif entry.kind == "ballot" and said.what is not None and said.what not in options:
            left_out.append(f"{place}: {said.what} is not an option")
        else:
            (ballots if entry.kind == "ballot" else mandates).setdefault(voter, []).append(said)
    if groups is None:
        raise InvalidSetting("poll", poll, "The log has no electorate for it: append one, with its voters and options, before the ballots.")
    words = {voter: _word(ballots.get(voter, []), mandates.get(voter, []), left_out) for voter in groups}
    return _count(poll, options, groups, words, left_out)


@dataclass(frozen=True)
class _Said:
    """A ballot or a mandate in the log."""

    seq: int
    actor: str
    voter: str
    what: str | None
    """The option or the delegate."""

    @property
    def own(self) -> bool:
        return person(self.actor) == person(self.voter)

    def __str__(self) -> str:
        return f"entry {self.seq}: {self.actor} for {self.voter}"


@dataclass(frozen=True)
class _Word:
    """What counts of all that was entered for one voter: a ballot, or where there is none a mandate."""

    ballot: _Said | None
    mandate: _Said | None


def _word(ballots: Sequence[_Said], mandates: Sequence[_Said], left_out: list[str]) -> _Word:
    """The word of a voter, by the order of the module's first page; what does not count goes to `left_out`, a sentence each."""
    own, mandate = [b for b in ballots if b.own], [m for m in mandates if m.own]
    if own:
        counted, why = own, "who voted themselves"
    elif mandate:
        delegate = mandate[-1].what
        counted = [b for b in ballots if delegate is not None and person(b.actor) == person(delegate)]
        why = f"who let {delegate} vote for them" if delegate is not None else "who took their mandate back"
    else:
        counted, why = list(ballots), ""
    for other in ballots:
        if other not in counted:
            left_out.append(f"{other}, {why}")
        elif other != counted[-1]:
            left_out.append(f"an earlier ballot of {other.voter} (entry {other.seq}), replaced by entry {counted[-1].seq}")
    left_out += [f"{m}, {why}: a mandate" for m in mandates if not m.own and why]
    standing = mandate or ([] if counted else list(mandates))
    return _Word(counted[-1] if counted else None, standing[-1] if standing and standing[-1].what is not None else None)


def _count(poll: str, options: tuple[str, ...], groups: dict[str, str], words: dict[str, _Word], left_out: list[str]) -> Count:
    votes = dict.fromkeys(options, 0)
    by_group = {group: dict.fromkeys(options, 0) for group in sorted(set(groups.values()))}
    carried: dict[str, int] = {}
    n_own = n_carried = n_entered = n_abstained = n_silent = 0
    for voter, group in groups.items():
        holder, seen = voter, {voter}
        while words[holder].ballot is None and (given := words[holder].mandate) and given.what not in seen:
            holder = str(given.what)
            seen.add(holder)
        ballot, mandate = words[holder].ballot, words[voter].mandate
        if ballot is None:
            n_silent += 1
            if words[holder].mandate:
                left_out.append(f"the mandate of {voter}: it leads in a circle in which nobody votes")
            continue
        if ballot.what is None:
            n_abstained += 1
            continue
        votes[ballot.what] += 1
        by_group[group][ballot.what] += 1
        if holder == voter and ballot.own:
            n_own += 1
        elif holder == voter and mandate is None:
            n_entered += 1
        else:
            by = str(mandate.what) if holder == voter and mandate else holder
            n_carried += 1
            carried[by] = carried.get(by, 0) + 1
    used = [said for word in words.values() for said in (word.ballot, word.mandate if word.ballot is None else None) if said]
    by_others = tuple(str(said) for said in sorted(used, key=lambda said: said.seq) if not said.own)
    return Count(
        poll, options, votes, by_group, len(groups), n_own, n_carried, n_entered, n_abstained, n_silent, carried, tuple(left_out), by_others
    )


def check_ballots(count: Count, weights: Mapping[str, float] | None = None, *, weighting: str = "named") -> Findings:
    """How many took part, whose ballots somebody else entered or do not count, and whether the weights of a charter are the ballots.

    Parameters
    ----------
    weights, weighting : of a charter's electorate; None where there is no charter to hold against them.

    Returns
    -------
    `ballots/weights`, blocking unless every weight times all ballots is the number of ballots for it; `ballots/turnout` with Wilson's
    interval, of the share of people like these who would take part; `ballots/entered` and `ballots/left-out` where there are such ballots
    or mandates; `ballots/mandates` where somebody votes for others.
    """
    held = () if weights is None else (_check_weights(count, weights, weighting),)
    return Findings((*held, _check_turnout(count), *_check_entered(count), *_check_left_out(count), *_check_mandates(count)))


def _check_weights(count: Count, weights: Mapping[str, float], weighting: str) -> Finding:
    # shares of ballots, as nearly as weights add up to 1; so near that no poll of fewer than a million can be off by a ballot
    differ = {
        name: [float(weights.get(name, 0.0)), count.votes.get(name, 0)]
        for name in sorted({*weights, *count.votes})
        if not abs(weights.get(name, 0.0) * count.total - count.votes.get(name, 0)) <= SUM * count.total
    }
    named = "; ".join(
        f"{name} weighs {weight:g} and has {votes:,} of {count.total:,} ballots" for name, (weight, votes) in list(differ.items())[:3]
    )
    title = f"The weights are the {count.total:,} ballots cast in {count.poll}."
    if weighting != "named":
        title = f'The charter has no weights that could be the ballots cast in {count.poll}: its weighting is "{weighting}", {_WEIGHTINGS[weighting]}.'
    elif differ:
        title = f"The weights are not the ballots cast in {count.poll}: {named}{' ...' if len(differ) > 3 else ''}."
    shares = ", ".join(f"{json.dumps(name, ensure_ascii=False)} = {weight!r}" for name, weight in count.weights.items())
    return Finding(
        code="ballots/weights", title=title,
        estimate=float(len(differ)), n=len({*weights, *count.votes}), unit="count", verdict="blocking" if differ else "ok",
        reason="Options whose weight is not their share of the ballots; a count of facts: no interval.",
        remedy=f'Write the shares of the ballots into the charter, electorate.weighting = "named" and electorate.weights = {{{shares}}}, or say in it '
        "that the weights are not those of this poll." if differ else None,
        source="Diallo et al. 2024 (voter feedback)",
        details={"differ": differ, "votes": count.votes, "by_group": count.by_group, "left_out": list(count.left_out)},
        access="outside-the-box",
    )  # fmt: skip


def _check_turnout(count: Count) -> Finding:
    took_part = count.n_voters - count.n_silent
    low, high = wilson(took_part, count.n_voters)
    entered = f" {count.n_entered:,} by a ballot that somebody else entered," if count.n_entered else ""
    return Finding(
        code="ballots/turnout",
        title=f"{took_part:,} of {count.n_voters:,} voters took part in {count.poll}: "
        f"{count.n_own:,} chose themselves, {count.n_carried:,} through a delegate,{entered} {count.n_abstained:,} abstained.",
        estimate=took_part / count.n_voters if count.n_voters else None,
        low=low if count.n_voters else None,
        high=high if count.n_voters else None,
        n=count.n_voters, unit="share", verdict="notice" if 2 * took_part < count.n_voters else "ok",
        reason="n is voters; Wilson's interval, for people like these.",
        remedy="Say in the charter how few decided." if 2 * took_part < count.n_voters else None,
        details={"n_silent": count.n_silent}, access="outside-the-box",
    )  # fmt: skip


def _check_entered(count: Count) -> list[Finding]:
    if not (said := count.by_others):
        return []
    return [
        Finding(
            code="ballots/entered",
            title=f"{_ballots(len(said))} of {count.poll} that {'counts was' if len(said) == 1 else 'count were'} entered by somebody else than the voter: {_first(said)}.",
            estimate=float(len(said)), n=count.n_voters, unit="count", verdict="warning",
            reason="Entered for voters who said nothing themselves, or by the delegate whom they named; n is voters. A count of facts: no interval.",
            remedy="Have each of these voters confirm it by a ballot of their own, which then counts instead.",
            details={"by_others": list(said)}, access="outside-the-box",
        )
    ]  # fmt: skip


def _check_left_out(count: Count) -> list[Finding]:
    if not (said := count.left_out):
        return []
    return [
        Finding(
            code="ballots/left-out",
            title=f"{_ballots(len(said))} of {count.poll} {'does' if len(said) == 1 else 'do'} not count: {_first(said)}.",
            estimate=float(len(said)), n=count.n_voters, unit="count", verdict="notice",
            reason="A voter's own word comes before what others enter, and a later one before an earlier; n is voters. A count of facts: no interval.",
            details={"left_out": list(said)}, access="outside-the-box",
        )
    ]  # fmt: skip


def _ballots(n: int) -> str:
    return "1 ballot or mandate" if n == 1 else f"{n:,} ballots or mandates"


def _first(said: Sequence[str]) -> str:
    """The first of some sentences."""
    return "; ".join(said[:_SHOWN]) + (f"; and {len(said) - _SHOWN:,} more" if len(said) > _SHOWN else "")


def _check_mandates(count: Count) -> list[Finding]:
    if not count.carried:
        return []
    most = max(count.carried, key=lambda name: (count.carried[name], name))
    share = (count.carried[most] + 1) / count.total
    return [
        Finding(
            code="ballots/mandates",
            title=f"{len(count.carried)} delegates vote for {count.n_carried:,} others in {count.poll}; the largest casts {count.carried[most] + 1:,} of {count.total:,} ballots.",
            estimate=share, n=count.total, unit="share", verdict="warning" if 2 * share > 1 else "ok",
            reason="Share of the ballots cast by one person, their own included; a count of facts: no interval.",
            remedy="One person decides alone: cap how many mandates one may hold, and say so in the charter." if 2 * share > 1 else None,
            details={"carried": count.carried}, access="outside-the-box",
        )
    ]  # fmt: skip
