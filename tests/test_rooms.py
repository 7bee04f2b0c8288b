"""docs/architecture.md and the tree cannot part: its list of rooms is drawn, its files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from examples.rooms import PAGE, ROOT, START, STOP, drawn, rooms, table


def test_the_list_of_rooms_is_that_of_the_tree() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert drawn(page) == page, "run python -m examples.rooms and commit docs/architecture.md"


def _house(tmp_path: Path) -> Path:
    package = tmp_path / "mmattrib"
    (package / "attic").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "attic" / "__init__.py").write_text('"""What is old:\n:class:`Box`.\n\nMore."""')
    (package / "cellar.py").write_text('"""What is ``cold``."""')
    (package / "py.typed").write_text("")
    rules = '[[tool.importlinter.contracts]]\ntype = "layers"\nlayers = ["attic", "cellar"]\n'
    (tmp_path / "pyproject.toml").write_text(rules)
    return tmp_path


def test_a_room_is_a_module_or_a_package_and_its_line_the_first_of_its_docstring(
    tmp_path: Path,
) -> None:
    root = _house(tmp_path)
    assert dict(rooms(root)) == {
        "attic": "What is old: :class:`Box`.",
        "cellar": "What is ``cold``.",
    }
    lines = table(root).splitlines()[2:]
    assert lines == ["| `cellar` | What is `cold`. |", "| `attic` | What is old: `Box`. |"]
    page = f"before\n{START}stale\n{STOP}after\n"
    assert drawn(page, root) == f"before\n{START}{table(root)}{STOP}after\n"


def test_a_room_without_a_place_in_the_import_rules_is_named(tmp_path: Path) -> None:
    root = _house(tmp_path)
    (root / "mmattrib" / "garden.py").write_text('"""What grows."""')
    with pytest.raises(ValueError, match="different rooms: garden"):
        table(root)


def test_a_room_without_a_docstring_is_named(tmp_path: Path) -> None:
    root = _house(tmp_path)
    (root / "mmattrib" / "cellar.py").write_text("")
    with pytest.raises(ValueError, match=r"cellar\.py has no docstring"):
        table(root)


def test_every_file_that_the_page_names_exists() -> None:
    code = re.findall(r"`([^`\n]+)`", PAGE.read_text(encoding="utf-8"))
    named = [
        text for text in code if re.fullmatch(r"(mmattrib|examples|tests|plugins)/[\w./-]*", text)
    ]
    gone = {"mmattrib/attribute.py"}  # named as what must not be
    assert len(named) > 30
    for path in set(named) - gone:
        assert (ROOT / path).exists(), path
    for path in gone:
        assert not (ROOT / path).exists(), path


def test_every_name_that_the_walks_speak_of_is_in_a_file_of_their_step() -> None:
    """`name` in a step that names files: one of these files has it."""
    page = PAGE.read_text(encoding="utf-8")
    walks = page[page.index("## An image through") : page.index("## Decisions")]
    steps = re.findall(r"^\d\. (.*?)(?=^\d\. |^\S|\Z)", walks, flags=re.MULTILINE | re.DOTALL)
    assert len(steps) == 17
    seen = 0
    for step in steps:
        code = re.findall(r"`([^`\n]+)`", step)
        files = [ROOT / text for text in code if text.endswith(".py")]
        files += [ROOT / "mmattrib" / "explain.py", ROOT / "mmattrib" / "models" / "encoder.py"]
        told = "\n".join(path.read_text(encoding="utf-8") for path in files)
        for name in code:
            if re.fullmatch(r"[A-Za-z_]+(\.[a-z_]+)?", name) and name not in ("pairs", "tiny"):
                seen += 1
                for part in name.split("."):
                    assert re.search(rf"\b{part}\b", told), f"{name} in: {step}"
    assert seen > 20
