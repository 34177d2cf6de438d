"""What every finding must keep to when it speaks."""

from __future__ import annotations

import re

from seamark.checks.findings import Finding

NOUNS = "judgment|response|prompt|rater|question|pair|comparison|record|triple|feature|group|iteration|note"
ONE_OF_MANY = re.compile(rf"(?<![\d,.–-])1 (?:[a-z-]+ )?(?:{NOUNS})s\b")
NONE_OF_NONE = re.compile(r"\b\d[\d,]* (?:of|of the) 0\b")
SMALL_START = re.compile(r"[.!?] (?!n counts)[a-z]")


def assert_written(finding: Finding) -> None:
    """Whole sentences with a capital and a full stop; one of a thing is not many, and nothing is not counted out of nothing."""
    for text in (finding.title, finding.reason or "X."):
        assert re.match(r"[A-Z0-9`-]|n counts", text), (finding.code, text)
        assert text.endswith("."), (finding.code, text)
        for wrong in (ONE_OF_MANY, NONE_OF_NONE, SMALL_START):
            assert not wrong.search(text), (finding.code, text, wrong.pattern)
