"""ConvAbuse: how abusive a user's turn towards a chatbot is, judged by experts.

Read are the wide CSV of github.com/amandacurry/convabuse (a block of 17 columns per annotator, "1, 0" in a cell where one judged
twice) and its Parquet form (judgments, units). The response is the user's turn, the prompt the three turns before it. A judgment
gives a rating on the axis "severity" (1 not abusive, 0 ambiguous, -1 to -3 mildly to very strongly abusive) and a label for each
type, target and direction that was ticked; what was not ticked gives none.
The blocks are told by their first column: in the published header the last ones carry a wrong name.
Source: Cercas Curry, Abercrombie & Rieser, EMNLP 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from seamark.errors import UnreadableSource
from seamark.sources.fields import Row, WrongField, flag, has, message_prompt, needed_word, number, read_rows, text, word
from seamark.sources.files import Format, Options, Record, Source

_SEVERITIES = (1, 0, -1, -2, -3)
_TICKS = (
    ("type", "ableism"),
    ("type", "homophobic"),
    ("type", "intellectual"),
    ("type", "racist"),
    ("type", "sexist"),
    ("type", "sex_harassment"),
    ("type", "transphobic"),
    ("target", "generalised"),
    ("target", "individual"),
    ("target", "system"),
    ("direction", "explicit"),
    ("direction", "implicit"),
)
"""Axis and label, in the order of the columns of a block."""
_BLOCK = len(_SEVERITIES) + len(_TICKS)
_FIRST = "_is_abuse.1"


def _is_wide(record: Record) -> bool:
    return has(record, "prev_agent", "prev_user", "agent", "user", f"Annotator1{_FIRST}")


def _is_normalised(source: Source) -> bool:
    return (
        {"judgments", "units"} <= set(source.tables)
        and has(source.tables["judgments"].sample[0], "unit_id", "annotator_id", "severity")
        and has(source.tables["units"].sample[0], "unit_id", "prev_agent", "prev_user", "agent", "user")
    )


def _matches(source: Source) -> bool:
    return _is_normalised(source) or any(_is_wide(t.sample[0]) for t in source.tables.values())


def _read(source: Source, options: Options) -> Iterator[Mapping[str, Sequence[Any]]]:
    if _is_normalised(source):
        units = {str(r["unit_id"]): r for records, _ in source.tables["units"].batches() for r in records}
        numbers = count(1)

        def judged(record: Record) -> Sequence[Row]:
            name = needed_word(record, "unit_id")
            if name not in units:
                raise WrongField("unit_id", name, "There is no such row in units.")
            ticked = [(axis, label) for axis, label in _TICKS if flag(record, f"{axis}.{label}")]
            return _rows(_shown(units[name]), needed_word(record, "annotator_id"), number(record, "severity"), ticked, f"{next(numbers)}")

        yield from read_rows([source.tables["judgments"]], options, judged)
        return
    tables = [t for t in source.tables.values() if _is_wide(t.sample[0])]
    if not tables:
        raise UnreadableSource(
            str(source.path), "this is not ConvAbuse", "Its columns are prev_agent, prev_user, agent, user and the annotators'."
        )
    yield from read_rows(tables, options, _wide_rows)


def _wide_rows(record: Record) -> Sequence[Row]:
    names = list(record)
    shown, rows = _shown(record), list[Row]()
    for first in (i for i, name in enumerate(names) if name.endswith(_FIRST)):
        block = names[first : first + _BLOCK]
        annotator = block[0].removesuffix(_FIRST)
        # an annotator who met the snippet twice has both answers in the cell
        cells = [text(record, name).split(",") if record[name] != "" else [] for name in block]
        for k in range(len(cells[0])):
            answers = [{name: cell[k].strip() if k < len(cell) else ""} for name, cell in zip(block, cells, strict=True)]
            flags = [flag(answer, name) for answer, name in zip(answers, block, strict=True)]
            ticked = [what for what, is_ticked in zip(_TICKS, flags[len(_SEVERITIES) :], strict=True) if is_ticked]
            severities = [level for level, is_set in zip(_SEVERITIES, flags, strict=False) if is_set]
            if len(severities) != 1:
                raise WrongField(block[0], record[block[0]], "Exactly one of the five levels of is_abuse is 1.")
            rows += _rows(shown, annotator, severities[0], ticked, f"{word(record, 'example_id')}/{annotator}/{k + 1}")
    return rows


def _shown(record: Record) -> Row:
    turns = [("assistant", "prev_agent"), ("user", "prev_user"), ("assistant", "agent")]
    prompt = message_prompt([{"role": role, "content": text(record, name)} for role, name in turns])
    bot = word(record, "bot")
    return prompt | {"texts": [text(record, "user")], "provenance": bot and f"bot:{bot}"}


def _rows(shown: Row, annotator: str, severity: float | None, ticked: Sequence[tuple[str, str]], name: str) -> list[Row]:
    shared = shown | {"rater": annotator, "rater_kind": "person"}
    scale = {"scale_low": -3.0, "scale_high": 1.0}
    rows = [shared | scale | {"id": name, "kind": "rating", "axis": "severity", "rating": severity}]
    return rows + [shared | {"id": f"{name}/{label}", "kind": "label", "axis": axis, "label": label} for axis, label in ticked]


FORMAT = Format("convabuse", "ConvAbuse: severity, type and target of abuse of chatbots (CSV, or its tables)", _matches, _read)
