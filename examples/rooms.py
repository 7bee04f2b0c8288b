"""Draws the list of rooms in docs/architecture.md: ``python -m examples.rooms``.

A room is a package or a module directly in mmattrib/. Each gets a line: its name and the first
paragraph of its docstring. The order is that of the import rules in pyproject.toml, from what
imports nothing to what imports everything.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START = "<!-- rooms: python -m examples.rooms -->\n"
STOP = "<!-- end of rooms -->\n"


def rooms(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Name and first paragraph of every room in the tree, in no particular order.

    Raises:
        ValueError: a room has no docstring.
    """
    for path in sorted((root / "mmattrib").iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        if source.suffix != ".py" or not source.is_file() or path.name == "__init__.py":
            continue
        told = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
        if not told:
            raise ValueError(f"{source} has no docstring; its first line is its line in the list")
        yield path.stem, " ".join(told.split("\n\n")[0].split())


def layers(root: Path = ROOT) -> list[str]:
    """The rooms in the order of the import rules, from the lowest layer up."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (found,) = [each["layers"] for each in contracts if each["type"] == "layers"]
    return [room.strip() for layer in reversed(found) for room in layer.split("|")]


def table(root: Path = ROOT) -> str:
    """The list as Markdown.

    Raises:
        ValueError: a room has no place in the import rules, or the rules name one that is gone.
    """
    order, told = layers(root), dict(rooms(root))
    if set(order) != set(told):
        differing = ", ".join(sorted(set(order) ^ set(told)))
        raise ValueError(f"the import rules and the tree have different rooms: {differing}")
    lines = [f"| `{room}` | {_markdown(told[room])} |" for room in order]
    return "\n".join(["| room | what it holds |", "| --- | --- |", *lines, ""])


def _markdown(text: str) -> str:
    """A docstring's text as Markdown: its ``code`` and :class:`names` as code."""
    code = re.sub(r":\w+:`~?([^`]+)`|``(.+?)``", lambda m: f"`{m[1] or m[2]}`", text)
    return code.replace("|", "\\|")


def drawn(page: str, root: Path = ROOT) -> str:
    """The page with the list as the tree has it now."""
    before, rest = page.split(START)
    _, after = rest.split(STOP)
    return f"{before}{START}{table(root)}{STOP}{after}"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
