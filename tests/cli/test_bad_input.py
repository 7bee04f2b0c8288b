"""Whatever is wrong with the input: one line, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_program import Run

from mmattrib.errors import InputError
from mmattrib.io import load
from mmattrib.plugins import Plugins
from mmattrib.plugins.contained import hushed, hushing

TEXT = ("--text", "a dog")
SMALL = ("--backbone", "small")

# What is wrong: (arguments, what the line must say). `{f}` is the folder of inputs, `{o}` the
# folder for outputs.
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # files
    "missing image": (("--image", "{f}/nowhere.png", *TEXT), ("nowhere.png", "does not exist")),
    "missing audio": (("--audio", "{f}/nowhere.wav", *TEXT), ("nowhere.wav", "does not exist")),
    "missing caption file": (
        ("--image", "{f}/good.png", "--text-file", "{f}/nowhere.txt"),
        ("nowhere.txt", "does not exist"),
    ),
    "folder as image": (("--image", "{f}", *TEXT), ("is a folder", "Give one file")),
    "address as image": (
        ("--image", "https://example.org/a.png", *TEXT),
        ("https://example.org/a.png", "Download it first"),
    ),
    "text called .png": (("--image", "{f}/text.png", *TEXT), ("text.png", "not an image")),
    "empty image": (("--image", "{f}/zerobytes.png", *TEXT), ("zerobytes.png", "is empty")),
    "truncated png": (("--image", "{f}/truncated.png", *TEXT), ("truncated.png", "cut short")),
    "truncated jpeg": (("--image", "{f}/truncated.jpg", *TEXT), ("truncated.jpg", "cut short")),
    "recording as image": (("--image", "{f}/good.wav", *TEXT), ("good.wav", "not an image")),
    "picture as audio": (("--audio", "{f}/good.png", *TEXT), ("good.png", "accepted")),
    "text called .wav": (("--audio", "{f}/text.wav", *TEXT), ("text.wav", "accepted")),
    "empty audio file": (("--audio", "{f}/zerobytes.wav", *TEXT), ("zerobytes.wav", "is empty")),
    "audio of no samples": (("--audio", "{f}/headeronly.wav", *TEXT), ("headeronly.wav",)),
    "silent audio": (("--audio", "{f}/silent.wav", *TEXT), ("silent.wav", "is silent")),
    "NaN samples": (("--audio", "{f}/nan.wav", *TEXT), ("nan.wav", "NaN")),
    # captions
    "empty caption": (("--image", "{f}/good.png", "--text", ""), ("caption", "is empty")),
    "blank caption": (("--image", "{f}/good.png", "--text", " \t "), ("caption", "white space")),
    "empty caption file": (
        ("--image", "{f}/good.png", "--text-file", "{f}/empty.txt"),
        ("empty.txt", "is empty"),
    ),
    "blank caption file": (
        ("--image", "{f}/good.png", "--text-file", "{f}/blank.txt"),
        ("blank.txt",),
    ),
    "caption file in another encoding": (
        ("--image", "{f}/good.png", "--text-file", "{f}/latin1.txt"),
        ("latin1.txt", "UTF-8"),
    ),
    "caption too long for anyone": (
        ("--image", "{f}/good.png", "--text-file", "{f}/huge.txt"),
        ("huge.txt", "Shorten it"),
    ),
    "caption too long for the backbone": (
        (*SMALL, "--image", "{f}/good.png", "--text", "dog " * 40),
        ("40 words", "at most 23", "shorten it"),
    ),
    "caption too long, from a file's name": (
        (*SMALL, "--image", "{f}/good.png", "--text", "dog " * 24),
        ("24 words",),
    ),
    # how many
    "no input": ((), ("exactly two", "got 0 (none)", "--image, --audio, --text (or")),
    "one input": (("--image", "{f}/good.png"), ("exactly two", "got 1 (image)")),
    "three inputs": (
        ("--image", "{f}/good.png", "--audio", "{f}/good.wav", *TEXT),
        ("exactly two", "got 3 (image, audio, text)"),
    ),
    "two captions": (
        ("--image", "{f}/good.png", *TEXT, "--text-file", "{f}/caption.txt"),
        ("both --text and --text-file", "give one"),
    ),
    # names
    "unknown backbone": (
        ("--backbone", "tyni", "--image", "{f}/good.png", *TEXT),
        ("no backbone is named 'tyni'", "'tiny'", "pip install"),
    ),
    "backbone without its extra": (
        ("--backbone", "absent", "--image", "{f}/good.png", *TEXT),
        ("nowhere_at_all", "pip install 'mm-x[absent]'"),
    ),
    "unknown method": (
        ("--method", "cam2ib", "--image", "{f}/good.png", *TEXT),
        ("no method is named 'cam2ib'", "'ca-m2ib'", "random"),
    ),
    "modality that the backbone lacks": (
        (*SMALL, "--audio", "{f}/good.wav", *TEXT),
        ("'small' does not embed audio", "image, text"),
    ),
    # layers
    "layer beyond the last": (
        (*SMALL, "--image", "{f}/good.png", *TEXT, "--layer", "image=99"),
        ("no layer 99", "-1"),
    ),
    "layer below the first": (
        (*SMALL, "--image", "{f}/good.png", *TEXT, "--layer", "-3"),
        ("no layer -3", "-1", "-2 (the preprocessed input)"),
    ),
    "layer that is no number": (
        ("--image", "{f}/good.png", *TEXT, "--layer", "image=last"),
        ("--layer image=last", "whole number", "image=1"),
    ),
    "layer of another modality": (
        ("--image", "{f}/good.png", *TEXT, "--layer", "audio=1"),
        ("--layer audio=1", "not in the pair", "image and text"),
    ),
    "layer twice": (
        ("--image", "{f}/good.png", *TEXT, "--layer", "text=0", "--layer", "text=1"),
        ("--layer text=1", "again"),
    ),
    "layer for both and for one": (
        ("--image", "{f}/good.png", *TEXT, "--layer", "0", "--layer", "text=1"),
        ("--layer 0", "both sides"),
    ),
    # options
    "option that is no pair": (
        ("--image", "{f}/good.png", *TEXT, "--option", "beta"),
        ("--option beta", "KEY=VALUE"),
    ),
    "option twice": (
        ("--image", "{f}/good.png", *TEXT, "--option", "beta=1", "--option", "beta=2"),
        ("--option beta=2", "once"),
    ),
    "unknown option": (
        (*SMALL, "--image", "{f}/good.png", *TEXT, "--option", "betta=1"),
        ("no option 'betta'", "'beta'", "accepted"),
    ),
    "option of the wrong type": (
        (*SMALL, "--image", "{f}/good.png", *TEXT, "--option", "beta=much"),
        ("beta", "a number", "'much'"),
    ),
    "option that is a flag": (
        ("--image", "{f}/good.png", *TEXT, "--option", "seed=1"),
        ("--option seed=", "--seed"),
    ),
    "seed that is no number": (
        ("--image", "{f}/good.png", *TEXT, "--seed", "x"),
        ("--seed", "'x'", "integer"),
    ),
    "unknown flag": (("--imagge", "{f}/good.png", *TEXT), ("--imagge", "--help")),
    "unknown backbone option": (
        (*SMALL, "--image", "{f}/good.png", *TEXT, "--backbone-option", "size=3"),
        ("no option 'size'", "sides"),
    ),
    "missing checkpoint": (
        ("--image", "{f}/good.png", *TEXT, "--backbone-option", "checkpoint={f}/no.safetensors"),
        ("no.safetensors", "missing"),
    ),
    "broken checkpoint": (
        (
            *("--image", "{f}/good.png", *TEXT),
            *("--backbone-option", "checkpoint={f}/garbage.safetensors"),
        ),
        ("garbage.safetensors", "not a checkpoint"),
    ),
    "unknown device": (
        ("--image", "{f}/good.png", *TEXT, "--device", "abacus"),
        ("--device abacus", "cpu"),
    ),
    # outputs; these are checked before anything is read
    "unknown suffix": (
        ("--image", "{f}/good.png", *TEXT, "--out", "{o}/map.bmp"),
        ("map.bmp", "'.bmp'", ".png, .html, .npz, .json"),
    ),
    "no suffix": (("--image", "{f}/good.png", *TEXT, "--out", "{o}/map"), ("map", "no suffix")),
    "no such output folder": (
        ("--image", "{f}/good.png", *TEXT, "--out", "{o}/nowhere/map.png"),
        ("nowhere/map.png", "there is no folder", "make it first"),
    ),
    "output under a file": (
        ("--image", "{f}/good.png", *TEXT, "--out", "{f}/good.wav/map.png"),
        ("good.wav/map.png", "there is no folder"),
    ),
    "output twice": (
        ("--image", "{f}/good.png", *TEXT, "--out", "{o}/c.png", "--out", "{o}/../{o.name}/c.png"),
        ("c.png", "given twice"),
    ),
    "output over an input": (
        ("--image", "{f}/good.png", *TEXT, "--out", "{f}/good.png"),
        ("good.png", "one of the inputs"),
    ),
}


def filled(arguments: tuple[str, ...], files: Path, out: Path) -> list[str]:
    return [a.format(f=files, o=out) if "{" in a else a for a in arguments]


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(
    case: str, run: Run, files: Path, tmp_path: Path
) -> None:
    arguments, said = CASES[case]
    before = {path: path.read_bytes() for path in files.iterdir()}
    given = ["attribute", *filled(arguments, files, tmp_path)]
    outs = ["--out", str(tmp_path / "a.png"), "--out", str(tmp_path / "b.json")]
    result = run(*given, *outs)

    assert result.code == 2, result.err
    assert result.out == ""
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for part in said:
        assert part in result.err, result.err
    assert list(tmp_path.iterdir()) == []
    assert {path: path.read_bytes() for path in files.iterdir()} == before


@pytest.mark.usefixtures("plugins")
def test_the_folder_of_an_output_must_be_writable(
    run: Run, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # root may write anywhere, so the system is made to say no
    allowed: Callable[..., bool] = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and allowed(path, mode))
    out = tmp_path / "a.png"
    result = run("attribute", "--image", files / "good.png", *TEXT, "--out", out)
    assert result.code == 2
    assert "cannot be written" in result.err
    assert str(out) in result.err


@pytest.mark.usefixtures("plugins")
def test_an_output_that_is_a_folder_is_refused(run: Run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "dir.png").mkdir()
    out = tmp_path / "dir.png"
    result = run("attribute", "--image", files / "good.png", *TEXT, "--out", out)
    assert result.code == 2
    assert "dir.png': it is a folder" in result.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bakbones",), ("no command 'bakbones'", "Did you mean 'backbones'")),
        (("--bogus",), ("--bogus", "mmattrib --help")),
        (("backbones", "--bogus"), ("--bogus", "mmattrib backbones --help")),
        (("backbones", "extra"), ("extra",)),
        (("scenes",), ("--out", "mmattrib scenes --help")),
        (("scenes", "--out", "{o}/s", "--n", "0"), ("--n", "0")),
        (("scenes", "--out", "{o}/s", "--split", "test"), ("--split", "train", "heldout")),
        (("scenes", "--out", "{o}/nowhere/s"), ("nowhere/s", "there is no folder")),
        (("scenes", "--out", "{f}"), ("is not empty", "name a new folder")),
        (("scenes", "--out", "{f}/good.png"), ("good.png is a file",)),
        (("demo", "--out", "{f}/good.png"), ("good.png is a file",)),
        (("demo", "--out", "{o}/nowhere/d"), ("there is no folder",)),
        (("demo", "--seed", "x"), ("--seed", "x")),
        (("evaluate", "--method", "m3ib"), ("no method is named 'm3ib'", "'m2ib'")),
        (("evaluate", *("--method", "nib") * 2), ("--method nib is given twice", "LABEL=NAME")),
        (("evaluate", "--metric", "aoc"), ("no metric is named 'aoc'", "'auc'")),
        (("evaluate", "--backbone", "tinny"), ("no backbone is named 'tinny'", "'tiny'")),
        (("evaluate", "--pair", "image"), ("--pair image", "image,text")),
        (("evaluate", "--pair", "image,image"), ("--pair image,image", "image,text")),
        (("evaluate", "--limit", "0"), ("--limit", "0")),
        (("evaluate", "--out", "{o}/t.png"), ("t.png", "'.png'", ".md, .csv, .tex, .json")),
        (("evaluate", "--out", "{o}/nowhere/t.md"), ("there is no folder",)),
    ],
)  # fmt: skip
def test_other_commands(
    arguments: tuple[str, ...], said: tuple[str, ...], run: Run, files: Path, tmp_path: Path
) -> None:
    result = run(*filled(arguments, files, tmp_path))
    assert result.code == 2, result.err
    assert result.out == ""
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    for part in said:
        assert part in result.err
    assert list(tmp_path.iterdir()) == []


def test_the_installed_program_behaves_the_same(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    arguments = ["attribute", "--image", files / "truncated.png", *TEXT, "--out", out]
    found = subprocess.run(
        [sys.executable, "-m", "mmattrib", *arguments], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("Error: ")
    assert found.stderr.count("\n") == 1
    assert "truncated.png" in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where(run: Run, files: Path, plugins: Plugins) -> None:
    image = files / "text.png"
    result = run("--debug", "attribute", "--image", image, *TEXT)
    assert result.code == 2
    assert "Traceback (most recent call last)" in result.err
    assert result.err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in run("attribute", "--image", image, *TEXT).err


@pytest.mark.parametrize("command", [["evaluate"], ["calibrate", "--out", "c.json"]])
def test_a_needed_option_is_named_as_the_command_line_spells_it(
    command: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(*given: object, **options: object) -> None:
        raise AssertionError("nothing is loaded for a call that cannot be answered")

    monkeypatch.setattr("mmattrib.load_backbone", loads)
    told = run(*command, "--data", "pairs")
    assert (told.code, told.out) == (2, "")
    assert "add --data-option folder=DIR" in told.err
    told = run(*command, "--data-option", "fodler=x")
    assert told.code == 2
    assert "takes no option 'fodler'" in told.err


@pytest.fixture
def loud(tmp_path: Path) -> Path:
    """A folder with a damaged MP3 file, of which libmpg123 has much to say."""
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile reads no MP3")
    good = io.BytesIO()
    soundfile.write(good, np.sin(np.arange(9600) / 6).astype(np.float32), 16000, format="MP3")
    data = bytearray(good.getvalue())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    (tmp_path / "loud.mp3").write_bytes(data[: len(data) - 40])
    (tmp_path / "pairs.csv").write_text("audio,text\nloud.mp3,a dog\nloud.mp3,a cat\n")
    return tmp_path


def test_c_libraries_say_nothing_on_the_programs_standard_error(
    loud: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(InputError):
        load("audio", loud / "loud.mp3")
    assert "Illegal Audio-MPEG-Header" in capfd.readouterr().err, "the file tries nothing"
    run("attribute", "--audio", loud / "loud.mp3", "--text", "a dog", "--method", "random")
    run("evaluate", "--data", "pairs", "--data-option", f"folder={loud}", "--method", "random",
        "--metric", "confidence_drop")  # fmt: skip
    assert "MPEG" not in capfd.readouterr().err
    with contextlib.suppress(InputError):
        load("audio", loud / "loud.mp3")
    assert "MPEG" in capfd.readouterr().err, "and the process is as it was"


@pytest.mark.slow
def test_nor_do_they_in_the_processes_that_share_its_work(loud: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmattrib", "evaluate", "--data", "pairs", "--data-option",
         f"folder={loud}", "--method", "random", "--metric", "confidence_drop", "--jobs", "2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "MPEG" not in done.stderr


def test_what_python_says_is_not_dropped_with_it(capfd: pytest.CaptureFixture[str]) -> None:
    with hushing():
        print("before", file=sys.__stderr__, end="")
        with hushed():
            os.write(2, b"a library's")
        os.write(2, b", after")
    with hushed():
        os.write(2, b", as ever")
    assert capfd.readouterr().err.endswith("before, after, as ever")
