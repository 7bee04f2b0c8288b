"""Inputs of any two sides; outputs that cannot be, before any work; options behind a name."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from cli_program import Run

import mmattrib as mm
from mmattrib.plugins import Plugins

QUICK = ("--method", "random")


@pytest.fixture
def tiny_random(checkpoint: Path) -> tuple[str, ...]:
    return "--backbone-option", f"checkpoint={checkpoint}", *QUICK


@pytest.mark.parametrize(
    ("given", "sides"),
    [
        (("--input", "image={f}/good.png", "--input", "text=a dog"), ["image", "text"]),
        (("--image", "{f}/good.png", "--input", "image_2={f}/good.jpg"), ["image", "image_2"]),
        (("--text", "a dog", "--input", "text_2=a cat = b"), ["text", "text_2"]),
        (("--input", "audio_2={f}/good.wav", "--audio", "{f}/stereo.flac"), ["audio", "audio_2"]),
        (("--text-file", "{f}/caption.txt", "--input", "audio={f}/good.wav"), ["text", "audio"]),
    ],
)
def test_any_two_inputs_make_a_pair(
    given: tuple[str, ...], sides: list[str], run: Run, files: Path, tiny_random: tuple[str, ...]
) -> None:
    arguments = [each.replace("{f}", str(files)) for each in given]
    result = run("attribute", *arguments, *tiny_random, "--json")
    assert result.code == 0, result.err
    assert sorted(json.loads(result.out)["sides"]) == sorted(sides)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--image", "a.png", "--input", "image=b.png"), "image_2"),
        (("--input", "image=a.png", "--input", "image=b.png"), "for one side"),
        (("--text", "a", "--input", "text=b"), "both --text and --input text"),
        (("--text-file", "a", "--input", "text=b"), "both --text-file and --input text"),
        (("--input", "image_2=a.png", "--input", "image_2=b.png"), "give one of them"),
        (("--text", "a", "--input", "depth=a.npy"), "does not embed depth"),
        (("--text", "a", "--input", "a.png"), "is not SIDE=VALUE"),
        (("--text", "a", "--input", "=a.png"), "is not SIDE=VALUE"),
        (("--image", "a.png", "--image", "b.png", "--text", "a"), "--image is given 2 times"),
        (("--text", "a", "--text", "b", "--image", "a.png"), "--text is given 2 times"),
        (("--image", "a.png", "--text", "a", *QUICK, *QUICK), "--method is given 2 times"),
        (("--image", "a.png", "--text", "a", "--seed", 1, "--seed", 1), "--seed is given 2 times"),
        (("--image", "a.png", "--text", "a", "--layer", "imgae=1"), "imgae"),
    ],
)
def test_pairs_that_are_none_are_refused(given: tuple[object, ...], said: str, run: Run) -> None:
    result = run("attribute", *given)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="pipes as in POSIX")
def what_it_is(path: Path) -> tuple[int, int, str]:
    """The path's own entry, and where it leads."""
    told = os.lstat(path)
    return told.st_mode, told.st_ino, str(path.readlink()) if path.is_symlink() else ""


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a pipe", "circle", "device"])
def test_an_output_that_is_no_file_is_refused_and_stays(
    kind: str, run: Run, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    out = Path("a.json")
    with socket.socket(socket.AF_UNIX) as served:
        if kind == "pipe":
            os.mkfifo(out)
        elif kind == "socket":
            served.bind(str(out))
        elif kind == "link to a pipe":
            os.mkfifo("pipe")
            out.symlink_to("pipe")
        elif kind == "circle":
            out.symlink_to(out)
        else:
            out.symlink_to("/dev/null")
        before = what_it_is(out)
        result = run("attribute", "--image", files / "text.png", "--text", "a", "--out", out)
        assert result.code == 2
        assert "--out" in result.err  # not the picture, which is none: nothing was read yet
        assert what_it_is(out) == before


@pytest.mark.skipif(os.name != "posix", reason="links as in POSIX")
@pytest.mark.parametrize("link", ["itself", "symbolic", "hard", "by another path"])
def test_an_output_that_is_an_input_is_refused(
    link: str, run: Run, files: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given.png"
    given.write_bytes((files / "good.png").read_bytes())
    out = tmp_path / "out.png"
    if link == "symbolic":
        out.symlink_to(given)
    elif link == "hard":
        out.hardlink_to(given)
    elif link == "by another path":
        (tmp_path / "folder").symlink_to(tmp_path)
        out = tmp_path / "folder" / "given.png"
    else:
        out = given
    result = run("attribute", "--input", f"image={given}", "--text", "a dog", "--out", out)
    assert result.code == 2
    assert "is one of the inputs" in result.err


def test_a_saved_explanation_is_shown_and_drawn_again(
    run: Run, files: Path, tmp_path: Path, tiny_random: tuple[str, ...]
) -> None:
    kept, page = tmp_path / "kept.npz", tmp_path / "page.html"
    pair = ("--audio", files / "good.wav", "--text", "a dog")
    first = run("attribute", *pair, *tiny_random, "--out", kept)
    assert first.code == 0, first.err
    shown = run("show", kept)
    assert shown.out == first.out.replace(f"Wrote {kept}\n", "")
    assert run("show", kept, "--out", page).code == 0
    assert "<html" in page.read_text(encoding="utf-8")
    assert json.loads(run("show", kept, "--json").out)["sides"]
    refused = run("show", kept, "--out", kept)
    assert (refused.code, "one of the inputs" in refused.err) == (2, True)
    assert run("show", tmp_path / "nowhere.npz").code == 2
    assert run("show", files / "good.png").code == 2
    assert mm.load(kept).similarity


def test_the_options_behind_a_name(run: Run, plugins: Plugins) -> None:
    shown = json.loads(run("methods", "ca-m2ib", "--json").out)
    options = {option["name"]: option for option in shown["options"]}
    assert options["points"]["type"] == "int"
    assert options["points"]["default"] == 80
    assert options["points"]["accepted"] == "from 1 to 4096"
    assert all(option["summary"] for option in options.values())
    assert "points  (int, default 80; from 1 to 4096)" in run("methods", "ca-m2ib").out
    assert "checkpoint  (str | None, default None)" in run("backbones", "tiny").out
    assert "folder  (str | Path, required)" in run("datasets", "pairs").out
    assert "sides" in run("backbones", "small").out
    assert run("metrics", "auc").code == 0
    unknown = run("methods", "ca-m2b")
    assert unknown.code == 2
    assert "ca-m2ib" in unknown.err


def test_every_registered_name_can_be_shown(run: Run) -> None:
    for kind in ("backbone", "method", "metric", "dataset", "writer"):
        for entry in json.loads(run(f"{kind}s", "--json", "--all").out):
            shown = run(f"{kind}s", entry["name"], "--json")
            assert shown.code == 0, shown.err
            assert json.loads(shown.out)["options"] or kind in ("metric", "writer", "method")
            for option in json.loads(shown.out)["options"]:
                assert option["summary"], (kind, entry["name"], option["name"])


def test_a_home_folder_that_the_shell_left_alone_is_found(
    run: Run, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = run(
        *("attribute", "--image", files / "good.png", "--text", "a dog"),
        *("--out", "~/x.json", "--method", "random"),
    )
    assert (result.code, (tmp_path / "x.json").is_file()) == (0, True), result.err
    assert run("show", "~/x.json").code == 0


def test_names_of_files_command_no_terminal(run: Run, tmp_path: Path) -> None:
    evil = tmp_path / "a\x1b[31m\u202e.png"
    result = run("attribute", "--image", evil, "--text", "a", *QUICK)
    assert result.code == 2
    assert not any(c in result.out + result.err for c in "\x1b\u202e")
    np.save(tmp_path / "a.npy", np.zeros(3))
    out = tmp_path / "b\x1b]0;title\x07.json"
    shown = run("attribute", "--image", tmp_path / "a.npy", "--text", "a", "--out", out)
    assert "\x1b" not in shown.out + shown.err
