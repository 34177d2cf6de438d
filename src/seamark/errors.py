"""What can go wrong, each with its own message: what was wrong, the place and value, what to do."""

from __future__ import annotations

from typing import Any


class SeamarkError(Exception):
    """Base of every error a user can cause; the command line prints it and exits 2."""


class UnreadableSource(SeamarkError):
    """The source as a whole cannot be read."""

    def __init__(self, source: str, problem: str, remedy: str) -> None:
        super().__init__(f"{source}: {problem}. {remedy}")
        self.source, self.problem, self.remedy = source, problem, remedy


class InvalidRecord(SeamarkError):
    """One record cannot be understood."""

    WHOLE = "record"
    """In place of a field's name, where the record as a whole is wrong."""

    def __init__(self, source: str, line: int | None, field: str, value: Any, remedy: str) -> None:
        place = f"{source}, line {line}" if line is not None else source
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        said = shown if field == self.WHOLE else f"field '{field}' is {shown}"
        super().__init__(f"{place}: {said}. {remedy}")
        self.source, self.line, self.field, self.value, self.remedy = source, line, field, value, remedy


class NotIdentified(SeamarkError):
    """The comparisons do not tie the responses together, so their utilities have no common zero."""

    def __init__(self, parts: list[str], remedy: str) -> None:
        shown = "; ".join(parts[:3]) + (f"; and {len(parts) - 3} more" if len(parts) > 3 else "")
        super().__init__(f"the comparison graph is cut: no judgment connects {shown}. {remedy}")
        self.parts = parts


class NotConverged(SeamarkError):
    """The fit stopped before its first-order condition held."""

    def __init__(self, iterations: int, decrement: float, tolerance: float) -> None:
        super().__init__(
            f"the fit did not converge: after {iterations} iterations the Newton decrement is {decrement:.3g}, "
            f"above {tolerance:.3g}. Raise max_iterations, or pass require_converged=False to get the fit marked as such."
        )
        self.iterations, self.decrement, self.tolerance = iterations, decrement, tolerance


class InvalidSetting(SeamarkError):
    """An argument, option or configuration value cannot be used."""

    def __init__(self, name: str, value: Any, remedy: str) -> None:
        super().__init__(f"{name} is {value!r}. {remedy}")
        self.name, self.value, self.remedy = name, value, remedy


class Expired(SeamarkError):
    """A reward is used after the date up to which its charter lets it be used."""

    def __init__(self, title: str, valid_until: str) -> None:
        super().__init__(
            f"charter {title!r} is valid until {valid_until}, which has passed. Fit current feedback and sign a new valid_until, "
            "or say where it is exported or scored that this is meant (allow_expired=True, seamark export --allow-expired)."
        )
        self.valid_until = valid_until


class UnwritableOutput(SeamarkError):
    """A result cannot be written where it was asked for."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: cannot be written ({problem}). {remedy}")
        self.path, self.problem, self.remedy = path, problem, remedy


class MissingExtra(SeamarkError):
    """An optional dependency is needed and not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs an optional part of Seamark. Install it with: pip install 'seamark[{extra}]'")
        self.extra = extra
