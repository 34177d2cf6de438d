"""The pages say what the code does: generated pages are fresh, and every name, command and finding has its place."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import seamark as sm
from seamark.checks.thresholds import THRESHOLDS
from seamark.simulation import simulate
from seamark.sources import FORMATS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SLOW_EXAMPLES = ("reward_model.py", "who_is_heard.py")
"""What they show is tested piece by piece as well."""
TESTS = sorted((ROOT / "tests").rglob("*.py"))
OURS = [
    p for folder in ("src", "tests", "docs", "examples", "benchmarks", ".ci") for p in sorted((ROOT / folder).rglob("*")) if p.is_file()
]
TEXTS = [p for p in [*OURS, *(ROOT / n for n in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "constraints.txt"))]
         if p.suffix not in (".pyc", ".png", ".gz", ".zst", ".parquet", ".safetensors")]  # fmt: skip


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generate()


@pytest.mark.parametrize("name", [name for name in GENERATE.PAGES if name != "examples.md"])
def test_page_is_fresh(name: str) -> None:
    """README.md among them: its blocks are run and what they print is compared."""
    assert (DOCS / name).read_text(encoding="utf-8") == GENERATE.PAGES[name](), f"{name} is stale: run make docs"


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=[pytest.mark.slow] if p.name in SLOW_EXAMPLES else [], id=p.name) for p in EXAMPLES]
)
def test_example_prints_what_its_page_shows(path: Path) -> None:
    shown = GENERATE.printed(path)
    assert shown
    if path.name != "mini_seamark.py":
        _, section = (DOCS / "examples.md").read_text(encoding="utf-8").split(f"](../examples/{path.name})", 1)
        section = section.partition("](../examples/")[0]
        assert f"\n```text\n{shown}\n```" in section, "examples.md is stale: run make docs"


def test_the_page_of_examples_is_fresh() -> None:
    """But for what they print, which the test above compares."""
    page = (DOCS / "examples.md").read_text(encoding="utf-8")
    silent = re.sub(r"^```text\n.*?^```", "```text\n\n```", page, flags=re.MULTILINE | re.DOTALL)
    assert silent == GENERATE.examples(lambda _: ""), "examples.md is stale: run make docs"


def test_every_public_name_is_documented() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in sm.__all__:
        assert f"\n## {name}\n" in page
        assert getattr(sm, name).__doc__, name


def test_the_names_of_every_package_are_listed() -> None:
    """What `__all__` of a package names, and what the modules that are listed by themselves define, is there with a line about it."""
    page, places = GENERATE.api(), GENERATE.places()
    assert {f"seamark.{place.name}" for place in (ROOT / "src" / "seamark").iterdir() if (place / "__init__.py").exists()} - set(
        places
    ) == {"seamark.cli"}
    assert {"seamark.governance.release", "seamark.reward.catalogue", "seamark.aggregation.quantities"} < set(places)
    for place in places:
        for name in GENERATE.public_names(import_module(place)):
            assert re.search(rf"^## {name}$|^- `{name}(\(.*\))?`: \S", page, re.MULTILINE), f"{place}.{name}"


def test_public_names_are_sorted_and_few() -> None:
    assert sm.__all__ == sorted(sm.__all__)
    assert len(sm.__all__) <= 30
    assert set(sm._HOME) == set(sm.__all__)


def test_every_command_is_documented() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    commands = GENERATE.commands()
    assert "study" in commands
    for name in commands:
        assert f"\n## seamark {name}\n" in page


def test_readme_names_only_commands_that_exist() -> None:
    used = set(re.findall(r"(?:bin/|`|\$ )seamark ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert used <= set(GENERATE.commands())
    assert len(used) >= 7


def test_readme_begins_with_the_two_commands_and_ends_with_the_page_that_explains_it() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [[line.partition("#")[0].strip() for line in block.splitlines()] for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    assert blocks[0] == ["make demo", "make test"]
    assert blocks[1][0] == "pip install ."
    assert blocks[1][1].startswith("seamark study ")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert re.findall(r"\]\(([^)]+)\)", text)[-1] == "examples/mini_seamark.py"


def test_ci_has_one_limit_over_everything(tmp_path: Path) -> None:
    """With a limit of a second, and an apt-get that takes longer than that, CI ends and says why."""
    (tmp_path / "apt-get").write_text("#!/bin/sh\nsleep 30\n", encoding="utf-8")
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    limit = int(re.findall(r"timeout --kill-after=\d+ (\d+)", text)[0])
    assert limit < 28 * 60
    (tmp_path / "run").write_text(text.replace(f" {limit} ", " 1 "), encoding="utf-8")
    for name in ("apt-get", "run"):
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / "run"], env=path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 124
    assert "stopped: it must end within 28" in done.stdout


def test_nothing_is_skipped_behind_the_back_of_ci() -> None:
    """What a machine lacks goes through the fixtures of conftest.py, which fail under SEAMARK_REQUIRE=all."""
    for path in TESTS:
        if path.name != "conftest.py" and path != Path(__file__):
            assert not re.search(r"importorskip|pytest\.skip\(", path.read_text(encoding="utf-8")), path.name


def test_every_format_is_documented() -> None:
    page = (DOCS / "formats.md").read_text(encoding="utf-8")
    for known in FORMATS:
        assert f"| `{known.name}` | " in page


def test_every_finding_is_documented() -> None:
    train, held = simulate(n_prompts=60, n_judgments=1000, seed=1).feedback.split(by="prompt", test=0.2, seed=0)
    fitted = sm.fit(train, utility=sm.Linear(n_columns=16), people=sm.Groups())
    found = sm.diagnose(train, held_out=held) + sm.evaluate(fitted, held, train=train)
    sections = set(re.findall(r"^### (.+)$", (DOCS / "findings.md").read_text(encoding="utf-8"), re.MULTILINE))
    codes = {f.code.split("/")[0] for f in found}
    assert codes <= sections, codes - sections
    of_a_study = {"leaderboard", "signal"}
    of_a_checkpoint = {"checkpoint", "parity", "swap"}
    of_a_catalogue = {"catalogue"}
    from_python = {"stale", "exposure"}  # they take current feedback, or who had been exposed
    of_decisions = _codes_in("governance")
    # those of charters and groups are looked for in the source by the next test
    of_charters_and_groups = {code for code in sections if code in _codes_in("checks")}
    known = (
        codes | {"rater-consistency"} | of_a_study | of_a_checkpoint | of_a_catalogue | from_python | of_decisions | of_charters_and_groups
    )
    assert sections <= known, sections - known


def test_every_code_in_the_source_is_documented() -> None:
    page = (DOCS / "findings.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^### (.+)$", page, re.MULTILINE))
    for room in ("checks", "governance"):
        assert _codes_in(room) <= sections, _codes_in(room) - sections


def _codes_in(room: str) -> set[str]:
    """The codes of the findings that the files of a room make."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "src" / "seamark" / room).glob("*.py"))]
    made = r"""(?:\bcode ?= ?|not_applicable\(\s*|_facts\(\s*)f?["']([a-z][a-z/_-]*)"""
    return {code.split("/")[0] for text in texts for code in re.findall(made, text)}


