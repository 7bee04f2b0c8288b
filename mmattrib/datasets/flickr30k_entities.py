"""Flickr30k Entities: photographs with five sentences each, and boxes for the phrases in them.

``Sentences/{picture}.txt`` has a sentence a line, in which ``[/EN#4/people A man]`` marks a phrase
of the entity 4; ``Annotations/{picture}.xml`` has boxes for entities. Plummer et al. 2015,
Flickr30k Entities: Collecting Region-to-Phrase Correspondences for Richer Image-to-Sentence Models.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args

from mmattrib.datasets.reading import (
    IMAGES,
    MissingFileError,
    Problems,
    Reader,
    as_folder,
    as_word,
    first_file,
    in_layout,
    inside,
    one_of,
    with_suffixes,
)
from mmattrib.datasets.regions import RelativeBox, box_in, check_picture_size, check_shape
from mmattrib.errors import InputError
from mmattrib.files import is_file, is_folder
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Part, Sample, SpanRegion, Truth

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

Texts: TypeAlias = Literal["sentences", "phrases"]

MAX_FILE: Final = 2**20
"""Bytes of a file of sentences or of boxes: those of the data set have a few thousand."""

MAX_SENTENCES: Final = 1000

_MARKED: Final = re.compile(
    r"\[/EN#(?P<entity>\d+)(?P<kinds>(?:/[^\s/\]]+)*)\s+(?P<said>[^\[\]]*)\]"
)


class Phrase(NamedTuple):
    """A phrase of a sentence.

    Attributes:
        entity: whom or what it means; 0 for what is not in the picture.
        kinds: of what kind that is, such as ``people``.
        start: where it starts in the sentence, in characters.
        end: where it ends, exclusive.
    """

    entity: str
    kinds: tuple[str, ...]
    start: int
    end: int


class _Boxes(NamedTuple):
    """What the XML file of a picture says: its size and the boxes of each entity."""

    size: tuple[int, int]
    boxes: dict[str, tuple[RelativeBox, ...]]


class Flickr30kEntitiesDataset(Reader):
    """Sentences or phrases of photographs; the truth of both sides are the phrases with boxes."""

    name = "flickr30k-entities"

    def __init__(
        self,
        folder: str | Path,
        texts: str = "sentences",
        split: str | None = None,
        strict: bool = False,
    ) -> None:
        """Open a folder.

        Args:
            folder: holds the folders ``Sentences`` and ``Annotations``, and the photographs in
                ``flickr30k-images``, ``flickr30k_images``, ``images`` or itself.
            texts: ``"sentences"``: a sample for every sentence; its phrases are parts of the
                picture, where they have boxes, and of the caption. ``"phrases"``: a sample for
                every phrase with boxes, with the phrase as its caption; the others of its
                sentence are parts of the picture that it does not share.
            split: take the pictures that ``{split}.txt`` in the folder names, one a line.
            strict: check every sentence now, and make the first broken one an error.

        Raises:
            InputError: a file is missing or broken, or no sentence can be used.
            OptionError: an option is of another kind.
        """
        self.folder = as_folder(folder)
        self.texts = one_of(texts, "texts", get_args(Texts))
        split = None if split is None else as_word(split, "split")
        self.list = None if split is None else inside(self.folder, f"{split}.txt")
        if self.list is not None and not is_file(self.list):
            raise InputError(f"{self.list} is missing, which names the pictures of the split")
        if not is_folder(self.folder / "Sentences"):
            raise InputError(
                f"{self.folder} has no folder Sentences; Flickr30k Entities' is needed"
            )
        super().__init__(self.folder, strict, texts=texts, split=split)

    def _names(self) -> Iterator[str]:
        """Pictures in the order of their names, or of the list."""
        if self.list is None:
            yield from sorted(path.stem for path in (self.folder / "Sentences").glob("*.txt"))
            return
        for line in _text(self.list, 64 * MAX_FILE).splitlines():
            if line.strip():
                yield line.strip().removesuffix(".jpg")

    def _sentences(self, name: str) -> Path:
        return inside(self.folder / "Sentences", f"{name}.txt")

    def _annotation(self, name: str) -> Path:
        return inside(self.folder / "Annotations", f"{name}.xml")

    def _entries(self, problems: Problems) -> Iterator[tuple[str, Any]]:
        for name in self._names():
            place = str(self._sentences(name))
            try:
                lines = _text(self._sentences(name), MAX_FILE).split("\n")
                boxes = _boxes(self._annotation(name))
                picture = first_file(self._pictures(name), "photograph")
                check_shape(picture, boxes.size)
            except MissingFileError as error:
                problems.add(place, error, "of a missing file")
            except InputError as error:
                problems.add(place, error)
            else:
                for number, line in enumerate(lines[:MAX_SENTENCES]):
                    if line.strip():
                        yield f"{place}, line {number + 1}", (name, number, line, picture, boxes)

    def _pictures(self, name: str) -> Iterator[Path]:
        for where in ("flickr30k-images", "flickr30k_images", "images", "."):
            yield from with_suffixes(inside(self.folder / where, name), IMAGES)

    def _made(self, place: str, entry: Any) -> Iterator[Sample]:
        name, number, line, picture, boxes = entry
        sentence, phrases = parse_sentence(line)
        placed = [phrase for phrase in phrases if phrase.entity in boxes.boxes]
        if not placed:
            return  # a sentence about the scene, or about what is not to be seen
        if self.texts == "sentences":
            yield _of_sentence(f"{name}-{number}", picture, sentence, placed, boxes)
            return
        for at, phrase in enumerate(placed):
            said = sentence[phrase.start : phrase.end]
            yield Sample(
                f"{name}-{number}-{at}",
                {"image": picture, "text": said},
                {"image": _truth({each.entity for each in placed}, {phrase.entity}, boxes)},
                {"entity": phrase.entity, "kinds": list(phrase.kinds), "sentence": sentence},
            )


def _of_sentence(
    name: str, picture: Path, sentence: str, placed: list[Phrase], boxes: _Boxes
) -> Sample:
    entities = dict.fromkeys(phrase.entity for phrase in placed)
    words = tuple(
        Part(
            tuple(SpanRegion(each.start, each.end) for each in placed if each.entity == entity),
            True,
            entity,
        )
        for entity in entities
    )
    return Sample(
        name,
        {"image": picture, "text": sentence},
        {"image": _truth(set(entities), set(entities), boxes), "text": Truth(words)},
        {"entities": list(entities)},
    )


def _truth(entities: set[str], shared: set[str], boxes: _Boxes) -> Truth:
    return Truth(
        tuple(
            Part(boxes.boxes[entity], entity in shared, entity)
            for entity in sorted(entities, key=int)
        )
    )


def parse_sentence(line: str) -> tuple[str, list[Phrase]]:
    """A sentence without its marks, and the phrases that they marked.

    Raises:
        InputError: a mark is broken.

    >>> parse_sentence("[/EN#4/people A man] sits .")
    ('A man sits .', [Phrase(entity='4', kinds=('people',), start=0, end=5)])
    """
    marked = " ".join(unicodedata.normalize("NFC", line).split())
    text, phrases, at = "", [], 0
    for found in _MARKED.finditer(marked):
        text += marked[at : found.start()]
        said, at = found["said"].strip(), found.end()
        kinds = tuple(found["kinds"].split("/")[1:])
        phrases.append(Phrase(found["entity"], kinds, len(text), len(text) + len(said)))
        text += said
    text += marked[at:]
    if "[/EN#" in text or any(phrase.start == phrase.end for phrase in phrases):
        raise InputError("a mark of a phrase is broken; accepted: [/EN#4/people A man]")
    return text, phrases


def _boxes(path: Path) -> _Boxes:
    """The boxes of an annotation file, whose corners are pixels counted from 1, both included."""
    from xml.etree.ElementTree import ParseError

    if not is_file(path):
        raise MissingFileError(f"Annotations/{path.name} is missing")
    try:
        with in_layout():
            return _parsed(_text(path, MAX_FILE))
    except (InputError, ParseError) as error:
        raise InputError(f"Annotations/{path.name}: {error}") from error


def _tree(text: str) -> Element:
    """A document without a document type, and so without entities of its own that could grow."""
    from xml.etree.ElementTree import TreeBuilder, XMLParser

    class NoDoctype(TreeBuilder):
        def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
            raise InputError("it declares a document type, which boxes do not need")

    parser = XMLParser(target=NoDoctype())
    parser.feed(text)
    return parser.close()


def _parsed(text: str) -> _Boxes:
    root = _tree(text)
    width, height = (int(_value(root, f"size/{side}")) for side in ("width", "height"))
    check_picture_size(height, width, "the picture")
    boxes: dict[str, tuple[RelativeBox, ...]] = {}
    for each in root.findall("object"):
        if each.find("bndbox") is None:
            continue  # a scene, or not in the picture
        left, top, right, bottom = (
            float(_value(each, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        box = box_in(left - 1, top - 1, right, bottom, width, height)
        for name in each.findall("name"):
            entity = (name.text or "").strip()
            boxes[str(int(entity))] = (*boxes.get(str(int(entity)), ()), box)
    return _Boxes((width, height), boxes)


def _value(root: Element, path: str) -> str:
    found = root.findtext(path)
    if found is None:
        raise InputError(f"it has no {path}")
    return found


def _text(path: Path, most: int) -> str:
    if not is_file(path):
        raise MissingFileError(f"{path} is missing")
    if path.stat().st_size > most:
        raise InputError(f"{path} has more than {most:,} bytes")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeError as error:
        raise InputError(f"{path} is not UTF-8") from error


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``flickr30k-entities``."""
    register(
        Flickr30kEntitiesDataset.name,
        Flickr30kEntitiesDataset,
        summary="Flickr30k Entities: photographs, sentences, and boxes for the phrases in them",
        modalities=("image", "text"),
    )
