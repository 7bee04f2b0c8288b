"""Photographs in COCO's layout, with the outlines of what they show.

``instances.json`` holds pictures, categories and annotations (polygons, or run lengths in either of
COCO's forms), ``captions.json`` the captions; in COCO's own releases they are
``annotations/instances_val2017.json`` and ``annotations/captions_val2017.json``, beside the folder
``val2017``. Lin et al. 2014, Microsoft COCO: Common Objects in Context.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from mmattrib.datasets.base import Dataset
from mmattrib.datasets.reading import Digest, as_path, as_word, inside, one_of
from mmattrib.datasets.regions import (
    Outlines,
    Polygons,
    check_picture_size,
    picture_size,
    run_lengths,
)
from mmattrib.datasets.tables import said
from mmattrib.errors import InputError, OptionError, brief
from mmattrib.files import is_file, is_folder
from mmattrib.io.files import unreadable
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Part, Sample, SpanRegion, Truth

if TYPE_CHECKING:
    from mmattrib.types import JSONValue

Texts: TypeAlias = Literal["categories", "captions"]

TEMPLATE: Final = "a photo of a {}"
"""What the name of a category is put into."""

MAX_BYTES: Final = 2**30
"""Of an index: the largest of COCO's own has 450 MB."""

SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "person": (
        "people", "man", "men", "woman", "women", "boy", "girl", "child", "children", "kid",
        "baby", "lady", "guy", "player", "rider", "skier", "surfer", "skateboarder",
    ),
    "bicycle": ("bike",),
    "motorcycle": ("motorbike",),
    "airplane": ("plane", "jet", "aeroplane"),
    "cell phone": ("phone", "cellphone"),
    "couch": ("sofa",),
    "tv": ("television",),
    "refrigerator": ("fridge",),
    "donut": ("doughnut",),
    "dining table": ("table",),
    "potted plant": ("plant",),
    "sports ball": ("ball",),
    "mouse": ("mice",),
    "sheep": ("lamb",),
    "dog": ("puppy", "puppies"),
    "cat": ("kitten",),
}  # fmt: skip
"""Other words of captions that name a category; plurals in -s, -es and -ies are found anyway."""


