"""Outputs that are there whole or not at all: written beside their place, then moved into it.

A reader never sees half a file, and a run that fails leaves what was there before. A folder may take the place of one that holds
the same kind of thing, told by its `mark` (the file that every such folder has), and of an empty one; of nothing else.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from seamark.errors import InvalidSetting, UnwritableOutput


def require_file_place(path: str | Path) -> None:
    """Nothing, where a file can be written at `path`: to be asked before long work.

    Raises
    ------
    UnwritableOutput
        If `path` is a folder, or its folder cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise UnwritableOutput(str(path), "it is a folder", "Give the name of a file.")
    if not _is_device(path):
        _require_writable(path)


def require_folder_place(path: str | Path, *, mark: str, owned: Collection[str] | None = None) -> None:
    """Nothing, where a folder marked by the file `mark` can be written at `path`: to be asked before long work.

    `owned` are the files (with their subfolders) that such a folder has: where it is given, a folder with others is not replaced.

    Raises
    ------
    InvalidSetting
        If `path` holds something else.
    UnwritableOutput
        If the folder that `path` is in cannot be written to.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()) and not (path / mark).is_file():
        raise InvalidSetting("output", str(path), f"It is a folder without a {mark}, so it is not replaced; give a new folder.")
    if path.exists() and not path.is_dir():
        raise InvalidSetting("output", str(path), "It is a file; give a new folder.")
    if owned is not None and path.is_dir():
        foreign = sorted(name for p in path.rglob("*") if p.is_file() and (name := p.relative_to(path).as_posix()) not in owned)
        if foreign:
            named = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
            raise InvalidSetting("output", str(path), f"It also holds {named}, which would be lost; move that, or give a new folder.")
    _require_writable(path)


@contextmanager
def whole_file(path: str | Path) -> Generator[Path]:
    """A path to write to. What is there when the block ends becomes `path`; when the block fails, nothing does.

    A device or pipe, such as /dev/stdout, is written to directly.

    Raises
    ------
    UnwritableOutput
        If it cannot be written.
    """
    require_file_place(path)
    if _is_device(Path(path)):
        yield Path(path)
        return
    place = Path(path).resolve()  # a link stays a link, to the new file
    with _beside(place, str(path)) as fresh:
        yield fresh
        os.replace(fresh, place)


@contextmanager
def whole_folder(path: str | Path, *, mark: str, owned: Collection[str] | None = None) -> Generator[Path]:
    """An empty folder to fill. When the block ends it becomes `path`, in place of what `require_folder_place` allows.

    Raises
    ------
    InvalidSetting, UnwritableOutput
        As `require_folder_place`.
    """
    require_folder_place(path, mark=mark, owned=owned)
    place = Path(path).resolve()
    with _beside(place, str(path)) as fresh:
        fresh.mkdir()
        yield fresh
        if place.exists():
            os.replace(place, fresh.parent / "previous")
        os.replace(fresh, place)


@contextmanager
def fresh_files(folder: Path, *, last: str) -> Generator[Path]:
    """A folder to fill, whose files become those of `folder` when the block ends, `last` after all others: it says that they are whole."""
    with _beside(folder.resolve(), str(folder)) as fresh:
        fresh.mkdir()
        yield fresh
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(fresh.iterdir(), key=lambda p: p.name == last):
            os.replace(path, folder / path.name)


def _is_device(path: Path) -> bool:
    """Whether something is there that cannot be replaced: a pipe, a terminal, /dev/null."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _require_writable(path: Path) -> None:
    """Try it, on the nearest folder that exists: permissions alone do not say, for the superuser or on a read-only disk."""
    place = path.resolve().parent
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".seamark."):
            pass
    except OSError as error:
        raise _refused(str(path), error) from None


@contextmanager
def _beside(place: Path, name: str) -> Generator[Path]:
    """A path in a temporary folder on the same disk as `place`, so that moving it there is one step."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name[:40]}.") as temporary:
            yield Path(temporary) / "new"
    except UnwritableOutput as inner:  # of a file inside the folder, whose temporary name means nothing to the user
        raise UnwritableOutput(name, inner.problem, inner.remedy) from inner
    except OSError as error:
        raise _refused(name, error) from error


def _refused(name: str, error: OSError) -> UnwritableOutput:
    return UnwritableOutput(name, error.strerror or str(error), "Give a path in a folder that you may write to, on a disk with room.")
