"""Files of explanations that are damaged, foreign, too large or no files are refused."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from render_examples import audio_side, image_side, pair, text_side

from mmattrib.errors import InputError, OptionError
from mmattrib.io import _archive as archive
from mmattrib.io.explanations import load
from mmattrib.plugins.saving import save


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_truncated_and_foreign_files_are_input_errors(suffix: str, tmp_path: Path) -> None:
    good = save(pair(image_side(), audio_side()), tmp_path / f"good{suffix}").read_bytes()
    bad = tmp_path / f"bad{suffix}"
    cuts = [0, 1, 10, len(good) // 3, len(good) // 2, len(good) - 5]
    for data in (*(good[:cut] for cut in cuts), b"\x89PNG\r\n", b"[1, 2]", b"null", b"{}"):
        bad.write_bytes(data)
        with pytest.raises(InputError, match="bad"):
            load(bad)
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / f"missing{suffix}")


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    example = pair(image_side(4, 4), text_side())
    good = bytearray(save(example, tmp_path / "good.npz").read_bytes())
    bad = tmp_path / "bad.npz"
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(good), 150):
        data = bytearray(good)
        data[at] ^= 0xFF
        bad.write_bytes(data)
        # Anything but InputError, a crash or a hang fails the test.
        with contextlib.suppress(InputError):
            load(bad)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 99),
        (("format",), "other"),
        (("provenance",), []),
        (("similarity",), "high"),
        (("version",), 1),
        (("similarity",), None),
        (("attributions", "image", "token_scores"), [[1.0]]),
        (("attributions", "image", "token_scores"), [1.0]),
        (("attributions", "image", "token_scores"), [10**4000] * 20),
        (("attributions", "image", "layer"), 10**4000),
        (("attributions", "image", "layer"), True),
        (("attributions", "image", "placement", "kind"), "cloud"),
        (("attributions", "image", "placement", "axes"), []),
        (("attributions", "image", "placement", "cells", 0, "count"), 5),
        (("attributions", "image", "placement", "cells", 0, "length"), 2**40),
        (("attributions", "image", "placement", "cells", 0, "start"), 99),
        (("attributions", "image", "placement", "axes", 0, "count"), 2**40),
        (("attributions", "image", "placement", "axes", 0, "step"), "1e400"),
        (("attributions", "image", "placement", "order", "list"), list(range(1, 21))),
        (("attributions", "image", "placement", "order", "shape"), [-4, -5]),
        (("attributions", "image", "placement", "order", "dtype"), "<i8"),
        (("attributions", "text", "placement", "word_of_token", "list"), [99] * 9),
        (("attributions", "image", "unit"), 3),
        (("attributions", "image", "layer"), None),
        (("attributions", "text", "placement", "words"), [["a", 0]]),
        (("inputs", "image", "png", "shape"), [2, 2, 3]),
        (("inputs", "image", "png", "dtype"), "|O"),
        (("inputs", "image", "png", "base64"), "%%%"),
        (("inputs", "image", "png", "base64"), "iVBORw0KGgo="),
        (("inputs", "image", "kind"), "video"),
    ],
)
def test_json_with_one_wrong_entry_is_refused(
    path: tuple[str | int, ...], value: object, tmp_path: Path
) -> None:
    source = save(pair(image_side(4, 5), text_side("a b")), tmp_path / "x.json")
    tree = json.loads(source.read_text())
    entry = tree
    for key in path[:-1]:
        entry = entry[key]
    assert isinstance(path[-1], str)
    assert path[-1] in entry
    entry[path[-1]] = value
    source.write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"x\.json"):
        load(source)


def npz_with(member: bytes, name: str, tmp_path: Path) -> Path:
    source = save(pair(image_side(4, 5), text_side()), tmp_path / "good.npz")
    target = tmp_path / "evil.npz"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, member if entry == name else old.read(entry))
    return target


def test_npz_with_a_pickle_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"image\.token_scores"):
        load(npz_with(buffer.getvalue(), "image.token_scores.npy", tmp_path))


def test_npz_whose_header_claims_terabytes_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    with pytest.raises(InputError, match=r"image\.token_scores"):
        load(npz_with(buffer.getvalue(), "image.token_scores.npy", tmp_path))


def test_npz_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = npz_with(b"\0" * 5_000_000, "image.token_scores.npy", tmp_path)
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="unpacked"):
        load(path)


def test_too_large_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    for suffix in (".npz", ".json"):
        with pytest.raises(InputError, match="accepted are 1000"):
            save(pair(image_side(), text_side()), tmp_path / f"x{suffix}")
    assert list(tmp_path.iterdir()) == []


BOMB = """
import os, resource, sys, time
from mmattrib.errors import InputError
from mmattrib.io.explanations import load
import PIL.Image
for path in sys.argv[1:]:
    if os.fork():  # each in a process of its own, whose memory has no earlier peak
        os.wait()
        continue
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        load(path)
    except InputError:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        print(grown, time.process_time() - start, flush=True)
    else:
        print("loaded it", flush=True)
    os._exit(0)