class CocoDataset(Dataset):
    """Photographs with captions or with the names of what they show, and the truth of both."""

    name = "coco"

    def __init__(
        self,
        folder: str | Path,
        texts: str = "categories",
        split: str | None = None,
        least: float = 0.02,
        most: float = 0.6,
    ) -> None:
        """Open a folder.

        Args:
            folder: of the photographs and the two indices.
            texts: ``"categories"``: a sample for every category of a photograph, with the text "a
                photo of a {category}"; ``"captions"``: a sample for every caption that names a
                category of its photograph.
            split: of one of COCO's own releases, e.g. ``"val2017"``; None where the indices lie in
                ``folder`` itself and the photographs there or in its folder ``photos``.
            least: categories that cover less of their photograph are left out, as a share of its
                area; in captions, they are not shared.
            most: the same for those that cover more.

        Raises:
            InputError: an index is missing or broken, a photograph is missing, or nothing is left.
            OptionError: no path, other texts, or shares that leave no room.
        """
        self.folder = as_path(folder, "folder")
        self.texts = one_of(texts, "texts", get_args(Texts))
        self.split = None if split is None else as_word(split, "split")
        self.least, self.most = _shares(least, most)
        places = _places(self.folder, self.split)
        self._indices: list[str] = []
        self._instances = _Instances(self._index(places.instances), places.instances.name)
        found = self._index(places.captions) if texts == "captions" else {}
        self._captions = _captions(found, places.captions)
        self._photos = places.photos
        self._check_photos()
        if not any(True for _ in self):
            raise InputError(
                f"{self.folder} has no photograph with a category that covers {least:.0%} to "
                f"{most:.0%} of it{' and is named in its captions' if found else ''}"
            )

    def __iter__(self) -> Iterator[Sample]:
        for picture in self._instances.pictures:
            objects = self._instances.objects(picture)
            wanted = [each for each in objects if self.least <= each.area <= self.most]
            if wanted:
                yield from (
                    self._named(picture, objects, wanted)
                    if self.texts == "categories"
                    else self._captioned(picture, objects, wanted)
                )

    def describe(self) -> dict[str, JSONValue]:
        digest = Digest("".join(self._indices))
        for picture in self._instances.pictures:
            path = self._photos / picture.file
            try:
                digest.file(path)
            except OSError as error:
                raise unreadable(path, "a photograph", error) from error
        return {
            "texts": self.texts,
            "least": self.least,
            "most": self.most,
            "sha256": digest.hexdigest(),
        }

    @property
    def categories(self) -> tuple[str, ...]:
        """Every category of the index, whether or not a photograph shows it."""
        return tuple(self._instances.names.values())

    def pictures(self) -> list[tuple[Path, tuple[str, ...], frozenset[str]]]:
        """Every photograph of the index: its path, its captions, and the categories in it.

        There are no captions unless ``texts`` is ``"captions"``.
        """
        return [
            (
                self._photos / picture.file,
                tuple(self._captions.get(picture.number, ())),
                frozenset(each.name for each in self._instances.objects(picture)),
            )
            for picture in self._instances.pictures
        ]

    def _index(self, path: Path) -> Mapping[str, Any]:
        try:
            found, raw = _read(path)
        except OSError as error:
            raise unreadable(path, "an index", error) from error
        self._indices.append(hashlib.sha256(raw).hexdigest())
        return found

    def _check_photos(self) -> None:
        for picture in self._instances.pictures:
            path = self._photos / picture.file
            if not is_file(path):
                raise InputError(
                    f"{brief(str(path), 300)} is missing, which the index names; put the "
                    "photographs there, or take them out of the index"
                )
            found = picture_size(path)
            if found is None:
                raise InputError(
                    f"{path} is no picture whose size can be read; copy it again, or take it out "
                    "of the index"
                )
            if found != (picture.width, picture.height):
                raise InputError(
                    f"{path} has {found[0]} x {found[1]} pixels as it is shown, and the index says "
                    f"{picture.width} x {picture.height} (width x height) of picture "
                    f"{picture.number}: its outlines would lie elsewhere. Give the photograph that "
                    "was outlined"
                )

    def _named(
        self, picture: _Picture, objects: Sequence[_Object], wanted: Sequence[_Object]
    ) -> Iterator[Sample]:
        for own in wanted:
            parts = tuple(Part(each.region, each is own, each.name) for each in objects)
            yield Sample(
                f"{picture.number}-{_in_ids(own.name)}",
                {"image": self._photos / picture.file, "text": TEMPLATE.format(own.name)},
                {"image": Truth(parts)},
                {"category": own.name, "area": round(own.area, 4)},
            )

    def _captioned(
        self, picture: _Picture, objects: Sequence[_Object], wanted: Sequence[_Object]
    ) -> Iterator[Sample]:
        for number, caption in enumerate(self._captions.get(picture.number, ())):
            spans = {each.name: tuple(naming(each.name, caption)) for each in wanted}
            named = [name for name, found in spans.items() if found]
            if named:
                yield Sample(
                    f"{picture.number}-{number}",
                    {"image": self._photos / picture.file, "text": caption},
                    {
                        "image": Truth(
                            tuple(
                                Part(each.region, each.name in named, each.name) for each in objects
                            )
                        ),
                        "text": Truth(
                            tuple(
                                Part(tuple(SpanRegion(*span) for span in spans[name]), True, name)
                                for name in named
                            )
                        ),
                    },
                    {"categories": list(named)},
                )


def naming(category: str, caption: str) -> Iterator[tuple[int, int]]:
    """Where a caption names a category: its name, a plural of it, or one of :data:`SYNONYMS`.

    >>> list(naming("dog", "Two dogs and a hotdog"))
    [(4, 8)]
    """
    for word in (category, *SYNONYMS.get(category, ())):
        stem = re.escape(word[:-1]) + "(?:y|ies)" if word.endswith("y") else re.escape(word)
        for found in re.finditer(rf"\b{stem}(?:s|es)?\b", caption, re.IGNORECASE):
            yield found.span()


@dataclass(frozen=True)
class _Places:
    instances: Path
    captions: Path
    photos: Path


def _places(folder: Path, split: str | None) -> _Places:
    if split is not None:
        index = folder / "annotations"
        return _Places(
            index / f"instances_{split}.json", index / f"captions_{split}.json", folder / split
        )
    photos = folder / "photos"
    return _Places(
        folder / "instances.json",
        folder / "captions.json",
        photos if is_folder(photos) else folder,
    )


@dataclass(frozen=True)
class _Picture:
    number: int
    file: str
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class _Object:
    """All of one category in one photograph."""

    name: str
    region: Outlines
    area: float


