"""CheXlocalize: radiographs with outlines of ten findings.

``gt_annotations_{split}.json`` has polygons and the picture's size, and
``gt_segmentations_{split}.json`` masks as COCO's run lengths; the radiographs are CheXpert's:
``patient1_study1_view1_frontal`` is ``patient1/study1/view1_frontal.jpg``. Saporta et al. 2022,
Benchmarking saliency methods for chest X-ray interpretation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mmattrib.datasets.reading import (
    Problems,
    Reader,
    as_folder,
    as_path,
    as_template,
    as_word,
    first_file,
    in_layout,
    inside,
    with_suffixes,
    yes_or_no,
)
from mmattrib.datasets.regions import (
    Outlines,
    Polygons,
    check_picture_size,
    check_shape,
    run_lengths,
)
from mmattrib.datasets.tables import read_json
from mmattrib.errors import InputError, brief
from mmattrib.files import is_file
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Part, Sample, Truth

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".dcm")
KINDS: Final = ("annotations", "segmentations")


class CheXlocalizeDataset(Reader):
    """A sample for every finding that a radiograph shows, with the finding's name as a caption."""

    name = "chexlocalize"

    def __init__(
        self,
        folder: str | Path,
        split: str = "val",
        annotations: str | Path | None = None,
        template: str = "{}",
        stretched: bool = False,
        strict: bool = False,
    ) -> None:
        """Open a folder.

        Args:
            folder: holds the radiographs in ``CheXpert/{split}``, ``CheXpert-v1.0/valid``,
                ``{split}`` or itself. They may be scaled: outlines are scaled with them.
            split: ``val`` or ``test``.
            annotations: the JSON file, of polygons or of masks. By default
                ``gt_annotations_{split}.json``, or else ``gt_segmentations_{split}.json``, in
                ``folder`` or in its folder ``CheXlocalize``.
            template: what the name of the finding, in small letters, is put into.
            stretched: whether pictures may have been scaled to other proportions, with nothing
                cut off or added. By default a picture of other proportions is left out.
            strict: check every finding now, and make the first broken one an error.

        Raises:
            InputError: a file is missing or broken, or no finding can be used.
            OptionError: an option is of another kind.
        """
        self.folder = as_folder(folder)
        self.template = as_template(template)
        split = as_word(split, "split")
        places = [
            inside(place, f"gt_{kind}_{split}.json")
            for kind in KINDS
            for place in (self.folder / "CheXlocalize", self.folder)
        ]
        found = next(filter(is_file, places), places[-1])
        index = found if annotations is None else as_path(annotations, "annotations")
        valid = "valid" if split == "val" else split
        self.folders = tuple(
            self.folder / place
            for place in (f"CheXpert/{split}", f"CheXpert-v1.0/{valid}", split, ".")
        )
        self.stretched = yes_or_no(stretched, "stretched")
        super().__init__(index, strict, split=split, template=template, stretched=stretched)

    def _entries(self, problems: Problems) -> Iterator[tuple[str, Any]]:
        accepted = "an object with an object of findings for every radiograph"
        found = read_json(self.source, accepted)
        if not isinstance(found, dict):
            raise InputError(f"{self.source} holds {type(found).__name__}; accepted: {accepted}")
        for name, findings in found.items():
            if not isinstance(findings, dict):
                problems.add(
                    f"{self.source}, {brief(name, 100)}", f"no object; accepted: {accepted}"
                )
                continue
            for finding, given in findings.items():
                if finding != "img_size":
                    size = findings.get("img_size")
                    yield (
                        f"{self.source}, {brief(name, 100)}, {brief(finding)}",
                        (name, finding, given, size),
                    )

    def _made(self, place: str, entry: tuple[str, str, Any, Any]) -> Iterator[Sample]:
        name, finding, given, size = entry
        with in_layout():
            region = _masked(given) if isinstance(given, Mapping) else _outlined(given, size)
            if region is None:
                return  # the radiograph does not show it
            picture = self._picture(name)
            if not self.stretched:
                check_shape(picture, region.size[::-1])
        yield Sample(
            f"{name}-{finding.replace(' ', '-')}",
            {"image": picture, "text": self.template.format(finding.lower())},
            {"image": Truth((Part(region, True, finding),))},
            {"cxr": name, "finding": finding},
        )

    def _picture(self, name: str) -> Path:
        path = "/".join(name.split("_", 2))
        stems = [inside(folder, stem) for folder in self.folders for stem in (path, name)]
        return first_file(
            (found for stem in stems for found in with_suffixes(stem, SUFFIXES)), "radiograph"
        )


def _masked(given: Mapping[str, Any]) -> Outlines | None:
    """A mask of run lengths, or None for one without a pixel."""
    size = check_picture_size(int(given["size"][0]), int(given["size"][1]), "the mask")
    runs = run_lengths(given, size, "the mask")
    return Outlines((runs,), size, scaled=True) if sum(runs["counts"][1::2]) else None


def _outlined(given: Any, size: Any) -> Outlines | None:
    """Polygons as lists of points, or None where there are none."""
    if size is None:
        raise InputError("there is no img_size beside the outlines")
    height, width = check_picture_size(int(size[0]), int(size[1]), "the picture")
    shapes, polygons = [], Polygons((height, width))
    for contour in given:
        shape = polygons.checked([n for point in contour for n in point], "the outline")
        if min(shape) < -1 or max(shape[::2]) > width + 1 or max(shape[1::2]) > height + 1:
            raise InputError(
                f"an outline reaches outside of the picture of {width} x {height} pixels"
            )
        shapes.append(shape)
    return Outlines(tuple(shapes), (height, width), scaled=True) if shapes else None


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``chexlocalize``."""
    register(
        CheXlocalizeDataset.name,
        CheXlocalizeDataset,
        summary="CheXlocalize: radiographs with outlines of ten findings",
        modalities=("image", "text"),
    )
