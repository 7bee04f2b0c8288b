"""The page on data sets: its two commands run, and it names every reader with its options."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from dataset_folders import picture

from mmattrib.cli import main
from mmattrib.plugins import default_plugins

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
REGISTRY = default_plugins().registry


def photographs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The two commands of the page, in a folder with the photographs that it names."""
    (block,) = re.findall(r"<!-- two commands -->\n```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    for name in ("dog", "car"):
        picture(folder / "photos" / f"{name}.jpg", (80, 60))
    monkeypatch.chdir(folder)
    return list(block.strip().splitlines())


def test_a_folder_gives_a_table_in_two_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, evaluate = photographs(tmp_path, monkeypatch)
    subprocess.run(write, shell=True, check=True)
    done = CliRunner().invoke(main, [*shlex.split(evaluate)[1:], "--method", "random"])
    assert done.exit_code == 0, done.output
    assert "manifest: 2 samples" in done.output
    assert re.search(r"^random +2 ", done.output, re.MULTILINE)


def test_the_command_line_tells_of_broken_rows_and_stops_at_them_when_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, evaluate = photographs(tmp_path, monkeypatch)
    subprocess.run(write, shell=True, check=True)
    with (tmp_path / "samples.csv").open("a") as file:
        file.write("photos/none.jpg,a cat,\n")
    command = [*shlex.split(evaluate)[1:], "--method", "random"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert done.output.count("1 left out (1 of a missing file)") == 1
    assert "samples.csv, line 4: image 'photos/none.jpg' is missing" in done.output
    done = CliRunner().invoke(main, [*command, "--data-option", "strict=true"])
    assert done.exit_code == 2
    assert "samples.csv, line 4" in done.output
    assert "| random |" not in done.output


@pytest.mark.parametrize("name", REGISTRY.names("dataset"))
def test_every_reader_is_on_the_page_with_its_options(name: str) -> None:
    assert f"`{name}`" in PAGE
    if name == "scenes":
        return
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    for option in inspect.signature(REGISTRY.get("dataset", name).factory).parameters:
        assert f"`{option}`" in section, option
