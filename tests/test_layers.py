"""Who imports whom: the arrows of the house, one file for each heavy library, and a budget for `import seamark`."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "seamark"
FILES = sorted(SOURCE.rglob("*.py"))

# from the ground up; a room imports only from rows below its own, or from its own room
ROWS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("outputs", "encoding", "progress"),
    ("columns", "intervals"),
    ("arrays",),
    ("records",),
    ("sources", "store", "simulation", "models"),
    ("aggregation",),
    ("reward",),
    ("checks",),
    ("governance",),
    ("rendering", "elicit"),
    ("study",),
    ("cli",),
    ("__init__", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(ROWS) for room in rooms}

MODELS: tuple[tuple[str, ...], ...] = (
    ("walks", "threads", "privacy", "weighting"),
    ("features", "labels", "network", "effects", "people", "conversations"),
    ("observation", "trees", "heads"),
    ("checkpoint",),
    ("utility", "design", "terms", "targets", "coverage"),
    ("shifts", "distributional", "edges"),
    ("likelihood",),
    ("curvature", "slopes"),
    ("result",),
    ("posterior", "problem"),
    ("search",),
    ("objective",),
    ("training",),
    ("fitting",),
    ("prediction", "resampling", "label_quality"),
    ("influence",),
    ("__init__",),
)

CLI: tuple[tuple[str, ...], ...] = (
    ("options", "printing"),
    ("steps", "checks", "people", "governance", "catalogues"),
    ("program",),
    ("__init__",),
)
INSIDE = {
    room: {name: level for level, names in enumerate(rows) for name in names} for room, rows in {"models": MODELS, "cli": CLI}.items()
}
"""Rooms with rows of their own: their modules import from rows below."""

LANGUAGE_MODELS = ("network", "checkpoint", "training")
"""Files of models/ that know transformers."""
ON_TORCH = ("trees", "heads", "training")
"""Files of models/ that are torch throughout, and that nothing imports before a language model is trained."""
ONE_FILE_EACH = ("trl", "sqlalchemy", "fastapi", "httpx", "ray", "altair")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _roots(path: Path) -> frozenset[str]:
    """The packages that a file imports anywhere."""
    return frozenset(name.split(".")[0] for name in _imports(_tree(path)))


def _imports(tree: ast.AST, *, top_only: bool = False) -> Iterator[str]:
    """Full names of the modules imported, also inside functions; with `top_only`, what runs when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
        skipped = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        if not (top_only and skipped):
            yield from _imports(node, top_only=top_only)


def _module(path: Path) -> tuple[str, ...]:
    return path.relative_to(SOURCE).with_suffix("").parts


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(_module(p)))
def test_arrows_point_downwards(path: Path) -> None:
    here = _module(path)
    for name in _imports(_tree(path)):
        target = tuple(name.split(".")[1:])
        if name.split(".")[0] != "seamark":
            continue
        assert target, f"{here} imports the whole package"
        assert target[0] in LEVEL, f"{target[0]} has no place in the house: give it one here and in the architecture"
        if target[0] == here[0]:
            if (rows := INSIDE.get(here[0])) and len(target) > 1:
                assert rows[target[1]] < rows[here[1]], f"{here[0]}.{here[1]} imports {here[0]}.{target[1]}"
        else:
            assert LEVEL[target[0]] < LEVEL[here[0]], f"{'.'.join(here)} imports {name}"


def test_every_room_has_a_place() -> None:
    assert {_module(path)[0] for path in FILES} <= set(LEVEL)
    for room, rows in INSIDE.items():
        assert {_module(path)[1] for path in FILES if _module(path)[0] == room} == set(rows)


def test_the_walk_sees_lazy_imports_and_skips_type_checking() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    import torch\ndef f():\n    from seamark.cli import app\nclass A:\n    import trl")
    assert set(_imports(tree)) == {"torch", "seamark.cli", "trl"}
    assert set(_imports(tree, top_only=True)) == {"trl"}


@pytest.mark.parametrize("library", ONE_FILE_EACH)
def test_one_file_each(library: str) -> None:
    used = [path for path in FILES if library in _roots(path)]
    assert len(used) <= 1, used


def test_transformers_where_language_models_are() -> None:
    for path in FILES:
        if "transformers" in _roots(path):
            assert _module(path)[0] == "models", path
            assert _module(path)[1] in LANGUAGE_MODELS, path


def test_torch_only_in_models_and_reward_and_never_at_import() -> None:
    heavy = {f"seamark.models.{name}" for name in ON_TORCH}
    for path in FILES:
        here = _module(path)
        if "torch" in _roots(path):
            assert here[0] in ("models", "reward"), path
        if here[0] != "models" or here[-1] not in ON_TORCH:
            at_import = set(_imports(_tree(path), top_only=True))
            assert not {name for name in at_import if name.split(".")[0] == "torch" or name in heavy}, path


def test_no_module_and_function_share_a_name() -> None:
    """With `fit.py` exporting `fit`, `import pkg.fit as m` would yield the function."""
    import seamark

    assert not {_module(path)[-1] for path in FILES} & (set(seamark.__all__) - {"seamark"})


# ---------------------------------------------------------------------------------------------- what an import costs

_BUDGET = {"import": 3.0, "help": 1.4}
"""Times what cannot be done without: on a quick machine .05 s of .02 s, and .3 s of .25 s."""
_HEAVY = ("torch", "transformers", "altair", "scipy", "sklearn", "httpx")
_START = {"import": ["-c", "import seamark"], "help": ["-m", "seamark", "--help"]}
_BARE = {"import": ["-c", "pass"], "help": ["-c", "import typer.rich_utils, rich.markdown, pydantic"]}


def _python(*args: str) -> str:
    """With bytecode kept, as a user has it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=True, env=environment).stdout


def _loaded(statement: str) -> list[str]:
    """The heavy libraries that a fresh interpreter has loaded after the statement."""
    return json.loads(
        _python("-c", f"import json, sys\n{statement}\nprint(json.dumps([m for m in {_HEAVY} if m in sys.modules]))").splitlines()[-1]
    )


@pytest.mark.parametrize("name", _START)
def test_start_takes_less_than_its_budget(name: str) -> None:
    """The quickest of some starts beside the quickest of the interpreter with what the command line cannot do without: machines differ,
    and what else one does can only add to either."""
    quickest = {"ours": float("inf"), "bare": float("inf")}
    for _ in range(15):
        for which, start in (("ours", _START[name]), ("bare", _BARE[name])):
            begun = time.perf_counter()
            _python(*start)
            quickest[which] = min(quickest[which], time.perf_counter() - begun)
        if quickest["ours"] < _BUDGET[name] * quickest["bare"]:
            break
    assert quickest["ours"] < _BUDGET[name] * quickest["bare"], quickest


@pytest.mark.parametrize("statement", ["import seamark", "from seamark.cli import app; app(['--help'], standalone_mode=False)"], ids=_START)
def test_start_loads_nothing_heavy(statement: str) -> None:
    assert _loaded(statement) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import seamark; seamark.load; seamark.Feedback; seamark.simulate",
        "from seamark.checks.data import diagnose; from seamark.simulation import simulate; "
        "diagnose(simulate(n_prompts=20, n_raters=10, n_judgments=200).feedback)",
    ],
    ids=["load", "diagnose"],
)
def test_torch_is_not_imported_before_a_fit(statement: str) -> None:
    assert "torch" not in _loaded(statement)
