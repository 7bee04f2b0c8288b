"""Every registered data set keeps the contract of a data set."""

from __future__ import annotations

import contextlib
import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_examples import needed

import mmattrib as mm
from mmattrib.errors import MmattribError
from mmattrib.plugins import default_plugins
from mmattrib.plugins.registry import OWN_DISTRIBUTION
from mmattrib.testing import check_dataset

NAMES = [
    entry.name
    for entry in default_plugins().registry.entries("dataset")
    if entry.distribution == OWN_DISTRIBUTION
]


def options_of(name: str, folder: Path) -> dict[str, Any]:
    """What opens a small data set of a name, in a folder that may be written to."""
    given: dict[str, Any] = needed("dataset", name, "the options that open a small one")(folder)
    return given


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_keeps_its_contract(name: str, tmp_path: Path) -> None:
    dataset = mm.load_dataset(name, **options_of(name, tmp_path))
    check_dataset(dataset)
    assert dataset.name == name


@pytest.mark.filterwarnings("ignore::mmattrib.errors.InputWarning")
@pytest.mark.parametrize("name", NAMES)
def test_files_may_go_away_after_opening(name: str, tmp_path: Path) -> None:
    """Whatever is asked then has an answer, or an error that can be caught."""
    (folder := tmp_path / "data").mkdir()
    dataset = mm.load_dataset(name, **options_of(name, folder))
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
