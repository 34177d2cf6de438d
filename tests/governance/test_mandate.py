"""Signatures of distinct people under one hash, and ballots that are the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamark.aggregation import Charter, Electorate
from seamark.errors import InvalidSetting
from seamark.governance import Entry, append, append_charter, read
from seamark.governance.mandate import Count, check_ballots, check_sign_off, count_ballots, sign_off

CHARTER = Charter(title="Whose", authors=("Ana",))


def entries(*said: tuple[str, str, dict[str, Any]]) -> list[Entry]:
    """Entries without a file; `log` tests the chain."""
    return [
        Entry(seq=i, time="2026-01-01T00:00:00+00:00", kind=kind, actor=actor, nonce="", body=body, previous="", hash="")
        for i, (actor, kind, body) in enumerate(said)
    ]


def signed(*actors: str, subject: str = CHARTER.hash) -> list[tuple[str, str, dict[str, Any]]]:
    return [(actor, "sign-off", {"subject": subject}) for actor in actors]


PROPOSED = ("Ana", "charter", {"hash": CHARTER.hash, "title": "Whose", "toml": ""})

# ---------------------------------------------------------------------------------------------- sign-offs


def test_two_people_sign_the_same_hash_in_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_charter(path, CHARTER, actor="Ana")
    append(path, "sign-off", {"subject": CHARTER.hash}, actor="Ben")
    assert check_sign_off(read(path), CHARTER.hash).verdict == "blocking"
    append(path, "sign-off", {"subject": CHARTER.hash}, actor="Chi")
    found = check_sign_off(read(path), CHARTER.hash)
    assert (found.verdict, found.estimate, found.details["signed_by"]) == ("ok", 2.0, ["Ben", "Chi"])
    assert "nothing proves who typed them" in (found.reason or "")
    assert check_sign_off(read(path), Charter(title="another").hash).verdict == "blocking"


@pytest.mark.parametrize(
    ("said", "named", "stand", "why"),
    [
        ([PROPOSED, *signed("Ben", "ben ", "BEN", "Ｂen")], None, ("Ben",), "signed twice"),
        ([PROPOSED, *signed("Ben", "B\u200ben")], None, ("Ben",), "signed twice"),
        ([PROPOSED, *signed("Ben", "A\u200bna")], None, ("Ben",), "does not second it"),
        ([PROPOSED, *signed("Ben", "\u200b")], None, ("Ben",), "nobody whose name can be seen"),
        ([PROPOSED, *signed("Ana", "Ben")], None, ("Ben",), "proposed it, and does not second it"),
        ([*signed("Ben"), PROPOSED, *signed("Chi")], None, ("Chi",), "what was not in the log yet"),
        ([PROPOSED, *signed("Ben", "Dan")], ["Ben", "Chi"], ("Ben",), "Dan (entry 2) is not among those named"),
        ([PROPOSED, *signed("Ben"), ("Ben", "withdrawal", {"subject": CHARTER.hash, "reason": "misread"})], None, (), "Ben withdrew (entry 2): misread"),
        ([PROPOSED, *signed("Ben", subject="f" * 64)], None, (), ""),
        (signed("Ben", "Chi"), None, (), "not in the log yet"),
    ],
)  # fmt: skip
def test_signatures_that_do_not_count(said: list[Any], named: list[str] | None, stand: tuple[str, ...], why: str) -> None:
    found = sign_off(entries(*said), CHARTER.hash, named=named)
    assert found.signed_by == stand
    assert why in "; ".join(found.left_out)
    assert bool(found.left_out) == bool(why)
    assert check_sign_off(entries(*said), CHARTER.hash, named=named).verdict == "blocking"


def test_who_withdrew_may_sign_again() -> None:
    said = entries(PROPOSED, *signed("Ben"), ("ben", "withdrawal", {"subject": CHARTER.hash, "reason": "x"}), *signed("Ben", "Chi"))
    assert check_sign_off(said, CHARTER.hash).verdict == "ok"


def test_more_signatures_than_people_are_an_error() -> None:
    with pytest.raises(InvalidSetting, match="at least as many different people"):
        check_sign_off([], CHARTER.hash, n=2, named=["Ben", "ben"])


# ---------------------------------------------------------------------------------------------- ballots

POLL = ("Clerk", "electorate", {"poll": "p", "options": ["A", "B"], "voters": {"1": "city", "2": "city", "3": "land", "4": None}})


def ballot(voter: str, choice: str | None, poll: str = "p") -> tuple[str, str, dict[str, Any]]:
    return (voter, "ballot", {"poll": poll, "voter": voter, "choice": choice})


def mandate(voter: str, delegate: str | None) -> tuple[str, str, dict[str, Any]]:
    return (voter, "mandate", {"poll": "p", "voter": voter, "delegate": delegate})


def test_N19_the_ballots_add_up_to_the_weights_exactly() -> None:
    count = count_ballots(entries(POLL, ballot("1", "A"), ballot("2", "B"), ballot("3", "B"), ballot("1", "B", "another")), "p")
    assert (count.votes, count.by_group) == ({"A": 1, "B": 2}, {"": {"A": 0, "B": 0}, "city": {"A": 1, "B": 1}, "land": {"A": 0, "B": 1}})
    assert (count.n_voters, count.n_own, count.n_carried, count.n_abstained, count.n_silent) == (4, 3, 0, 0, 1)
    charter = Charter(electorate=Electorate(weighting="named", weights=count.weights))
    assert sum(w * count.total for w in charter.electorate.weights.values()) == count.total
    found = check_ballots(count, charter.electorate.weights)
    assert [f.verdict for f in found] == ["ok", "ok"]
    turnout = found.get("ballots/turnout")
    assert turnout is not None
    assert turnout.estimate == 0.75
    assert turnout.low is not None
    assert turnout.high is not None
    assert turnout.low == pytest.approx(0.30064, abs=1e-5)  # Wilson 1927 for 3 of 4
    assert turnout.high == pytest.approx(0.95441, abs=1e-5)


@pytest.mark.parametrize("weights", [{"A": 0.5, "B": 0.5}, {"A": 1.0}, {"A": 2 / 3, "B": 1 / 3}, {"A": 1 / 3, "B": 1 / 3, "C": 1 / 3},
                                     {"A": 1 / 3, "B": 0.6667}, {"A": 1 / 3, "B": float("nan")}, {"A": 1.0, "B": 2.0}, {}])  # fmt: skip
def test_N19_any_other_weight_is_blocking(weights: dict[str, float]) -> None:
    count = count_ballots(entries(POLL, ballot("1", "A"), ballot("2", "B"), ballot("3", "B")), "p")
    found = check_ballots(count, weights).get("ballots/weights")
    assert found is not None
    assert found.verdict == "blocking"
    assert "are not the ballots" in found.title


def test_N19_what_does_not_count_is_said() -> None:
    said = entries(
        ballot("1", "A"),
        POLL,
        ballot("9", "A"),
        ballot("1", "C"),
        ballot("2", "A"),
        ballot("2", "B"),
        ballot("3", None),
        mandate("4", "9"),
        POLL,
    )
    count = count_ballots(said, "p")
    assert (count.votes, count.n_abstained, count.n_silent) == ({"A": 0, "B": 1}, 1, 2)
    for why in ("not open yet", "9 is not in the electorate", "C is not an option", "an earlier ballot of 2", "the delegate 9 is not"):
        assert any(why in sentence for sentence in count.left_out), why
    assert len(count.left_out) == 5


def test_N19_a_mandate_is_followed_until_somebody_votes() -> None:
    said = entries(POLL, mandate("1", "2"), mandate("2", "3"), ballot("3", "A"), mandate("4", "3"), mandate("4", None))
    count = count_ballots(said, "p")
    assert (count.votes, count.n_own, count.n_carried, count.n_silent, count.carried) == ({"A": 3, "B": 0}, 1, 2, 1, {"3": 2})
    found = check_ballots(count, count.weights).get("ballots/mandates")
    assert found is not None
    assert (found.verdict, found.estimate) == ("warning", 1.0)
    own = count_ballots([*said, *entries(ballot("1", "B"))], "p")
    assert (own.votes, own.carried) == ({"A": 2, "B": 1}, {"3": 1})


def test_N19_mandates_in_a_circle_lose_no_ballot_silently() -> None:
    count = count_ballots(entries(POLL, mandate("1", "2"), mandate("2", "1"), mandate("3", "3"), ballot("4", "A")), "p")
    assert (count.total, count.n_silent) == (1, 3)
    assert sum("circle" in why for why in count.left_out) == 3


def test_a_poll_that_is_not_there_or_there_twice() -> None:
    with pytest.raises(InvalidSetting, match="no electorate"):
        count_ballots(entries(ballot("1", "A")), "p")
    other = ("Clerk", "electorate", {"poll": "p", "options": ["A"], "voters": {"1": None}})
    with pytest.raises(InvalidSetting, match="Entry 1 opens it again"):
        count_ballots(entries(POLL, other), "p")


def naive_count(voters: list[str], said: list[tuple[str, str, str, str | None]]) -> tuple[dict[str, int], int]:
    """Votes and silent voters, by asking for each voter who speaks for them."""

    def entered(voter: str, kind: str, *, own: bool) -> list[tuple[str, str | None]]:
        return [(actor, what) for actor, who, k, what in said if (who, k, actor == who) == (voter, kind, own)]

    def choice(voter: str, asked: tuple[str, ...]) -> str | None:
        if own := entered(voter, "ballot", own=True):
            return own[-1][1] or "nothing"
        given, others = entered(voter, "mandate", own=True), entered(voter, "ballot", own=False)
        if given:
            others = [one for one in others if one[0] == given[-1][1]]
        if others:
            return others[-1][1] or "nothing"
        delegate = (given or entered(voter, "mandate", own=False) or [("", None)])[-1][1]
        return choice(delegate, (*asked, voter)) if delegate and delegate not in (*asked, voter) else None

    chosen = [choice(v, ()) for v in voters]
    return {option: chosen.count(option) for option in ("A", "B")}, chosen.count(None)


_ACTORS = st.sampled_from(["", "", "1", "2", "3", "4", "Clerk"])


@settings(max_examples=250, deadline=None)
@given(
    said=st.lists(
        st.tuples(_ACTORS, st.sampled_from("1234"), st.just("ballot"), st.sampled_from(["A", "B", None]))
        | st.tuples(_ACTORS, st.sampled_from("1234"), st.just("mandate"), st.sampled_from(["1", "2", "3", "4", None])),
        max_size=12,
    )
)
def test_N19_every_voter_is_counted_once(said: list[tuple[str, str, str, str | None]]) -> None:
    said = [(actor or voter, voter, kind, what) for actor, voter, kind, what in said]
    log = [POLL, *((actor, *(ballot(v, x) if kind == "ballot" else mandate(v, x))[1:]) for actor, v, kind, x in said)]
    count: Count = count_ballots(entries(*log), "p")
    votes, silent = naive_count(list("1234"), said)
    assert (count.votes, count.n_silent) == (votes, silent)
    assert count.total + count.n_abstained + count.n_silent == count.n_voters
    assert count.total == count.n_own + count.n_carried + count.n_entered
    assert sum(count.weights.values()) == pytest.approx(1 if count.total else 0)
    assert {o: sum(g[o] for g in count.by_group.values()) for o in "AB"} == count.votes
    assert check_ballots(count, count.weights)[0].verdict == "ok"
    assert sum(count.carried.values()) == count.n_carried


def test_a_number_is_its_digits_and_what_is_no_ballot_stops_no_count(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append(path, "electorate", {"poll": "p", "voters": {"1": None, "2": None}, "options": [1, 2]}, actor="Clerk")
    append(path, "ballot", {"poll": "p", "voter": 1, "choice": 2}, actor="1")
    bad = entries(
        ("1", "ballot", {"poll": "p", "voter": "1", "choice": ["A"]}), ("Clerk", "electorate", {"poll": "p", "voters": [], "options": {}})
    )
    count = count_ballots([*read(path), *bad], "p")
    assert (count.votes, count.n_silent) == ({"1": 0, "2": 1}, 1)
    assert ["choice is ['A']" in count.left_out[0], "voters is []" in count.left_out[1]] == [True, True]


def test_a_ballot_that_another_put_in_counts_and_is_said() -> None:
    said = entries(POLL, ballot("1", "A"), ("Clerk", "ballot", {"poll": "p", "voter": "2", "choice": "B"}), ballot("3", "B"))
    count = count_ballots(said, "p")
    assert (count.votes, count.by_others) == ({"A": 1, "B": 2}, ("entry 2: Clerk for 2",))
    assert check_ballots(count)[-1].title.endswith("entered by somebody else than the voter: entry 2: Clerk for 2.")


def by(actor: str, said: tuple[str, str, dict[str, Any]]) -> tuple[str, str, dict[str, Any]]:
    return (actor, *said[1:])


def test_nobody_replaces_a_ballot_of_the_voters_own() -> None:
    """Entered before or after it, and with a mandate that somebody else entered, too."""
    own = ballot("1", "A")
    for said in (
        [own, by("X", ballot("1", "B"))],
        [by("X", ballot("1", "B")), own],
        [own, by("2", mandate("1", "2")), by("2", ballot("1", "B"))],
        [own, mandate("1", "2"), by("2", ballot("1", "B"))],
    ):
        count = count_ballots(entries(POLL, *said), "p")
        assert (count.votes, count.n_own, count.by_others) == ({"A": 1, "B": 0}, 1, ())
        assert any(f"{said[-1][0] if said[-1] is not own else 'X'} for 1, who voted themselves" in why for why in count.left_out)


def test_only_the_delegate_whom_the_voter_named_votes_for_them() -> None:
    count = count_ballots(entries(POLL, mandate("1", "2"), by("2", ballot("1", "B")), by("X", ballot("1", "A")), ballot("2", "A")), "p")
    assert (count.votes, count.n_carried, count.carried, count.by_others) == ({"A": 1, "B": 1}, 1, {"2": 1}, ("entry 2: 2 for 1",))
    assert count.left_out == ("entry 3: X for 1, who let 2 vote for them",)
    back = count_ballots(entries(POLL, mandate("1", "2"), by("2", ballot("1", "B")), mandate("1", None)), "p")
    assert (back.total, back.left_out) == (0, ("entry 2: 2 for 1, who took their mandate back",))
    stolen = count_ballots(entries(POLL, mandate("1", "2"), by("3", mandate("1", "3")), ballot("2", "A"), ballot("3", "B")), "p")
    assert stolen.votes == {"A": 2, "B": 1}


def test_what_others_entered_and_what_does_not_count_stands_in_the_titles() -> None:
    count = count_ballots(entries(POLL, ballot("1", "A"), by("X", ballot("1", "B")), by("Clerk", ballot("2", "B"))), "p")
    found = {f.code: f for f in check_ballots(count)}
    assert "ballots/weights" not in found
    assert found["ballots/entered"].verdict == "warning"
    assert "entry 3: Clerk for 2" in found["ballots/entered"].title
    assert "entry 2: X for 1, who voted themselves" in found["ballots/left-out"].title
    assert "1 chose themselves, 0 through a delegate, 1 by a ballot that somebody else entered" in found["ballots/turnout"].title


def test_a_charter_without_written_weights_is_told_how_to_write_them() -> None:
    count = count_ballots(entries(POLL, ballot("1", "A"), ballot("2", "B")), "p")
    found = check_ballots(count, {}, weighting="sizes")[0]
    assert found.verdict == "blocking"
    assert 'its weighting is "sizes", as many raters as each group has' in found.title
    assert 'electorate.weights = {"A" = 0.5, "B" = 0.5}' in str(found.remedy)
