"""Write scenes with their truth as files that other programs can read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
from PIL import Image
from tqdm import tqdm

from mmattrib.datasets.scenes.bank import Bank, Split
from mmattrib.datasets.scenes.generator import MEL, Scene, generate
from mmattrib.errors import InputError, OptionError, check_whole
from mmattrib.files import as_path

INDEX: Final = "scenes.json"
"""Lists the folders of a written set."""


def write_scenes(
    out: str | Path,
    n: int,
    seed: int = 0,
    split: Split = "heldout",
    bank: Bank | None = None,
) -> list[Path]:
    """Write the first ``n`` scenes of a seed; the folder appears whole or not at all.

    Args:
        out: a folder to make; one that exists must be empty.
        n: how many scenes, at least 1.
        seed: which ones.
        split: ``"train"`` or ``"heldout"``.
        bank: what they are made of; the shipped one if None.

    Returns:
        One folder per scene, each with

        - ``image.png``, ``audio.flac`` (24 bits) and ``caption.txt``: the inputs;
        - ``truth.json``: the classes that all three share, and every object, event and mention;
        - ``masks.npz``: ``image`` (objects, H, W) and ``audio`` (events, mel, frames), bool, in
          the order of ``truth.json``;
        - ``shared.png``: the pixels of shared objects, white on black, to look at.

    Raises:
        InputError: the folder holds something already, or is a file.
        OptionError: ``n`` is out of range, the split is unknown, or the folder cannot be written.
    """
    check_whole(n, "n", 1)
    folder = as_path(out, "write_scenes", "folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is a file or is not empty; name a new folder")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    width = max(4, len(str(n - 1)))
    names = [f"scene-{index:0{width}d}" for index in range(n)]
    try:
        part.mkdir()
        for index in tqdm(range(n), unit="scene", disable=None):
            write_scene(generate(seed, index, split, bank=bank), part / names[index])
        _write_json(part / INDEX, {"seed": seed, "split": split, "scenes": names})
        part.replace(folder)
    except (OSError, soundfile.LibsndfileError) as error:
        shutil.rmtree(part, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise OptionError(
            f"scenes cannot be written to {str(folder)!r}: {reason}; name a new folder where there "
            "is room"
        ) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return [folder / name for name in names]


def write_scene(scene: Scene, folder: Path) -> None:
    """Write one scene into a new folder; :func:`write_scenes` says which files.

    Raises:
        OSError: the folder exists or cannot be written.
    """
    folder.mkdir()
    Image.fromarray(scene.image).save(folder / "image.png")
    soundfile.write(folder / "audio.flac", scene.audio, scene.sample_rate, subtype="PCM_24")
    (folder / "caption.txt").write_text(scene.caption + "\n", encoding="utf-8")
    _write_json(folder / "truth.json", truth(scene))
    height, width = scene.image.shape[:2]
    objects = _stack([o.mask for o in scene.objects], (height, width))
    frames = MEL.frames(len(scene.audio))
    events = _stack([e.mask for e in scene.events], (MEL.n_mels, frames))
    np.savez_compressed(folder / "masks.npz", image=objects, audio=events)
    shared = [o.mask for o in scene.objects if o.class_name in scene.shared]
    pixels = _stack(shared, (height, width)).any(0).astype(np.uint8) * 255
    Image.fromarray(pixels).save(folder / "shared.png")


def truth(scene: Scene) -> dict[str, Any]:
    """The truth of a scene in JSON values; masks are numbered as in ``masks.npz``.

    Times in seconds, frequencies in Hz (centres of mel bins), spans in characters of the caption
    with the end exclusive.
    """
    frames = MEL.frames(len(scene.audio))
    return {
        "seed": scene.seed,
        "index": scene.index,
        "split": scene.split,
        "caption": scene.caption,
        "shared": list(scene.shared),
        "objects": [
            {"class": o.class_name, "mask": k, "pixels": int(o.mask.sum()), "sprite": o.file}
            for k, o in enumerate(scene.objects)
        ],
        "events": [
            {
                "class": e.class_name,
                "mask": k,
                "cells": int(e.mask.sum()),
                "start": e.start,
                "end": e.end,
                "sound": e.file,
            }
            for k, e in enumerate(scene.events)
        ],
        "mentions": [
            {"class": m.class_name, "start": m.span[0], "end": m.span[1]} for m in scene.mentions
        ],
        "axes": {
            "sample_rate": scene.sample_rate,
            "mel_hz": list(MEL.hz()),
            "frame_seconds": list(MEL.seconds(frames)),
        },
    }


def _stack(masks: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(masks) if masks else np.zeros((0, *shape), bool)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
