"""Data sets of the Hugging Face hub, as a local folder. The library is imported on use: most sources are files."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from seamark.errors import MissingExtra, UnreadableSource
from seamark.sources.files import TABLE_SUFFIXES

SCHEME = "hf://"
_NAME = re.compile(r"(?:datasets/)?([\w.-]+/[\w.-]+)(?::([\w.-]+))?")


def download(name: str) -> tuple[Path, str | None]:
    """The local folder of a data set, "hf://owner/name" or "hf://owner/name:split", and the split wanted.

    Raises
    ------
    MissingExtra
        Without huggingface_hub.
    UnreadableSource
        If there is no such data set, or no network.
    """
    found = _NAME.fullmatch(name.removeprefix(SCHEME))
    if found is None:
        raise UnreadableSource(name, "this does not name a data set", "Write hf://owner/name or hf://owner/name:split.")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError:
        raise MissingExtra("hub", "Reading from the Hugging Face hub") from None
    patterns = [f"*{suffix}{packed}" for suffix in TABLE_SUFFIXES for packed in ("", ".gz")]
    try:
        folder = hub.snapshot_download(found[1], repo_type="dataset", allow_patterns=patterns)
    except (OSError, ValueError) as error:
        raise UnreadableSource(
            name, f"it cannot be downloaded ({error})", "Check the name, the network and that you are logged in."
        ) from None
    return Path(folder), found[2]
