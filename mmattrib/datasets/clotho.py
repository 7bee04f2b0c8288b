"""Clotho: recordings with five captions each.

``clotho_captions_{split}.csv`` has the columns ``file_name`` and ``caption_1`` to ``caption_5``,
the recordings lie in the folder ``{split}``. Drossos et al. 2020, Clotho: an Audio Captioning
Dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmattrib.datasets.reading import Problems, Reader, as_folder, as_word, first_file, inside
from mmattrib.datasets.tables import Row, needs_columns, read_csv
from mmattrib.errors import InputError, check_whole
from mmattrib.files import is_file
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Sample

CAPTIONS: Final = tuple(f"caption_{number}" for number in range(1, 6))


class ClothoDataset(Reader):
    """A sample for every caption of a recording."""

    name = "clotho"

    def __init__(
        self,
        folder: str | Path,
        split: str = "evaluation",
        captions: int = 5,
        strict: bool = False,
    ) -> None:
        """Open a folder.

        Args:
            folder: holds the CSV file, and the recordings in its folder ``{split}`` or itself.
            split: ``development``, ``validation`` or ``evaluation``.
            captions: how many of each recording's captions to take, 1 to 5.
            strict: check every row now, and make the first broken one an error.

        Raises:
            InputError: the CSV file is missing or has other columns, or no row can be used.
            OptionError: an option is of another kind.
        """
        self.folder = as_folder(folder)
        self.captions = check_whole(captions, "captions", 1, len(CAPTIONS))
        self.split = as_word(split, "split")
        index = inside(self.folder, f"clotho_captions_{split}.csv")
        if not is_file(index):
            raise InputError(f"{index} is missing; a folder in Clotho's layout is accepted")
        super().__init__(index, strict, split=split, captions=captions)

    def _entries(self, problems: Problems) -> Iterator[tuple[str, Row]]:
        needed = ("file_name", *CAPTIONS[: self.captions])
        return read_csv(self.source, problems, needs_columns(self.source, needed))

    def _made(self, place: str, entry: Row) -> Iterator[Sample]:
        name = entry["file_name"]
        places = [inside(self.folder / self.split, name), inside(self.folder, name)]
        sound = first_file(places, "recording")
        for number, column in enumerate(CAPTIONS[: self.captions], 1):
            if not entry[column]:
                raise InputError(f"{column} is empty")
            yield Sample(
                f"{name.removesuffix('.wav')}-{number}",
                {"audio": sound, "text": entry[column]},
                tags={"file_name": name, "caption": number},
            )


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``clotho``."""
    register(
        ClothoDataset.name,
        ClothoDataset,
        summary="Clotho: recordings with five captions each",
        modalities=("audio", "text"),
    )
