"""What the README shows is what runs."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import tomllib
from functools import partial
from pathlib import Path

import checkpoints
import pytest
from click.testing import CliRunner
from PIL import Image
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.cli import main
from mmattrib.errors import TrustWarning

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_python_example_is_a_file() -> None:
    shown = re.findall(r"<!-- from (\S+) -->\n```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(shown) == README.count("```python")
    for path, code in shown:
        assert code == (ROOT / path).read_text(encoding="utf-8"), path


def test_no_page_installs_from_an_index_what_is_in_this_repository_alone() -> None:
    pages = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    seen = 0
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        for command in re.findall(r"pip install ([^`\n#&]+)", text):
            words = shlex.split(command)
            assert not [w for w in words if w.startswith("mmattrib")], (page, command)
            if any("plugins/" in word for word in words):  # whose requirement is mmattrib itself
                assert words[words.index("-e") + 1][0] == ".", (page, command)
                seen += 1
    assert seen >= 5


@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")
def test_first_steps_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As written, on a small `tiny` with random weights, which costs less."""
    monkeypatch.setattr(mm, "load_backbone", {"tiny": small_tiny()}.__getitem__)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "first_steps.py"))
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "similarity" in capsys.readouterr().out


def test_the_readme_opens_with_a_heat_map_in_six_lines() -> None:
    first = README.split("```python\n")[1].split("```")[0]
    example = (ROOT / "examples" / "clip_photograph.py").read_text(encoding="utf-8")
    assert first == example
    assert len(example.strip().splitlines()) <= 6


def test_clip_photograph_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As written, on a small CLIP with random weights in place of the published one."""
    pytest.importorskip("transformers")
    checkpoint, _, _ = checkpoints.write("clip", tmp_path)
    Image.fromarray(checkpoints.pictures()[1].pixels).save(tmp_path / "photo.jpg")
    monkeypatch.setattr(mm, "load_backbone", partial(mm.load_backbone, checkpoint=str(checkpoint)))
    monkeypatch.chdir(tmp_path)
    with pytest.warns(TrustWarning, match="saw only 44 %"):  # the small checkpoint crops much
        runpy.run_path(str(ROOT / "examples" / "clip_photograph.py"))
    assert "(64, 96) similarity" in capsys.readouterr().out
    with Image.open(tmp_path / "heatmap.png") as drawn:
        assert min(drawn.size) >= 64


def test_every_command_shown_exists() -> None:
    shown = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in shown for line in block.splitlines() if line[:9] == "mmattrib "]
    commands = [shlex.split(line, comments=True) for line in lines]
    assert len(commands) >= 5
    for command in commands:
        told = CliRunner().invoke(main, [command[1], "--help"]).output
        for word in command[2:]:
            if word.startswith("--"):
                assert word in told, f"{command[1]} {word}"


def test_a_folder_of_pairs_takes_two_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As shown, with two pictures of the names that the table has."""
    (block,) = re.findall(r"<!-- pairs -->\n```sh\n(.*?)```", README, flags=re.DOTALL)
    write, evaluate = block.strip().splitlines()
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, picture in zip(("photo.jpg", "other.jpg"), checkpoints.pictures(), strict=False):
        Image.fromarray(picture.pixels[:60, :80]).save(folder / name)
    monkeypatch.chdir(tmp_path)
    subprocess.run(write, shell=True, check=True)
    assert (folder / "pairs.csv").read_text().count("\n") == 3
    command = shlex.split(evaluate)
    assert command[0] == "mmattrib"
    done = CliRunner().invoke(main, [*command[1:], "--method", "nib"])
    assert done.exit_code == 0, done.output
    assert "pairs: 2 samples" in done.output
    assert re.search(r"^nib +2 ", done.output, flags=re.MULTILINE)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_both_commands_make_their_own_environment() -> None:
    for mark, does in (("demo", "mmattrib demo"), ("test", "pytest")):
        (command,) = re.findall(rf"<!-- {mark} -->\n```sh\n(.*)\n```", README)
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")
        assert command.endswith(does)


def test_torch_is_bounded_to_what_torchaudio_works_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {d.split(">=")[0]: d for d in project["dependencies"]}
    assert "<2.15" in bounds["torch"]
