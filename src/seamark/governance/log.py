"""The record of what was decided: an append-only log in which every entry holds the hash of the one before it.

Conventions
-----------
One entry is one line of JSON in its canonical form (sorted keys, no blanks, UTF-8):

    {"actor":..., "body":{...}, "hash":..., "kind":..., "nonce":..., "previous":..., "seq":..., "time":...}
    hash = SHA-256 of the same line without its hash;   previous = hash of the entry before, 64 zeros for the first

The nonce is random, so that a hash can be published without the entry: who votes for what is soon guessed from a hash of that alone.

What the chain shows, and what it does not
------------------------------------------
An edited, removed, added or moved entry breaks the chain, and `verify` names the first place. Whoever can write the file can also
write it anew from some place on, or cut off its end: that is only seen by someone who kept the `head` (number of entries and last
hash) from before, so publish it. Names of actors are as they were given: the chain does not prove who wrote, only that it was not
changed since.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import os
import secrets
import tomllib
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seamark.errors import InvalidSetting, SeamarkError, UnreadableSource, UnwritableOutput
from seamark.outputs import require_file_place, whole_folder

if TYPE_CHECKING:
    from seamark.aggregation.charter import Charter
    from seamark.checks.findings import Access

NO_HASH = "0" * 64
"""What the first entry has for the hash of the one before it."""

KINDS: dict[str, tuple[str, ...]] = {
    "charter": ("hash", "title", "toml"),
    "data": ("fingerprint", "source"),
    "exclusion": ("what", "n", "reason"),
    "override": ("what", "reason"),
    "release": ("hash", "charter", "data"),
    "sign-off": ("subject",),
    "withdrawal": ("subject", "reason"),
    "near-miss": ("what", "detected_by", "averted_by"),
    "incident": ("what", "harm"),
    "electorate": ("poll", "voters", "options"),
    "ballot": ("poll", "voter", "choice"),
    "mandate": ("poll", "voter", "delegate"),
    "affordances": ("interface",),
    "repair": ("torn",),
    "note": ("text",),
}
"""The kinds of entries, and what their body must hold; it may hold more."""

Word = str | int
"""A name as it is given; a number stands for its digits."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class _Electorate(_Body):
    poll: Word
    voters: dict[str, Word | None]
    options: Annotated[list[Word], Field(min_length=1)]


class _Ballot(_Body):
    poll: Word
    voter: Word
    choice: Word | None


class _Mandate(_Body):
    poll: Word
    voter: Word
    delegate: Word | None


_WRITTEN = {
    "poll": 'Write the name of the poll, "p1"',
    "voters": 'Write each voter with their group, or null: {"v1": "city", "v2": null}',
    "options": 'Write a list of one or more names: ["A", "B"]',
    "voter": 'Write one of the electorate, "v1"',
    "choice": 'Write one of the options, "A", or null to abstain',
    "delegate": 'Write one of the electorate, "v2", or null to take the mandate back',
}

_BODIES: dict[str, type[_Body]] = {"electorate": _Electorate, "ballot": _Ballot, "mandate": _Mandate}
"""Kinds that are counted: one of another shape could never be taken back, and would stop the count."""

_MARK = "manifest.json"


class BrokenLog(SeamarkError):
    """A log is not whole, and what was asked for is not done.

    `read`, `export_audit`, `require_appendable` and `append(once=True)` look at every entry, as does every command of the command line
    (`seamark audit append`, `seamark study --log`) before it appends. `append` alone looks at the last entry only.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"{path}: {problem}. Keep the file as it is, find out who changed it (seamark audit verify), and go on from a copy that verifies."
        )
        self.path, self.problem = path, problem


class Entry(BaseModel):
    """One line of the log."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seq: int
    """Place in the log, from 0."""
    time: str
    """When it was appended, ISO 8601, UTC, by the clock of the machine."""
    kind: str
    actor: str
    """Who answers for it, as given."""
    nonce: str
    """Random, so that the hash of an entry that is not shown does not betray what it says."""
    body: dict[str, Any]
    previous: str
    hash: str

    def to_line(self) -> bytes:
        """The line of the log, its end included."""
        return canonical(self.model_dump()) + b"\n"

    @property
    def digest(self) -> str:
        """What its hash must be."""
        return hashlib.sha256(canonical(self.model_dump(exclude={"hash"}))).hexdigest()


