"""The log of decisions: what was appended is there, whatever ends the process, and what was changed since is seen."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamark.aggregation import Charter
from seamark.errors import InvalidSetting, UnreadableSource, UnwritableOutput
from seamark.governance import log
from seamark.governance.log import (
    NO_HASH,
    BrokenLog,
    Head,
    append,
    append_charter,
    export_audit,
    read,
    require_appendable,
    verify,
    verify_export,
    verify_lines,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def naive_verify(content: bytes) -> bool:
    """The chain recomputed with nothing of ours: hashes of what stands in the line, by the conventions of the module's first page."""
    if content and not content.endswith(b"\n"):
        return False
    previous = "0" * 64
    for seq, line in enumerate(content.splitlines(keepends=True) if b"\r" not in content else content.split(b"\n")[:-1]):
        try:
            entry = json.loads(line)
            hash = entry.pop("hash")
            bare = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            full = json.dumps(entry | {"hash": hash}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            if full.encode() != line.rstrip(b"\n") or hashlib.sha256(bare.encode()).hexdigest() != hash:
                return False
            if entry["seq"] != seq or entry["previous"] != previous:
                return False
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        previous = hash
    return True


@pytest.fixture
def five(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    for i in range(5):
        append(path, "note", {"text": f"number {i}"}, actor="A. Person")
    return path


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


# ---------------------------------------------------------------------------------------------- appending


def test_R67_entries_are_there_in_order_each_with_the_hash_of_the_one_before(five: Path) -> None:
    entries = read(five)
    assert [e.body["text"] for e in entries] == [f"number {i}" for i in range(5)]
    assert [e.seq for e in entries] == list(range(5))
    assert entries[0].previous == NO_HASH
    assert [e.previous for e in entries[1:]] == [e.hash for e in entries[:-1]]
    assert all(e.time.endswith("+00:00") for e in entries)
    assert naive_verify(five.read_bytes())


def test_a_hash_does_not_betray_what_it_is_of(five: Path) -> None:
    """The same said twice, in one place and time, has another hash: a ballot cannot be guessed from it."""
    entries = read(five)
    assert len({e.nonce for e in entries}) == 5
    assert all(len(e.nonce) == 32 for e in entries)
    assert entries[1].model_copy(update={"nonce": entries[2].nonce}).digest != entries[1].hash


@settings(max_examples=60, deadline=None)
@given(bodies=st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), JSON, max_size=3), max_size=4))
def test_any_json_goes_in_and_comes_back(bodies: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    for body in bodies:
        append(path, "note", body | {"text": "\u2028 \x85 \r\n"}, actor="É")
    if bodies:
        assert [e.body for e in read(path)] == [body | {"text": "\u2028 \x85 \r\n"} for body in bodies]
        assert verify(path).ok


@pytest.mark.parametrize(
    ("kind", "body", "actor", "named"),
    [
        ("overide", {}, "A", r"kind is 'overide'.*nearest known kind is override"),
        ("override", {"what": "gate"}, "A", "also says reason"),
        ("note", {"text": "x"}, " ", "actor is ' '"),
        ("note", {"text": float("nan")}, "A", "not JSON that can be written down"),
        ("note", {"text": "\ud800"}, "A", "not JSON that can be written down"),
        ("note", {"text": {1: 2}}, "A", "text for keys"),
        ("note", {"text": ("a",)}, "A", "lists for sequences"),
        ("electorate", {"poll": "p", "voters": ["1"], "options": ["A"]}, "A", "voters is"),
        ("electorate", {"poll": "p", "voters": {"1": None}, "options": []}, "A", "options is"),
        ("ballot", {"poll": "p", "voter": "1", "choice": ["A"]}, "A", r"choice is \['A'\]"),
        ("mandate", {"poll": "p", "voter": "1", "delegate": True}, "A", "delegate is True"),
    ],
)
def test_what_cannot_be_an_entry_is_refused_before_the_file_is_touched(
    kind: str, body: dict[str, Any], actor: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSetting, match=named):
        append(tmp_path / "log.jsonl", kind, body, actor=actor)
    assert not (tmp_path / "log.jsonl").exists()


_MANY = """
import sys
from seamark.governance.log import append
for i in range(int(sys.argv[3])):
    print(append(sys.argv[1], "note", {"text": f"{sys.argv[2]}:{i}"}, actor=sys.argv[2]).seq, flush=True)
"""


def start(code: str, *args: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True)


def test_R67_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    started = [start(_MANY, path, f"process {k}", 40) for k in range(3)]
    acknowledged = [int(seq) for process in started for seq in process.communicate(timeout=120)[0].split()]
    assert [p.returncode for p in started] == [0, 0, 0]
    assert sorted(acknowledged) == list(range(120))
    found = verify(path)
    assert found.ok
    for k in range(3):
        assert [e.body["text"] for e in found.entries if e.actor == f"process {k}"] == [f"process {k}:{i}" for i in range(40)]


_TORN = """
import os, signal, sys
from seamark.governance.log import append
whole = os.write
def half(file, data):
    whole(file, bytes(data)[: int(sys.argv[2])])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = half
append(sys.argv[1], "note", {"text": "never finished"}, actor="B. Person")
"""


@pytest.mark.parametrize("written", [1, 57, 200])
def test_R67_killed_in_the_middle_of_an_append(five: Path, written: int) -> None:
    """kill -9 after some bytes reached the file: the whole entries verify, the torn one is shown, and the next append keeps what is left."""
    before = five.read_bytes()
    process = start(_TORN, five, str(written))
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    torn = five.read_bytes()[len(before) :]
    assert len(torn) == written
    found = verify(five)
    assert (found.problem, found.place, found.torn, len(found.entries)) == ("torn", 5, torn, 5)
    assert "after 5 whole entries" in found.message
    assert len(read(five)) == 5
    entry = append(five, "note", {"text": "afterwards"}, actor="A. Person")
    entries = read(five)
    assert verify(five).ok
    assert (entries[5].kind, entries[5].body) == ("repair", {"torn": torn.decode()})
    assert entries[6] == entry


def test_R67_what_was_acknowledged_survives_a_kill_at_any_time(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "log.jsonl", 0
    rng = random.Random(0)
    for _ in range(3):
        process = start(_MANY, path, "victim", 100_000)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.05, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
        process.stdout.close()
        said = [int(seq) for seq in rest.splitlines(keepends=True) if seq.endswith("\n")]
        acknowledged = max([acknowledged, *said])
        found = verify(path)
        assert found.problem in (None, "torn")
        assert len(found.entries) > acknowledged
    assert acknowledged > 3
    append(path, "note", {"text": "last"}, actor="A")
    assert verify(path).ok


def test_an_append_reads_only_the_end(five: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long log costs no more than a short one; and one entry may be longer than what is read at a time."""
    append(five, "note", {"text": "x" * 300_000}, actor="A")
    asked: list[int] = []
    pread = os.pread
    monkeypatch.setattr(log.os, "pread", lambda file, n, start: asked.append(n) or pread(file, n, start))
    for i in range(3):
        append(five, "note", {"text": str(i)}, actor="A")
    assert verify(five).ok
    assert sum(asked[-1:]) <= 1 << 16


# ---------------------------------------------------------------------------------------------- what was changed is seen


def chain(n: int) -> bytes:
    """A log made without a file."""
    content, previous = b"", NO_HASH
    for seq in range(n):
        blank = log.Entry(
            seq=seq, time="2026-01-02T03:04:05+00:00", kind="note", actor="A. Person", nonce="00ff", body={"text": f"é{seq}", "n": 1.5}, previous=previous, hash=""
        )  # fmt: skip
        previous = blank.digest
        content += blank.model_copy(update={"hash": previous}).to_line()
    return content


CHAIN = chain(3)


@settings(max_examples=400, deadline=None)
@given(place=st.integers(0, len(CHAIN) - 1), byte=st.integers(0, 255))
def test_R67_any_single_edited_byte_is_seen(place: int, byte: int) -> None:
    assert verify_lines(CHAIN).ok
    edited = CHAIN[:place] + bytes([byte]) + CHAIN[place + 1 :]
    found = verify_lines(edited)
    assert found.ok == (edited == CHAIN) == naive_verify(edited)
    if not found.ok:
        assert found.place is not None
        assert found.place <= CHAIN[: place + 1].count(b"\n")
        assert len(found.entries) == found.place == CHAIN[:place].count(b"\n")


def test_R67_every_byte_replaced_removed_or_doubled_is_seen() -> None:
    """All of them, not a sample: each byte turned into its neighbour, left out, or written twice."""
    for place, byte in enumerate(CHAIN):
        head, tail = CHAIN[:place], CHAIN[place + 1 :]
        for edited in (head + bytes([byte ^ 1]) + tail, head + tail, head + bytes([byte, byte]) + tail):
            assert not verify_lines(edited).ok, (place, edited[max(0, place - 20) : place + 20])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_R67_any_other_set_of_lines_is_seen(data: st.DataObject) -> None:
    """Lines removed, repeated or moved in any way: only beginnings of the log look whole, and those a head tells apart."""
    whole = CHAIN.splitlines(keepends=True)
    order = data.draw(st.lists(st.integers(0, 2), max_size=5))
    found = verify_lines(b"".join(whole[i] for i in order))
    assert found.ok == (order == list(range(len(order))))
    assert [e.seq for e in found.entries] == list(range(len(found.entries)))


@pytest.mark.parametrize(
    ("change", "problem", "place", "said"),
    [
        (lambda e: [e[0], e[1].replace(b"number 1", b"number 9"), *e[2:]], "edited", 1, "entry 1 was edited"),
        (lambda e: [e[0], e[1].replace(b'","', b'", "', 1), *e[2:]], "edited", 1, "entry 1 was edited"),
        (lambda e: [e[0], *e[3:]], "removed", 1, "entries 1 to 2 are missing: entry 3 stands there"),
        (lambda e: e[1:], "removed", 0, "entry 0 is missing"),
        (lambda e: [e[0], e[2], e[1], *e[3:]], "reordered", 1, "entry 2 stands where entry 1 should: entries were moved"),
        (lambda e: [*e[:3], e[1], *e[3:]], "reordered", 3, "entry 1 stands where entry 3 should"),
        (lambda e: [*e, e[1]], "added", 5, "calls itself 1"),
        (lambda e: [*e[:4], b"\n", e[4]], "edited", 4, "entry 4 was edited"),
    ],
    ids=["edited", "blank", "removed", "first", "reordered", "repeated", "added", "empty line"],
)
def test_R67_the_first_broken_entry_is_named_and_what_is_wrong(five: Path, change: Any, problem: str, place: int, said: str) -> None:
    five.write_bytes(b"".join(change(lines(five))))
    found = verify(five)
    assert (found.problem, found.place, len(found.entries)) == (problem, place, place)
    assert said in found.message
    with pytest.raises(BrokenLog, match=r"log\.jsonl.*go on from a copy that verifies"):
        read(five)


def rehashed(line: bytes, **changes: Any) -> bytes:
    entry = log.Entry.model_validate(json.loads(line)).model_copy(update=changes)
    return entry.model_copy(update={"hash": entry.digest}).to_line()


def test_R67_an_entry_with_a_new_hash_breaks_the_next_one(five: Path) -> None:
    whole = lines(five)
    whole[2] = rehashed(whole[2], body={"text": "something else"})
    five.write_bytes(b"".join(whole))
    found = verify(five)
    assert (found.problem, found.place) == ("rewritten", 3)
    assert "entry 3 was rewritten, or the one before it" in found.message


def test_R67_what_only_a_published_head_shows(five: Path) -> None:
    """A cut end, and a log written anew with good hashes, look whole without the head: the documented limit of a hash chain."""
    head = verify(five).head
    assert Head.parse(str(head)) == head
    whole = lines(five)
    five.write_bytes(b"".join(whole[:3]))
    assert verify(five).ok
    found = verify(five, head=head)
    assert (found.problem, found.place) == ("truncated", 3)
    assert "ends after 3 entries; the published head has 5" in found.message
    anew = [*whole[:4], rehashed(whole[4], body={"text": "another end"})]
    five.write_bytes(b"".join(anew))
    assert verify(five).ok
    assert (verify(five, head=head).problem, verify(five, head=head).place) == ("rewritten", 4)
    five.write_bytes(b"".join(whole))
    append(five, "note", {"text": "more"}, actor="A")
    assert verify(five, head=head).ok
    assert verify(five, head=Head(0, NO_HASH)).ok
    five.write_bytes(b"")
    assert verify(five).ok
    assert verify(five, head=head).problem == "truncated"


def test_an_earlier_edit_is_named_before_a_cut(five: Path) -> None:
    head = verify(five).head
    whole = lines(five)
    five.write_bytes(whole[0] + whole[1].replace(b"number", b"Number") + whole[2])
    assert (verify(five, head=head).problem, verify(five, head=head).place) == ("edited", 1)


@pytest.mark.parametrize(
    "text",
    ["", "5", "x:" + "0" * 64, "5:" + "0" * 63, "5:" + "G" * 64, "0:" + "a" * 64, "5:" + "0" * 64, "-1:" + "0" * 64, "²:" + "0" * 64],
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="as seamark audit head prints it"):
        Head.parse(text)


def test_a_broken_end_is_not_appended_to(five: Path) -> None:
    whole = lines(five)
    five.write_bytes(b"".join(whole[:-1]) + whole[-1].replace(b"number 4", b"number 5"))
    before = five.read_bytes()
    with pytest.raises(BrokenLog, match="last line is not an entry as it was written"):
        append(five, "note", {"text": "x"}, actor="A")
    assert five.read_bytes() == before


@pytest.mark.parametrize("content", [b"[" * 100_000 + b"\n", b"9" * 5000 + b"\n", b'{"a":NaN}\n', b"\xff\xfe\n", b"null\n", b"\x00\n"])
def test_bytes_that_are_no_log_are_a_result_not_a_crash(content: bytes) -> None:
    assert verify_lines(content).problem == "edited"


def test_once_is_once_and_looks_at_the_whole_log(five: Path) -> None:
    before = five.read_bytes()
    assert append(five, "note", {"text": "number 2"}, actor="A. Person", once=True) == read(five)[2]
    assert five.read_bytes() == before
    for kind, body, actor in (("note", {"text": "number 2"}, "B. Person"), ("note", {"text": "number 2", "more": 1}, "A. Person")):
        assert append(five, kind, body, actor=actor, once=True) == read(five)[-1]
    assert len(read(five)) == 7
    five.write_bytes(five.read_bytes()[:-9])  # an append that never finished is no entry
    assert [e.kind for e in read(five)] == ["note"] * 6
    assert append(five, "note", {"text": "number 2", "more": 1}, actor="A. Person", once=True).seq == 7
    assert [e.kind for e in read(five)[6:]] == ["repair", "note"]
    five.write_bytes(five.read_bytes().replace(b"number 1", b"number 9"))
    with pytest.raises(BrokenLog, match="entry 1 was edited"):
        append(five, "note", {"text": "new"}, actor="A. Person", once=True)


def test_R67_what_says_the_same_at_once_is_there_once(tmp_path: Path) -> None:
    code = "import sys; from seamark.governance import append; append(sys.argv[1], 'note', {'text': 'x'}, actor='A', once=True)"
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log.jsonl")]) for _ in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    assert len(read(tmp_path / "log.jsonl")) == 1


def test_whether_a_log_can_be_appended_to(five: Path, tmp_path: Path) -> None:
    require_appendable(five, actor="Ana")
    require_appendable(tmp_path / "new" / "log.jsonl", actor="Ana")
    assert not (tmp_path / "new").exists()
    five.write_bytes(five.read_bytes()[:-9])  # the next append takes care of that
    require_appendable(five, actor="Ana")
    five.write_bytes(five.read_bytes().replace(b"number 1", b"number 9"))
    with pytest.raises(BrokenLog, match="entry 1 was edited"):
        require_appendable(five, actor="Ana")
    with pytest.raises(InvalidSetting, match="Name who answers"):
        require_appendable(five, actor="")
    with pytest.raises(UnwritableOutput, match="not a file"):
        require_appendable(tmp_path, actor="Ana")


def test_a_log_without_permission_cannot_be_appended_to(five: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_args: object) -> int:  # whoever is root may write anything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(log.os, "open", refused)
    with pytest.raises(UnwritableOutput, match=r"log\.jsonl: cannot be written \(Permission denied\).*that you may read and write"):
        require_appendable(five, actor="Ana")


def test_a_missing_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match="there is no such log"):
        verify(tmp_path / "nowhere.jsonl")


# ---------------------------------------------------------------------------------------------- for an auditor


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    for version in (1, 2):
        append_charter(path, Charter(title="Whose", version=version, authors=("A. Person",)), actor="A. Person")
    append(path, "data", {"fingerprint": "ab" * 32, "source": "prefs.jsonl"}, actor="A. Person")
    head = export_audit(path, tmp_path / "audit", access=["outside-the-box", "black-box"], withheld=["weights of the reward model"])
    assert head == verify(path).head
    return tmp_path / "audit"


def test_R67_an_auditor_gets_the_log_the_charters_and_the_access_that_comes_with_them(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["access"] == ["outside-the-box", "black-box"]
    assert manifest["withheld"] == ["weights of the reward model"]
    assert sorted(manifest["files"]) == ["charters/000000/charter.toml", "charters/000001/charter.toml", "log.jsonl"]
    for name, hash in manifest["files"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == hash
    assert Charter.from_toml(exported / "charters" / "000001" / "charter.toml").version == 2
    assert verify_export(exported) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda f: (f / "charters/000001/charter.toml").write_text("rule = 'mine'"),
            "charters/000001/charter.toml does not match its hash",
        ),
        (lambda f: (f / "charters/000000/charter.toml").unlink(), "charters/000000/charter.toml is missing"),
        (lambda f: (f / "extra.txt").write_text("x"), "extra.txt is not in the manifest"),
        (lambda f: (f / "log.jsonl").write_bytes((f / "log.jsonl").read_bytes().replace(b"prefs", b"other")), "entry 2 was edited"),
        (lambda f: (f / "log.jsonl").write_bytes(b"".join(lines(f / "log.jsonl")[:-1])), "the end was cut off"),
    ],
)
def test_R67_a_changed_export_is_named(exported: Path, change: Any, said: str) -> None:
    change(exported)
    assert any(said in sentence for sentence in verify_export(exported)), verify_export(exported)


def test_a_charter_that_is_not_what_its_hash_says_is_named(tmp_path: Path) -> None:
    append(tmp_path / "log.jsonl", "charter", {"hash": "0" * 64, "title": "Whose", "toml": Charter().to_toml()}, actor="A")
    export_audit(tmp_path / "log.jsonl", tmp_path / "audit", access=["black-box"])
    assert verify_export(tmp_path / "audit") == ("charter of entry 0 does not have the hash that it states",)


def test_a_broken_log_is_not_exported(five: Path, tmp_path: Path) -> None:
    five.write_bytes(b"".join(lines(five)[1:]))
    with pytest.raises(BrokenLog, match="entry 0 is missing"):
        export_audit(five, tmp_path / "audit", access=["black-box"])
    assert not (tmp_path / "audit").exists()


def test_unknown_access_and_other_folders_are_refused(five: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="Use black-box"):
        export_audit(five, tmp_path / "audit", access=["white"])  # type: ignore[list-item]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(InvalidSetting, match=r"without a manifest\.json"):
        export_audit(five, tmp_path / "mine", access=["black-box"])
    with pytest.raises(UnreadableSource, match="not an audit folder"):
        verify_export(tmp_path / "mine")


def _manifest(folder: Path, **changes: Any) -> None:
    """The manifest written anew over what is there, as somebody would who wants to be believed."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "manifest.json").write_text(json.dumps(manifest | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "log.jsonl").unlink(), ["log.jsonl is missing"]),
        (lambda f: (f / "charters/000001/charter.toml").unlink(), ["charters/000001/charter.toml is missing"]),
        (lambda f: (f / "charters/more.toml").write_text("x"), ["charters/more.toml is not what the log has"]),
        (lambda f: (f / "charters/000001/charter.toml").write_text(Charter(title="mine").to_toml()),
         ["charters/000001/charter.toml is not what the log has", "charter of entry 1 does not have the hash"]),
    ],
)  # fmt: skip
def test_R67_an_export_is_held_against_its_log_and_not_against_its_manifest(exported: Path, change: Any, said: list[str]) -> None:
    change(exported)
    _manifest(exported)
    for sentence in said:
        assert any(sentence in wrong for wrong in verify_export(exported)), sentence


@pytest.fixture(params=["csv", "parquet"])
def with_population(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A log with a charter that names a population file, of text or not, and its export."""
    name = f"population.{request.param}"
    (tmp_path / name).write_bytes(b"group,share\nA,1\n" if request.param == "csv" else b"PAR1\xff\xfe")
    text = f'authors = ["Ana"]  # she alone\n[electorate]\nweighting = "target"\ntarget = "{name}"\n'
    (tmp_path / "charter.toml").write_text(text, encoding="utf-8")
    append_charter(tmp_path / "log.jsonl", Charter.from_toml(tmp_path / "charter.toml"), actor="Ana")
    export_audit(tmp_path / "log.jsonl", tmp_path / "audit", access=["outside-the-box"])
    return tmp_path


def test_a_population_file_goes_with_its_charter(with_population: Path) -> None:
    name = Charter.from_toml(with_population / "charter.toml").electorate.target
    here = with_population / "audit" / "charters" / "000000"
    assert (here / name).read_bytes() == (with_population / name).read_bytes()
    assert Charter.from_toml(here / "charter.toml").hash == Charter.from_toml(with_population / "charter.toml").hash
    assert read(with_population / "log.jsonl")[0].body["target"]["sha256"] == hashlib.sha256((here / name).read_bytes()).hexdigest()
    assert verify_export(with_population / "audit") == ()
    (here / name).write_bytes(b"group,share\nA,0.5\nB,0.5\n")
    _manifest(with_population / "audit")
    assert verify_export(with_population / "audit") == (
        f"charters/000000/{name} is not what the log has",
        "charter of entry 0 does not have the hash that it states",
    )


def test_a_path_in_the_log_leads_nowhere_else(tmp_path: Path) -> None:
    body = {"hash": "0" * 64, "title": "Whose", "toml": '[electorate]\nweighting = "target"\ntarget = "../../out.csv"\n', "target": {"name": "../../out.csv", "text": "x"}}  # fmt: skip
    append(tmp_path / "log.jsonl", "charter", body, actor="A")
    export_audit(tmp_path / "log.jsonl", tmp_path / "audit", access=["black-box"])
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["charter.toml", "log.jsonl", "log.jsonl", "manifest.json"]
    assert verify_export(tmp_path / "audit") == ("charter of entry 0 does not have the hash that it states",)
