"""The files for whoever carries on say what is so: checks, citation, templates, links."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import mmattrib as mm

ROOT = Path(__file__).parent.parent
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAGES = sorted(
    page
    for pattern in ("*.md", ".github/*.md", "docs/**/*.md", "examples/**/*.md", "plugins/*/*.md")
    for page in ROOT.glob(pattern)
)


def _read(path: str | Path) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def _checks() -> list[str]:
    """What .ci/run calls beside the tests."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    return re.findall(r"^    \.venv/bin/(.+)$", script, flags=re.MULTILINE)


def test_the_workflow_runs_the_same_script_on_each_python_and_nothing_else() -> None:
    workflow = _read(".github/workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [
        line.removeprefix("Programming Language :: Python :: ")
        for line in project["classifiers"]
        if "Python :: 3" in line
    ]
    assert job["strategy"]["matrix"]["python"] == named


def test_the_workflow_of_the_hub_is_started_by_hand_and_runs_what_contributing_says() -> None:
    workflow = _read(".github/workflows/hub.yml")
    assert list(workflow[True]) == ["workflow_dispatch"], "`on`, which YAML reads as true"
    (job,) = workflow["jobs"].values()
    command = job["steps"][-1]["run"]
    assert command == ".venv/bin/pytest -n 0 -m hub tests/hub"
    assert f"`{command}`" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / ".github" / "workflows").iterdir()} == {
        "ci.yml",
        "hub.yml",
    }


def test_hooks_fetch_nothing_and_call_the_checks_of_the_ci_script() -> None:
    repositories = _read(".pre-commit-config.yaml")["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    called = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    tools = [re.sub(r" (\.|--check|--force-exclude)(?= |$)", "", line) for line in called]
    wanted = [re.sub(r" (\.|--check)(?= |$)", "", line) for line in _checks()]
    assert tools == wanted != []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_issue_template_is_a_form(path: Path) -> None:
    form = _read(path)
    assert form["name"]
    assert form["description"]
    kinds = {"input", "textarea", "dropdown", "checkboxes", "markdown"}
    assert {field["type"] for field in form["body"]} <= kinds
    names = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(set(names)) == len(names) > 0
    assert all(f["attributes"]["label"] for f in form["body"] if f["type"] != "markdown")


def test_there_is_a_template_for_faults_questions_and_models() -> None:
    assert [path.stem for path in TEMPLATES] == ["bug", "new_backbone", "question"]


def test_the_citation_names_this_version_and_whole_references() -> None:
    cited = _read("CITATION.cff")
    assert str(cited["cff-version"]) == "1.2.0"
    assert cited["title"] == "mmattrib"
    assert cited["version"] == mm.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["license"] == project["license"]
    assert cited["message"]
    assert cited["authors"]
    for reference in cited["references"]:
        assert reference["type"]
        assert reference["title"]
        assert all(author["family-names"] for author in reference["authors"])


def test_the_changelog_tells_of_this_version() -> None:
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(mm.__version__)}\]", log, flags=re.MULTILINE)


def test_contributing_sets_up_and_checks_as_the_readme_and_the_ci_script_do() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"<!-- test -->\n```sh\n(.*)\n```", readme)
    assert command in page
    for check in _checks():
        assert f"`.venv/bin/{check}`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
        if target.startswith("http"):
            continue
        goal = (page.parent / target) if target else page
        assert goal.exists(), target
        if anchor and goal.suffix == ".md":
            assert anchor in _anchors(goal), target + anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_rows_of_a_table_have_as_many_cells_as_its_columns(page: Path) -> None:
    """Else GitHub shows no table: `image|text` within a cell needs a backslash."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if not number or not re.fullmatch(r"\|( *:?-+:? *\|)+", line):
            continue
        rows = itertools.takewhile(lambda row: row.startswith("|"), lines[number - 1 :])
        for row in rows:
            assert _cells(row) == _cells(line), f"near line {number}: {row[:80]}"


def _cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
