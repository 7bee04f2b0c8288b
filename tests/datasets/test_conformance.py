"""Every registered data set keeps the contract of a data set."""

from __future__ import annotations

import contextlib
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_folders as folders
import pytest
from coco_folder import write_coco

import mmattrib as mm
from mmattrib.errors import MmattribError
from mmattrib.plugins import default_plugins
from mmattrib.testing import check_dataset

NAMES = default_plugins().registry.names("dataset")


def _scenes(_: Path) -> dict[str, Any]:
    return {"n": 3, "seed": 7}


def _coco(folder: Path) -> dict[str, Any]:
    return {"folder": write_coco(folder)}


OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "audiocaps": folders.audiocaps,
    "chexlocalize": folders.chexlocalize,
    "clotho": folders.clotho,
    "coco": _coco,
    "conceptual-captions": folders.conceptual_captions,
    "desed": folders.desed,
    "flickr30k-entities": folders.flickr30k_entities,
    "huggingface": folders.huggingface,
    "manifest": folders.manifest,
    "ms-cxr": folders.ms_cxr,
    "pairs": folders.pairs,
    "scenes": _scenes,
    "vgg-ss": folders.vgg_ss,
    "webdataset": folders.webdataset,
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


@pytest.mark.filterwarnings("ignore::mmattrib.errors.InputWarning")
@pytest.mark.parametrize("name", NAMES)
def test_files_may_go_away_after_opening(name: str, tmp_path: Path) -> None:
    """Whatever is asked then has an answer, or an error that can be caught."""
    dataset = mm.load_dataset(name, **options_of(name, folder := tmp_path / "data"))
    made = sorted(path for path in folder.rglob("*") if path.is_file())
    for asked in (dataset.describe, lambda: list(dataset)):
        for path in made:  # the first file alone, then more and more of them
            path.unlink(missing_ok=True)
            with contextlib.suppress(MmattribError):
                asked()
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(MmattribError):
            asked()


HOSTILE = (10**6000, "9" * 6000, b"1" * 6000, float("nan"), [5] * 99_999, None, "\0", "1e400")


@pytest.mark.filterwarnings("ignore::mmattrib.errors.InputWarning")
@pytest.mark.parametrize("name", NAMES)
def test_what_is_echoed_of_an_option_is_short(name: str, tmp_path: Path) -> None:
    given = options_of(name, tmp_path)
    factory = default_plugins().registry.get("dataset", name).factory
    for option in inspect.signature(factory).parameters:
        for value in HOSTILE:
            said = ""
            try:
                mm.load_dataset(name, **{**given, option: value})
            except MmattribError as error:
                said = str(error)
            assert len(said) < 1000, option


def test_no_options_are_kept_for_a_data_set_that_is_gone() -> None:
    assert set(OPTIONS) <= set(NAMES)
