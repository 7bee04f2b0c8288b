"""Every registered data set keeps the contract of a data set."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_folder import write_coco
from PIL import Image

import mmattrib as mm
from mmattrib.plugins import default_plugins
from mmattrib.testing import check_dataset

NAMES = default_plugins().registry.names("dataset")


def _scenes(_: Path) -> dict[str, Any]:
    return {"n": 3, "seed": 7}


def _pairs(folder: Path) -> dict[str, Any]:
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(random.integers(0, 255, (24, 32, 3), "uint8")).save(folder / f"{name}.png")
    mask = np.zeros((24, 32), np.uint8)
    mask[4:12, 8:20] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    rows = ["image,text,id,mask,boxes,source", "one.png,a dog,x,mask.png,,mine"]
    rows += ["two.png,a cat,y,,2 3 10 12; 4 4 8 20,"]
    (folder / "pairs.csv").write_text("\n".join(rows), encoding="utf-8")
    return {"folder": folder}


def _coco(folder: Path) -> dict[str, Any]:
    return {"folder": write_coco(folder)}


OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "coco": _coco,
    "pairs": _pairs,
    "scenes": _scenes,
}
"""Data sets that need options, or are quicker with some: what makes a small one in a folder."""


def options_of(name: str, folder: Path) -> dict[str, Any]:
    if name in OPTIONS:
        return OPTIONS[name](folder)
    factory = default_plugins().registry.get("dataset", name).factory
    needed = [
        p.name
        for p in inspect.signature(factory).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if needed:
        pytest.skip(f"data set {name!r} needs {', '.join(needed)}: its own test checks it")
    return {}


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_keeps_its_contract(name: str, tmp_path: Path) -> None:
    dataset = mm.load_dataset(name, **options_of(name, tmp_path))
    check_dataset(dataset)
    assert dataset.name == name


def test_no_options_are_kept_for_a_data_set_that_is_gone() -> None:
    assert set(OPTIONS) <= set(NAMES)
