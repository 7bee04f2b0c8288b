"""A folder of inputs that belong together: ``pairs.csv`` and the files that it names.

A :mod:`manifest <mmattrib.datasets.manifest>` that lies in the folder under a fixed name.
"""

from __future__ import annotations

from pathlib import Path

from mmattrib.datasets.manifest import ManifestDataset
from mmattrib.datasets.reading import as_path
from mmattrib.datasets.rows import INPUTS
from mmattrib.errors import InputError
from mmattrib.files import is_file, is_folder
from mmattrib.plugins.hookspecs import Register, hookimpl

INDEX = "pairs.csv"


class PairsDataset(ManifestDataset):
    """The rows of a folder's ``pairs.csv``, each checked and made into a sample as it is read."""

    name = "pairs"

    def __init__(self, folder: str | Path, strict: bool = False, outside: bool = False) -> None:
        """Open a folder.

        Args:
            folder: holds ``pairs.csv``; or the path of such a table itself.
            strict: check every row now, and make the first broken one an error. By default a
                broken row is left out and told of.
            outside: whether rows may name files outside of the folder, as in a manifest.

        Raises:
            InputError: the file is missing or broken, or no row of it can be used. The message
                names the line.
            OptionError: ``folder`` is no path.
        """
        given = as_path(folder, "folder")
        index = given / INDEX if is_folder(given) else given
        if not is_file(index):
            raise InputError(f"{index} is missing; a folder with a {INDEX} is accepted")
        super().__init__(index, strict, outside)


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``pairs``."""
    register(
        PairsDataset.name,
        PairsDataset,
        summary=f"a folder with a {INDEX}: columns image, audio, text, and optional mask, boxes",
        modalities=INPUTS,
    )
