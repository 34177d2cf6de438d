r"""HH-RLHF: chosen and rejected as whole dialogues ("\n\nHuman: ...\n\nAssistant: ..."), or as a prompt and two responses.

The layout puts the preferred dialogue first, so the order shown is not known.
Source: Bai et al. 2022; github.com/anthropics/hh-rlhf.
"""

from __future__ import annotations

from collections.abc import Sequence

from seamark.sources.fields import Row, WrongField, has, record_format, text, word
from seamark.sources.files import Record

_ASSISTANT = "\n\nAssistant:"


def _fits(record: Record) -> bool:
    if has(record, "chosen_response", "rejected_response", "prompt"):
        return True
    both = (record.get("chosen"), record.get("rejected"))
    return "prompt" not in record and all(isinstance(v, str) and v.lstrip().startswith("Human:") and _ASSISTANT in v for v in both)


def _rows(record: Record) -> Sequence[Row]:
    if "chosen_response" in record:
        prompt, chosen, rejected = text(record, "prompt"), text(record, "chosen_response"), text(record, "rejected_response")
    else:
        prompt, chosen, rejected = split_dialogues(text(record, "chosen"), text(record, "rejected"))
    row: Row = {"kind": "pair", "prompt": prompt, "texts": [chosen, rejected], "outcome": "left", "order_known": False}
    return [row | {"id": word(record, "pair_id")}]


def split_dialogues(chosen: str, rejected: str) -> tuple[str, str, str]:
    r"""Prompt (all turns before the last Assistant marker that both share) and the two responses, without that marker.

    >>> split_dialogues("\n\nHuman: Hi\n\nAssistant: Hello.", "\n\nHuman: Hi\n\nAssistant: Hey!")
    ('\n\nHuman: Hi', 'Hello.', 'Hey!')
    """
    cut = chosen.rfind(_ASSISTANT)
    while cut >= 0 and not rejected.startswith(chosen[: cut + len(_ASSISTANT)]):
        cut = chosen.rfind(_ASSISTANT, 0, cut)
    if cut < 0:
        raise WrongField("rejected", rejected, f"The two dialogues share no {_ASSISTANT.strip()!r} turn that could end the prompt.")
    start = cut + len(_ASSISTANT)
    return chosen[:cut], chosen[start:].strip(), rejected[start:].strip()


FORMAT = record_format(
    "hh-rlhf",
    "pairs of dialogues 'chosen' and 'rejected', with Human and Assistant turns in the text",
    fits=_fits,
    rows=_rows,
)