@dataclass(frozen=True)
class Head:
    """Where a log ends: published, it shows a later cut or rewriting."""

    n: int
    """Number of entries."""
    hash: str
    """Of the last entry; zeros for an empty log."""

    def __str__(self) -> str:
        return f"{self.n}:{self.hash}"

    @staticmethod
    def parse(text: str) -> Head:
        """A head as it is printed.

        Raises
        ------
        InvalidSetting
            If it is not NUMBER:HASH.
        """
        number, _, hash = text.strip().partition(":")
        if not (number.isascii() and number.isdigit() and len(hash) == 64 and set(hash) <= set("0123456789abcdef")):
            raise InvalidSetting("head", text, "Give it as seamark audit head prints it, NUMBER:HASH with 64 hexadecimal digits.")
        if (int(number) == 0) != (hash == NO_HASH):
            raise InvalidSetting(
                "head", text, "The head of a log without entries, and no other, has a hash of 64 zeros: as seamark audit head prints it."
            )
        return Head(int(number), hash)


@dataclass(frozen=True)
class Verification:
    """What reading a log found."""

    entries: tuple[Entry, ...]
    """Those before the first problem: the part that can be relied on."""
    problem: Literal["edited", "removed", "reordered", "added", "rewritten", "torn", "truncated"] | None = None
    """The first thing that is wrong; None where the log is whole."""
    place: int | None = None
    """Number of the line with the problem, from 0, which is the seq that its entry should have."""
    message: str = ""
    """The problem in a sentence."""
    torn: bytes = b""
    """The end of the file after the last whole line: an append that never finished."""

    @property
    def ok(self) -> bool:
        return self.problem is None

    @property
    def head(self) -> Head:
        return Head(len(self.entries), self.entries[-1].hash if self.entries else NO_HASH)


def canonical(value: object) -> bytes:
    """The one way of writing a JSON value, in bytes, so that equal content has equal hashes.

    Raises
    ------
    ValueError, TypeError
        If it is not JSON: a number that is not finite, text that UTF-8 does not hold, another type.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def hash_of(value: object) -> str:
    """SHA-256 of a JSON value in canonical form, in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()


# ---------------------------------------------------------------------------------------------- writing


def append(path: str | Path, kind: str, body: Mapping[str, Any], *, actor: str, once: bool = False) -> Entry:
    """Append one entry and return it; when this returns, the entry is on the disk.

    Processes take turns by a lock on the file (POSIX `flock`: on one machine, or a file system that shares it). An entry is one write
    followed by fsync; one that a crash tore in two was never acknowledged, and the next append moves what is left of it into an entry
    of kind repair. (What is cut off at the end of a line leaves no trace: see the module's first page.)

    Parameters
    ----------
    kind, body : a kind of `KINDS`, and JSON values with at least what the kind asks for.
    actor : who answers for it.
    once : where this actor has an entry that says the same, nothing is appended, and that one is returned. The whole log is read for it.

    Raises
    ------
    InvalidSetting
        If the kind is unknown, the body lacks something or is not JSON, or nobody is named.
    BrokenLog
        If the last entry of the log is not whole or was changed. All others are looked at with `once` alone, so that an append costs the
        same however long the log: ask `require_appendable` first where that does not matter, as the command line does.
    """
    _require_entry(kind, body, actor)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, write=True) as file:
        if once:
            found = verify_lines(_content(file))
            if found.problem not in (None, "torn"):
                raise BrokenLog(str(path), found.message)
            same = [e for e in found.entries if (e.kind, e.actor, e.body) == (kind, actor, dict(body))]
            if same:
                return same[-1]
        last, torn = _last_entry(file, path)
        if torn:
            os.ftruncate(file, os.fstat(file).st_size - len(torn))
            last = _write(file, last, "repair", {"torn": torn.decode("utf-8", "backslashreplace")}, "seamark")
        return _write(file, last, kind, body, actor)


def append_charter(path: str | Path, charter: Charter, *, actor: str) -> Entry:
    """Append a charter, whole and with its hash: its population file, too, where it names one.

    Raises
    ------
    InvalidCharter
        If its population file is not there.
    """
    body: dict[str, Any] = {
        "hash": charter.hash,
        "title": charter.title,
        "version": charter.version,
        "authors": list(charter.authors),
        "toml": charter.to_toml(),
    }
    if (content := charter.target_bytes()) is not None:
        body["target"] = {"name": charter.electorate.target, "sha256": hashlib.sha256(content).hexdigest(), **_as_text(content)}
    return append(path, "charter", body, actor=actor)