class _Instances:
    """The index of what photographs show, checked once."""

    def __init__(self, index: Mapping[str, Any], name: str) -> None:
        with _told(name):
            self.names = _names(index["categories"])
            self.pictures = tuple(
                sorted(map(_picture, index["images"]), key=lambda picture: picture.number)
            )
            if len({picture.number for picture in self.pictures}) < len(self.pictures):
                raise InputError("a picture is named twice")
            shapes: dict[int, dict[int, list[Any]]] = {}
            polygons = {
                picture.number: Polygons((picture.height, picture.width))
                for picture in self.pictures
            }
            for each in index["annotations"]:
                number, category = _whole(each["image_id"]), _whole(each["category_id"])
                own = shapes.setdefault(number, {}).setdefault(category, [])
                own.extend(_shapes(each, polygons[number]))
                if category not in self.names:
                    raise InputError(f"{_called(each)} is of no category of the index")
        self._shapes = shapes
        self._areas: dict[tuple[int, int], float] = {}

    def objects(self, picture: _Picture) -> list[_Object]:
        """What a photograph shows, a category at a time, in the order of their numbers."""
        found = []
        for category, shapes in sorted(self._shapes.get(picture.number, {}).items()):
            region = Outlines(tuple(shapes), (picture.height, picture.width))
            key = picture.number, category
            if key not in self._areas:
                self._areas[key] = float(region.mask().mean())
            if self._areas[key] > 0:
                found.append(_Object(self.names[category], region, self._areas[key]))
        return found


def _whole(value: Any) -> int:
    """A number that names something, as a number or in digits.

    Raises:
        InputError: it is another kind of value, or has digits behind the point.
    """
    found = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and value != found):
        raise InputError(f"{brief(value)} is no whole number")
    return found


def _names(categories: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Categories by number, each told from the others by its number, its name and its ids."""
    found: dict[int, str] = {}
    seen: dict[str, str] = {}
    for each in categories:
        number, name = (
            _whole(each["id"]),
            said(each["name"], f"the name of category {brief(each['id'])}"),
        )
        if number in found:
            raise InputError(f"two categories have the id {number}")
        if (before := seen.get(_in_ids(name))) is not None:
            raise InputError(
                f"category {number}, {brief(name)}, cannot be told from {brief(before)} above; "
                "rename one, or give both one id"
            )
        found[number] = seen[_in_ids(name)] = name
    return found


def _in_ids(name: str) -> str:
    return name.replace(" ", "-")


def _picture(entry: Mapping[str, Any]) -> _Picture:
    number = _whole(entry["id"])
    found = _Picture(
        number,
        said(entry["file_name"], f"file_name of picture {number}"),
        _whole(entry["height"]),
        _whole(entry["width"]),
    )
    check_picture_size(found.height, found.width, f"picture {found.number}")
    inside(Path(), found.file)
    return found


def _called(annotation: Mapping[str, Any]) -> str:
    return f"annotation {brief(annotation.get('id'))}"


def _shapes(annotation: Mapping[str, Any], polygons: Polygons) -> list[Any]:
    given, where = annotation["segmentation"], _called(annotation)
    if isinstance(given, dict):
        return [run_lengths(given, polygons.size, where)]
    return [polygons.checked(points, where) for points in given]


def _shares(least: Any, most: Any) -> tuple[float, float]:
    kinds = {type(least), type(most)} <= {int, float}
    if not kinds or not 0 <= least < most <= 1:
        raise OptionError(
            "least and most are shares of a picture's area, 0 <= least < most <= 1; got "
            f"{brief(least)} and {brief(most)}"
        )
    return least, most


def _captions(index: Mapping[str, Any], path: Path) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    with _told(path.name):
        for each in index.get("annotations", ()):
            if each["caption"] is not None and (text := " ".join(str(each["caption"]).split())):
                found.setdefault(_whole(each["image_id"]), []).append(text)
    return found


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Name the index where its JSON is of another shape."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{what}: {error}") from error
        raise InputError(
            f"{what} is not in COCO's layout ({type(error).__name__}: {str(error)[:80]}); "
            "accepted: images, categories and annotations as in instances_val2017.json"
        ) from error


def _read(path: Path) -> tuple[Mapping[str, Any], bytes]:
    if not is_file(path):
        raise InputError(f"{path} is missing; accepted: a folder in COCO's layout")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES} bytes")
    raw = path.read_bytes()
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); copy it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {type(found).__name__}; accepted: COCO's layout")
    return found, raw


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``coco``."""
    register(
        CocoDataset.name,
        CocoDataset,
        summary="photographs in COCO's layout: outlines, categories and captions",
        modalities=("image", "text"),
    )
