"""DESED: recordings of homes, with the onset and the offset of every sound event.

The metadata are tab-separated, ``filename onset offset event_label``, one row an event; sounds lie
in the folder ``audio`` as the tables do in ``metadata``. Turpault et al. 2019, Sound event
detection in domestic environments with weakly labeled data and soundscape synthesis.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmattrib.datasets.reading import (
    Problems,
    Reader,
    as_path,
    as_template,
    first_file,
    inside,
)
from mmattrib.datasets.tables import Row, needs_columns, number_of, read_csv
from mmattrib.errors import InputError
from mmattrib.files import is_file
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Part, Sample, TimeRegion, Truth

COLUMNS: Final = ("filename", "onset", "offset", "event_label")
TEMPLATE: Final = "the sound of {}"
MAX_EVENTS: Final = 1_000_000


class _Recording:
    """A recording with its events, and where each stands in the table."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: dict[str, list[tuple[str, Row]]] = {}


class DESEDDataset(Reader):
    """A sample for every kind of event in a recording; its events are the truth on time."""

    name = "desed"

    def __init__(
        self,
        annotations: str | Path,
        audio: str | Path | None = None,
        template: str = TEMPLATE,
        strict: bool = False,
    ) -> None:
        """Open a table.

        Args:
            annotations: a table with strong labels, such as ``metadata/validation/validation.tsv``.
            audio: the folder of its sounds. By default the one that lies in ``audio`` as the table
                does in ``metadata``, with or without the table's own name behind it, or the
                table's folder.
            template: what the name of the event is put into, to be the caption.
            strict: check every event now, and make the first broken one an error.

        Raises:
            InputError: the table is missing or has other columns, or no event can be used.
            OptionError: an option is of another kind.
        """
        index = as_path(annotations, "annotations")
        if not is_file(index):
            raise InputError(f"{index} is missing; a table such as validation.tsv is accepted")
        self.template = as_template(template)
        self.folders = _beside(index) if audio is None else (as_path(audio, "audio"),)
        super().__init__(index, strict, template=template)

    def _entries(self, problems: Problems) -> Iterator[tuple[str, _Recording]]:
        found: dict[str, _Recording] = {}
        rows = read_csv(
            self.source, problems, needs_columns(self.source, COLUMNS), delimiter="\t", quoted=False
        )
        for count, (place, row) in enumerate(rows):
            if count >= MAX_EVENTS:
                raise InputError(f"{self.source} has more than {MAX_EVENTS:,} events; split it")
            if not row["event_label"]:
                continue  # a recording in which nothing happens has such a row
            own = found.setdefault(row["filename"], _Recording(row["filename"]))
            own.events.setdefault(row["event_label"], []).append((place, row))
        for recording in found.values():
            yield next(iter(recording.events.values()))[0][0], recording

    def _made(self, place: str, entry: _Recording) -> Iterator[Sample]:
        sound = first_file((inside(folder, entry.name) for folder in self.folders), "sound")
        seconds = _seconds(sound)
        times = {
            label: tuple(_times(own, row, seconds, place) for own, row in rows)
            for label, rows in entry.events.items()
        }
        for label in times:
            said = label.replace("_", " ").lower()
            yield Sample(
                f"{entry.name}-{label}",
                {"audio": sound, "text": self.template.format(said)},
                {
                    "audio": Truth(
                        tuple(Part(found, name == label, name) for name, found in times.items())
                    )
                },
                {"filename": entry.name, "event_label": label},
            )


def _times(own: str, row: Row, seconds: float | None, place: str) -> TimeRegion:
    line = "" if own == place else f"{own.rpartition(', ')[2]}: "
    try:
        onset, offset = number_of(row["onset"], "onset"), number_of(row["offset"], "offset")
    except InputError as error:
        raise InputError(f"{line}{error}") from error
    if not 0 <= onset < offset:
        raise InputError(f"{line}onset {onset:g} and offset {offset:g} hold no time")
    if seconds is not None and onset >= seconds:
        raise InputError(f"{line}onset {onset:g} lies behind the end of the sound, {seconds:.3g} s")
    return TimeRegion(onset, offset)


def _seconds(path: Path) -> float | None:
    """How long a sound is, from its head; None where it cannot be read: it is named when used."""
    import soundfile

    from mmattrib.plugins.contained import hushed

    try:
        with hushed():
            found = soundfile.info(str(path.absolute()))
        return float(found.frames) / float(found.samplerate)
    except Exception:  # libsndfile's, or a header that says nothing
        return None


def _beside(index: Path) -> tuple[Path, ...]:
    """Where the sounds of a table may lie."""
    parts = list(index.absolute().with_suffix("").parts)
    if "metadata" not in parts:
        return (index.parent,)
    at = len(parts) - 1 - parts[::-1].index("metadata")
    mirrored = Path(*parts[:at], "audio", *parts[at + 1 :])
    return mirrored, mirrored.parent, index.parent


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``desed``."""
    register(
        DESEDDataset.name,
        DESEDDataset,
        summary="DESED: recordings with the onset and the offset of every sound event",
        modalities=("audio", "text"),
    )