def require_appendable(path: str | Path, *, actor: str) -> None:
    """Nothing, where this actor can append to the log at `path`, a new one or one that is whole: to be asked before long work.

    An append that never finished is let pass: the next one moves it into an entry of its own.

    Raises
    ------
    InvalidSetting
        If nobody is named.
    UnwritableOutput
        If it cannot be written to.
    BrokenLog
        If it is not whole.
    """
    try:
        canonical(actor)
    except ValueError:
        raise InvalidSetting("actor", actor, "Give a name that can be written down in UTF-8.") from None
    if not actor.strip():
        raise InvalidSetting("actor", actor, "Name who answers for this entry.")
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UnwritableOutput(str(path), "it is not a file", "Give the path of a log, such as decisions.jsonl.")
    if not path.exists():
        require_file_place(path)
        return
    try:
        os.close(os.open(path, os.O_RDWR | os.O_APPEND))
    except OSError as error:
        raise UnwritableOutput(str(path), error.strerror or str(error), "Give a log that you may read and write.") from None
    read(path)


def _as_text(content: bytes) -> dict[str, str]:
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:  # Parquet
        return {"base64": base64.b64encode(content).decode()}


def problem_with(kind: str, body: Mapping[str, Any]) -> str:
    """Why a body does not go with its kind, and how it does, without the last full stop; empty where it does."""
    if missing := [name for name in KINDS[kind] if name not in body]:
        return f"An entry of kind {kind} also says {', '.join(missing)}"
    try:
        if kind in _BODIES:
            _BODIES[kind].model_validate(dict(body))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        return f"In an entry of kind {kind}, {name} is {body[name]!r}. {_WRITTEN[name]}"
    return ""


def _require_entry(kind: str, body: Mapping[str, Any], actor: str) -> None:
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0)
        raise InvalidSetting("kind", kind, f"The nearest known kind is {near[0]}; all are {', '.join(KINDS)}.")
    if problem := problem_with(kind, body):
        raise InvalidSetting("body", dict(body), f"{problem}.")
    if not actor.strip():
        raise InvalidSetting("actor", actor, "Name who answers for this entry.")
    try:
        again = json.loads(canonical([actor, dict(body)]))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidSetting("body", dict(body), f"It is not JSON that can be written down ({error}).") from None
    if again != [actor, dict(body)]:
        raise InvalidSetting("body", dict(body), "It does not read back equal from JSON: use text for keys, and lists for sequences.")


def _write(file: int, last: Entry | None, kind: str, body: Mapping[str, Any], actor: str) -> Entry:
    """The entry after `last`, written and on the disk."""
    blank = Entry(
        seq=last.seq + 1 if last else 0, time=datetime.now(UTC).isoformat(), kind=kind, actor=actor, nonce=secrets.token_hex(16), body=dict(body),
        previous=last.hash if last else NO_HASH, hash="",
    )  # fmt: skip
    entry = blank.model_copy(update={"hash": blank.digest})
    rest = memoryview(entry.to_line())
    while rest:  # a full disk or a signal may stop a write early
        rest = rest[os.write(file, rest) :]
    os.fsync(file)
    return entry


