"""Data sets: samples with their truth, one reader per file. Importing this imports no torch."""

from __future__ import annotations

from typing import Any

from mmattrib.datasets.base import Dataset, First, Samples, as_dataset
from mmattrib.errors import PluginError

__all__ = ["Dataset", "First", "Samples", "as_dataset", "load_dataset"]


def load_dataset(name: str, **options: Any) -> Dataset:
    """Open a registered data set.

    Args:
        name: as ``mmattrib datasets`` lists it, e.g. ``"scenes"`` or ``"pairs"``.
        **options: the data set's own, e.g. ``n=`` of scenes, ``folder=`` of pairs.

    Raises:
        UnknownNameError: no such name; the message gives the nearest ones.
        OptionError: an unknown option, or one out of range.
        InputError: its files cannot be used.
        PluginError: its plugin gave something else.

    Example:
        >>> import mmattrib as mm
        >>> mm.load_dataset("scenes", n=2)
        ScenesDataset('scenes', 2 samples)
    """
    from mmattrib.plugins import default_plugins

    found = default_plugins().registry.create("dataset", name, **options)
    if not isinstance(found, Dataset):
        raise PluginError(
            f"data set {name!r} gave {type(found).__name__}; its factory must return "
            "mmattrib.datasets.Dataset"
        )
    return found