def test_every_threshold_is_explained() -> None:
    page = (DOCS / "findings.md").read_text(encoding="utf-8")
    for name in vars(THRESHOLDS):
        assert page.count(f"`{name}`") >= 2, f"{name} is in the table, and is said to be used nowhere"


def test_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (path.parent / target).exists(), f"{path.name}: {target}"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(p.name[:4]) for p in sorted((DOCS / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_picture_is_there_and_small() -> None:
    picture = (DOCS / "report.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 400_000


# in pieces, so that this file does not contain what it looks for
_HOSTS = re.compile(
    "|".join(("py" + r"pi\.", "python" + "hosted", "devpi" + "-server", "index" + "-url", "/" + "opt/pypi", "/" + "work/")), re.IGNORECASE
)


def test_no_registry_host_and_no_path_of_one_machine() -> None:
    for path in TEXTS:
        if path.exists():
            found = _HOSTS.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.name)
def test_comparisons_are_asserted(path: Path) -> None:
    """A bare `np.allclose(...)` looks like a check and is none (choix has two)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func).split(".")[-1]
            assert called not in ("allclose", "isclose", "array_equal", "equals"), f"{path.name}:{node.lineno}"


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for part in ("Version 2.0, January 2004", "END OF TERMS AND CONDITIONS", "APPENDIX: How to apply", "limitations under the License."):
        assert part in text
    assert len(text.splitlines()) >= 200


def test_constraints_pin_every_dependency() -> None:
    """What pyproject.toml asks for has one exact version in constraints.txt."""
    import tomllib

    pinned = {
        line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    for requirement in wanted:
        name = re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")
        assert name in pinned, name