"""


def bomb(name: str, tmp_path: Path) -> Path:
    zeros = io.BytesIO()
    if name in ("zeros", "text"):
        np.save(zeros, np.zeros(200_000_000, np.uint8))
    good = save(pair(image_side(4, 5), text_side()), tmp_path / "good.json").read_text()
    if name == "zeros":
        return npz_with(zeros.getvalue(), "image.token_scores.npy", tmp_path)
    if name == "text":
        return npz_with(zeros.getvalue(), "explanation.npy", tmp_path)
    if name == "members":
        target = tmp_path / "evil.npz"
        with zipfile.ZipFile(target, "w") as new:
            for number in range(40_000):
                new.writestr(f"{number}.npy", b"")
        return target
    target = tmp_path / "evil.json"
    if name == "list":
        target.write_text(good.replace('"token_scores": [', '"token_scores": [' + "1," * 9_000_000))
    if name == "depth":
        target.write_text(good.replace('"token_scores": [', '"token_scores": ' + "[" * 1_000_000))
    if name == "picture":
        picture = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(picture, "PNG")
        tree = json.loads(good)
        data = picture.getvalue()
        tree["inputs"]["image"]["png"] = {
            "dtype": "|u1",
            "shape": [len(data)],
            "base64": base64.b64encode(data).decode(),
        }
        target.write_text(json.dumps(tree))
    return target


def test_small_files_that_would_become_large_are_refused_at_once(tmp_path: Path) -> None:
    names = ("zeros", "text", "members", "list", "depth", "picture")
    paths = []
    for name in names:
        (tmp_path / name).mkdir()
        paths.append(str(bomb(name, tmp_path / name)))
    done = subprocess.run(
        [sys.executable, "-c", BOMB, *paths], capture_output=True, text=True, check=True
    )
    found = dict(zip(names, done.stdout.splitlines(), strict=True))
    for name, told in found.items():
        megabytes, seconds = told.split()
        assert int(megabytes) < 150, (name, found)
        assert float(seconds) < 1.0, (name, found)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_what_is_no_file_is_refused_and_never_replaced(suffix: str, tmp_path: Path) -> None:
    pipe, loop = tmp_path / f"pipe{suffix}", tmp_path / f"loop{suffix}"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    device = tmp_path / f"device{suffix}"
    device.symlink_to("/dev/null")
    for path in (pipe, loop, device):
        with pytest.raises(InputError, match=path.name):
            load(path)
        with pytest.raises(OptionError, match=path.name):
            save(pair(image_side(), text_side()), path)
    assert pipe.is_fifo()
    assert device.is_symlink()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        path.name for path in (pipe, loop, device)
    )


def test_an_unwritable_place_is_an_option_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (
        tmp_path / "file" / "x.npz",
        Path("/proc/x.npz"),
        tmp_path / ("x" * 300 + ".npz"),
    ):
        with pytest.raises(OptionError, match="cannot write"):
            save(pair(image_side(), text_side()), place)