@contextmanager
def _locked(path: Path, *, write: bool) -> Generator[int]:
    """The file, open and locked; the lock goes with the process, however it ends."""
    import fcntl  # not on every system: those that only read data need not have it

    fresh = write and not path.exists()
    file = os.open(path, (os.O_RDWR | os.O_APPEND | os.O_CREAT) if write else os.O_RDONLY, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
        if fresh:  # the file's name is on the disk too, before anything in it is acknowledged
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        yield file
    finally:
        os.close(file)


def _content(file: int) -> bytes:
    """All bytes of a file that was opened just now."""
    pieces: list[bytes] = []
    while piece := os.read(file, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def _last_entry(file: int, path: Path) -> tuple[Entry | None, bytes]:
    """The last whole entry, and what stands after it; read from the end, so that an append costs the same however long the log."""
    size = os.fstat(file).st_size
    tail, start = b"", size
    while start > 0 and tail.count(b"\n") < 2:
        step = min(1 << 16, start)
        start -= step
        tail = os.pread(file, step, start) + tail
    *whole, torn = tail.split(b"\n")
    if not whole:
        return None, torn
    entry = _parse(whole[-1] + b"\n")
    if entry is None:
        raise BrokenLog(str(path), f"its last line is not an entry as it was written ({whole[-1][:60]!r})")
    return entry, torn


def _parse(line: bytes) -> Entry | None:
    """The entry of a line; None where a byte of it is not as it was written."""
    try:
        entry = Entry.model_validate(json.loads(line))
        written = entry.to_line()
    except (ValueError, ValidationError, RecursionError):
        return None
    # the line must be the canonical form: else blanks, repeated keys or escapes could be changed unseen
    return entry if written == line and entry.digest == entry.hash else None


# ---------------------------------------------------------------------------------------------- reading


def read(path: str | Path) -> tuple[Entry, ...]:
    """All entries of a log that is whole.

    Raises
    ------
    UnreadableSource
        If there is no such file.
    BrokenLog
        If it is not whole; an append that never finished is let pass.
    """
    found = verify(path)
    if not found.ok and found.problem != "torn":
        raise BrokenLog(str(path), found.message)
    return found.entries


def verify(path: str | Path, *, head: Head | None = None) -> Verification:
    """Whether a log is as it was written, and the first place where it is not.

    Parameters
    ----------
    head : as published earlier; without it a log whose end was cut off, or that was written anew from some place on, looks whole.

    Raises
    ------
    UnreadableSource
        If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableSource(str(path), "there is no such log", "Give the path of a log that seamark audit append wrote.")
    with _locked(path, write=False) as file:  # an append under way is waited for, not taken for a torn one
        content = _content(file)
    found = verify_lines(content)
    return _against(found, head) if head is not None else found


def verify_lines(content: bytes) -> Verification:
    """`verify` of the bytes of a log."""
    *lines, torn = content.split(b"\n")
    entries: list[Entry] = []
    for place, line in enumerate(lines):
        entry = _parse(line + b"\n")
        last = entries[-1].hash if entries else NO_HASH
        if entry is None:
            return Verification(
                tuple(entries),
                "edited",
                place,
                f"entry {place} was edited: the line does not match its hash, or is not written as entries are",
            )
        if entry.seq != place:
            later = (_parse(other + b"\n") for other in lines[place + 1 :])
            if any(other is not None and other.seq == place for other in later):
                return Verification(
                    tuple(entries), "reordered", place, f"entry {entry.seq} stands where entry {place} should: entries were moved"
                )
            if entry.seq > place:
                gone = f"entry {place} is" if entry.seq == place + 1 else f"entries {place} to {entry.seq - 1} are"
                return Verification(tuple(entries), "removed", place, f"{gone} missing: entry {entry.seq} stands there")
            return Verification(tuple(entries), "added", place, f"an entry that calls itself {entry.seq} stands where entry {place} should")
        if entry.previous != last:
            what = "it follows an entry with another hash" if place else "it follows an entry that is not there"
            return Verification(tuple(entries), "rewritten", place, f"entry {place} was rewritten, or the one before it was: {what}")
        entries.append(entry)
    if torn:
        said = f"after {len(entries)} whole entries there are {len(torn)} bytes of one that was never finished ({torn[:60]!r})"
        return Verification(tuple(entries), "torn", len(entries), said, torn)
    return Verification(tuple(entries))


def _against(found: Verification, head: Head) -> Verification:
    """The same, with the published head taken into account."""
    at = Head(head.n, found.entries[head.n - 1].hash if head.n else NO_HASH) if head.n <= len(found.entries) else None
    if at == head or (found.problem not in (None, "torn") and at is None):
        return found
    if at is None:
        n = len(found.entries)
        said = f"the log ends after {n} entries; the published head has {head.n}: the end was cut off"
        return Verification(found.entries, "truncated", n, said, found.torn)
    said = f"entry {head.n - 1} is not the one whose hash was published: the log was written anew"
    return Verification(found.entries[: head.n - 1], "rewritten", head.n - 1, said)


# ---------------------------------------------------------------------------------------------- for an auditor


def export_audit(path: str | Path, out: str | Path, *, access: Sequence[Access], withheld: Sequence[str] = ()) -> Head:
    """Write a folder for an auditor: the log, a folder per charter with its population file, and what the auditor is given access to.

    Log and charters are held together by the log's own hashes. `access` and `withheld` are the word of whoever exports: nothing protects them.

    Parameters
    ----------
    access : the levels of access that come with it (see `seamark.governance.access`).
    withheld : what the auditor is not given, in words.

    Raises
    ------
    BrokenLog
        If the log is not whole: then the file itself is the evidence, and an export would hide that.
    InvalidSetting
        If a level of access is unknown, or `out` is a folder of something else.
    """
    from seamark.checks.findings import ACCESS  # with all that the checks import, which an append has no need of

    if unknown := [level for level in access if level not in ACCESS]:
        raise InvalidSetting("access", unknown[0], f"Use {', '.join(ACCESS)}.")
    found = verify(path)
    if not found.ok:
        raise BrokenLog(str(path), found.message)
    files = {"log.jsonl": b"".join(entry.to_line() for entry in found.entries)}
    for entry in found.entries:
        files |= _charter_files(entry)
    manifest = {
        "seamark": "audit", "version": 1, "head": str(found.head), "access": list(access), "withheld": list(withheld),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }  # fmt: skip
    with whole_folder(out, mark=_MARK) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        (folder / _MARK).write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return found.head


def verify_export(folder: str | Path) -> tuple[str, ...]:
    """What is wrong with a folder that `export_audit` wrote, a sentence each; nothing where it is whole.

    The log is held against its own hashes, and the charters against the log. The head, access and what is withheld stand in the manifest
    as whoever wrote it says: hold the head against the one that was published.

    Raises
    ------
    UnreadableSource
        If the folder is no such export.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / _MARK).read_text(encoding="utf-8"))
        files: dict[str, str] = {str(name): str(hash) for name, hash in manifest["files"].items()}
        head = Head.parse(manifest["head"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableSource(str(folder), f"not an audit folder ({error})", "Write one with seamark audit export.") from None
    wrong: list[str] = []
    for name, hash in files.items():
        place = folder / name
        if not place.is_file():
            wrong.append(f"{name} is missing")
        elif hashlib.sha256(place.read_bytes()).hexdigest() != hash:
            wrong.append(f"{name} does not match its hash")
    wrong += [f"{name} is not in the manifest" for name in _names(folder) if name not in files]
    if not (folder / "log.jsonl").is_file():
        return tuple(wrong if "log.jsonl" in files else [*wrong, "log.jsonl is missing"])
    found = verify(folder / "log.jsonl", head=head)
    wrong += [] if found.ok else [f"log.jsonl: {found.message}"]
    of_log = {name: content for entry in found.entries for name, content in _charter_files(entry).items()}
    there = {name for name in _names(folder) if name.startswith("charters/")}
    for name in sorted({*of_log, *there}):
        if name not in there:
            wrong += [] if name in files else [f"{name} is missing"]
        elif of_log.get(name) != (folder / name).read_bytes():
            wrong.append(f"{name} is not what the log has")
    wrong += [f"charter of entry {e.seq} does not have the hash that it states" for e in found.entries if _unlike(e, folder)]
    return tuple(wrong)


def _names(folder: Path) -> Iterable[str]:
    return sorted(name for p in folder.rglob("*") if p.is_file() and (name := p.relative_to(folder).as_posix()) != _MARK)


def _charter_files(entry: Entry) -> dict[str, bytes]:
    """The files of a charter in the log, by their names in an export; none of an entry of another kind."""
    if entry.kind != "charter":
        return {}
    place, text = f"charters/{entry.seq:06d}", str(entry.body["toml"])
    files = {f"{place}/charter.toml": text.encode()}
    target = entry.body.get("target")
    if not isinstance(target, dict):
        return files
    try:
        # a path in the log could lead anywhere: the name is the one that the charter itself gives, which has no folder
        from seamark.aggregation.charter import Charter

        name = Charter.model_validate(tomllib.loads(text)).electorate.target
        content = base64.b64decode(target["base64"], validate=True) if "base64" in target else str(target["text"]).encode()
    except (ValueError, TypeError, KeyError):
        return files
    return {f"{place}/{name}": content} | files if name else files


def _unlike(entry: Entry, folder: Path) -> bool:
    """Whether a charter entry states another hash than its files in the export have."""
    if entry.kind != "charter":
        return False
    from seamark.aggregation.charter import Charter

    try:
        return Charter.from_toml(folder / f"charters/{entry.seq:06d}/charter.toml").hash != entry.body["hash"]
    except SeamarkError:
        return True
