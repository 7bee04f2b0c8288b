"""VGG-SS: frames of videos with their sound, and boxes around what sounds.

``vggss.json`` is a list of ``{"file": ..., "class": ..., "bbox": [...]}`` with boxes ``[left, top,
right, bottom]`` in shares of the frame; the frames are ``frames/{file}.jpg``, the sounds
``audio/{file}.wav``. Chen et al. 2021, Localizing Visual Sounds the Hard Way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmattrib.datasets.reading import (
    IMAGES,
    SOUNDS,
    Problems,
    Reader,
    as_folder,
    as_path,
    as_template,
    first_file,
    in_layout,
    inside,
    with_suffixes,
)
from mmattrib.datasets.regions import RelativeBox, box_in
from mmattrib.datasets.tables import number_of, read_json, said
from mmattrib.errors import InputError, brief
from mmattrib.files import is_file
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Part, Sample, Truth

INDEX = "vggss.json"


class VGGSSDataset(Reader):
    """A sample for every frame: the picture, its sound, and the name of its class as a caption."""

    name = "vgg-ss"

    def __init__(
        self,
        folder: str | Path,
        annotations: str | Path | None = None,
        template: str = "{}",
        strict: bool = False,
    ) -> None:
        """Open a folder.

        Args:
            folder: holds the folders ``frames`` and ``audio``.
            annotations: the JSON file. By default ``vggss.json`` in ``folder``, or in its folder
                ``metadata``.
            template: what the name of the class is put into, to be the caption.
            strict: check every entry now, and make the first broken one an error.

        Raises:
            InputError: a file is missing or broken, or no entry can be used.
            OptionError: an option is of another kind.
        """
        self.folder = as_folder(folder)
        self.template = as_template(template)
        here, there = self.folder / INDEX, self.folder / "metadata" / INDEX
        given = there if is_file(there) else here
        index = given if annotations is None else as_path(annotations, "annotations")
        super().__init__(index, strict, template=template)

    def _entries(self, problems: Problems) -> Iterator[tuple[str, Any]]:
        accepted = "a list of objects with file, class and bbox"
        found = read_json(self.source, accepted)
        if not isinstance(found, list):
            raise InputError(f"{self.source} holds {type(found).__name__}; accepted: {accepted}")
        for number, entry in enumerate(found):
            yield f"{self.source}, entry {number + 1}", entry

    def _made(self, place: str, entry: Any) -> Iterator[Sample]:
        with in_layout():
            name, kind = said(entry["file"], "file"), said(entry["class"], "class")
            frames = with_suffixes(inside(self.folder / "frames", name), IMAGES)
            sounds = with_suffixes(inside(self.folder / "audio", name), SOUNDS)
            boxes = tuple(map(_box, entry["bbox"]))
        if not boxes:
            raise InputError("bbox is empty")
        yield Sample(
            name,
            {
                "image": first_file(frames, "frame"),
                "audio": first_file(sounds, "sound"),
                "text": self.template.format(kind),
            },
            {"image": Truth((Part(boxes, True, kind),))},
            {"class": kind},
        )


def _box(box: Any) -> RelativeBox:
    if not isinstance(box, list) or len(box) != 4:
        raise InputError(
            f"bbox holds {brief(box, 80)}; accepted: four numbers, left top right bottom"
        )
    left, top, right, bottom = (number_of(edge, "an edge of bbox") for edge in box)
    return box_in(left, top, right, bottom, 1, 1, math.inf)  # cut at the edges, as its authors do


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``vgg-ss``."""
    register(
        VGGSSDataset.name,
        VGGSSDataset,
        summary="VGG-SS: frames of videos with their sound, and boxes around what sounds",
        modalities=("image", "audio", "text"),
    )
