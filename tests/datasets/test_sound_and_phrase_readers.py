"""Flickr30k Entities, VGG-SS, DESED, Clotho and AudioCaps, in files as they are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_folders import (
    HEIGHT,
    WIDTH,
    picture,
    sound,
    text,
    written,
)
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.datasets.flickr30k_entities import parse_sentence
from mmattrib.datasets.regions import RelativeBox
from mmattrib.errors import InputError, InputWarning, OptionError
from mmattrib.samples import Sample, SpanRegion, TimeRegion
from mmattrib.testing import check_dataset

SENTENCES = (
    "[/EN#40/people A man] pets [/EN#41/animals a dog] in [/EN#42/scene the park] .",
    "[/EN#41/animals A small dog] and [/EN#40/people its owner] look at [/EN#0/notvisual it] .",
    "The park is empty .",
)
ANNOTATION = f"""<annotation><filename>11.jpg</filename>
<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>
<object><name>40</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>20</ymax></bndbox>
</object>
<object><name>41</name><bndbox><xmin>11</xmin><ymin>9</ymin><xmax>20</xmax><ymax>24</ymax></bndbox>
</object>
<object><name>41</name><bndbox><xmin>21</xmin><ymin>9</ymin><xmax>32</xmax><ymax>12</ymax></bndbox>
</object>
<object><name>42</name><scene>1</scene><nobndbox>0</nobndbox></object>
</annotation>"""


def small_flickr30k_entities(folder: Path) -> dict[str, Any]:
    text(folder / "Sentences" / "11.txt", *SENTENCES)
    text(folder / "Annotations" / "11.xml", ANNOTATION)
    picture(folder / "flickr30k-images" / "11.jpg")
    return {"folder": folder}


def small_vgg_ss(folder: Path) -> dict[str, Any]:
    entries = [
        {"file": "-0ab_cdEfGh_000030", "class": "dog barking", "bbox": [[0.25, 0.5, 0.75, 1.01]]},
        {"file": "z0ab_cdEfGh_000140", "class": "playing flute",
         "bbox": [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]},
    ]  # fmt: skip
    for number, entry in enumerate(entries):
        picture(folder / "frames" / f"{entry['file']}.jpg", seed=number)
        sound(folder / "audio" / f"{entry['file']}.wav", seed=number)
    written(folder / "vggss.json", entries)
    return {"folder": folder}


DESED_ROWS = (
    "filename\tonset\toffset\tevent_label",
    "Y00a_10.000_20.000.wav\t0.10\t0.40\tDog",
    "Y00a_10.000_20.000.wav\t0.300\t0.900\tAlarm_bell_ringing",
    "Y00b_30.000_40.000.wav\t\t\t",
    "Y00a_10.000_20.000.wav\t0.6\t0.8\tDog",
)


def small_desed(folder: Path) -> dict[str, Any]:
    table = text(folder / "metadata" / "validation" / "validation.tsv", *DESED_ROWS)
    for name in ("Y00a_10.000_20.000.wav", "Y00b_30.000_40.000.wav"):
        sound(folder / "audio" / "validation" / name)
    return {"annotations": table}


def small_clotho(folder: Path) -> dict[str, Any]:
    said = [f'"A dog, number {number}, barks"' for number in range(1, 6)]
    text(folder / "clotho_captions_evaluation.csv",
         "file_name,caption_1,caption_2,caption_3,caption_4,caption_5",
         ",".join(["Dog near (the) road.wav", *said]))  # fmt: skip
    sound(folder / "evaluation" / "Dog near (the) road.wav")
    return {"folder": folder}


AUDIOCAPS_ROWS = (
    "audiocap_id,youtube_id,start_time,caption",
    "103549,-7fmOlUlwoNg,30,A dog barks",
    '103541,0yxEvdnimGg,20,"Wind blows, and water runs"',
    "103542,gone0000000,0,A clock ticks",
)


def small_audiocaps(folder: Path) -> dict[str, Any]:
    text(folder / "test.csv", *AUDIOCAPS_ROWS[:3])
    sound(folder / "audio" / "test" / "-7fmOlUlwoNg.wav")
    sound(folder / "audio" / "test" / "Y0yxEvdnimGg.flac", seed=1)
    return {"folder": folder}


def covered(sample: Sample, part: int) -> list[str]:
    """The words that a part of a caption's truth covers."""
    regions = sample.truth["text"].parts[part].region
    assert isinstance(regions, tuple)
    spans = [region for region in regions if isinstance(region, SpanRegion)]
    return [sample.inputs["text"][span.start : span.end] for span in spans]


def test_phrases_lie_on_words_and_on_the_picture(tmp_path: Path) -> None:
    first, second = mm.load_dataset("flickr30k-entities", **small_flickr30k_entities(tmp_path))
    assert (first.id, second.id) == ("11-0", "11-1")
    assert first.inputs == {
        "image": tmp_path / "flickr30k-images" / "11.jpg",
        "text": "A man pets a dog in the park .",
    }
    assert [covered(first, part) for part in (0, 1)] == [["A man"], ["a dog"]]
    assert [covered(second, part) for part in (0, 1)] == [["A small dog"], ["its owner"]]
    assert [part.name for part in second.truth["text"].parts] == ["41", "40"]
    man, dog = first.truth["image"].parts
    assert (man.name, dog.name, man.shared, dog.shared) == ("40", "41", True, True)
    # corners are pixels from 1 on, both included: the first 8 of 32 columns
    assert man.region == (RelativeBox(0, 0, 20 / 24, 8 / 32),)
    assert len(dog.region) == 2  # type: ignore[arg-type]
    assert first.tags["entities"] == ["40", "41"], "the park has no box"


def test_a_phrase_alone_shares_its_own_boxes(tmp_path: Path) -> None:
    data = mm.load_dataset(
        "flickr30k-entities", **small_flickr30k_entities(tmp_path), texts="phrases"
    )
    check_dataset(data)
    man, dog, small, _ = data
    assert [sample.inputs["text"] for sample in (man, dog, small)] == [
        "A man", "a dog", "A small dog",
    ]  # fmt: skip
    assert {p.name: p.shared for p in dog.truth["image"].parts} == {"40": False, "41": True}
    assert dog.tags["kinds"] == ["animals"]


def test_a_list_says_which_pictures(tmp_path: Path) -> None:
    options = small_flickr30k_entities(tmp_path)
    text(tmp_path / "test.txt", "11", "12")
    data = mm.load_dataset("flickr30k-entities", **options, split="test")
    with pytest.warns(InputWarning, match=r"1 of a missing file.*12\.txt is missing"):
        assert len(list(data)) == 2
    with pytest.raises(InputError, match=r"val\.txt is missing"):
        mm.load_dataset("flickr30k-entities", **options, split="val")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("[/EN#1/bodyparts/people a man 's arm] up", ["a man 's arm"]),
        ("a [/EN#0/notvisual one] , [/EN#2/other two]", ["one", "two"]),
        ("  spaces   here [/EN#3/other  wide   gap ] end", ["wide gap"]),
        ("caf\u0065\u0301 [/EN#4/other u\u0308ber] .", ["\u00fcber"]),
    ],
)
def test_marks_are_taken_out_of_sentences(line: str, wanted: list[str]) -> None:
    sentence, phrases = parse_sentence(line)
    assert "[" not in sentence
    assert [sentence[phrase.start : phrase.end] for phrase in phrases] == wanted


BOMB = """<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;&x;&x;">]>"""
FETCH = """<!DOCTYPE a SYSTEM "http://127.0.0.1:1/none.dtd">"""


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (BOMB + ANNOTATION.replace("40", "&y;"), "declares a document type"),
        (FETCH + ANNOTATION, "declares a document type"),
        (ANNOTATION.replace("</annotation>", ""), "no element found"),
        (ANNOTATION.replace("<xmax>8<", "<xmax>99<"), "outside of the picture of 32 x 24"),
        (ANNOTATION.replace("<xmax>8<", "<xmax>0<"), "has no area"),
        (ANNOTATION.replace("<xmax>8<", "<xmax>a<"), "not in the layout"),
        (ANNOTATION.replace("<width>32</width>", ""), "it has no size/width"),
        (ANNOTATION.replace("<width>32<", "<width>320<"), "cut or padded"),
        ("x" * 2**21, "more than"),
    ],
)
def test_a_broken_annotation_file_is_named(tmp_path: Path, annotation: str, says: str) -> None:
    options = small_flickr30k_entities(tmp_path)
    text(tmp_path / "Annotations" / "11.xml", annotation)
    with pytest.raises(InputError, match=says):
        mm.load_dataset("flickr30k-entities", **options)


def test_a_broken_sentence_costs_itself_alone(tmp_path: Path) -> None:
    options = small_flickr30k_entities(tmp_path)
    text(
        tmp_path / "Sentences" / "11.txt", SENTENCES[0], "[/EN#4/people A man sits .", SENTENCES[1]
    )
    data = mm.load_dataset("flickr30k-entities", **options)
    with pytest.warns(InputWarning, match=r"11\.txt, line 2: a mark of a phrase is broken"):
        assert [sample.id for sample in data] == ["11-0", "11-2"]
    with pytest.raises(InputError, match="line 2"):
        mm.load_dataset("flickr30k-entities", **options, strict=True)


def test_frames_have_their_sound_and_boxes_in_shares(tmp_path: Path) -> None:
    options = small_vgg_ss(tmp_path)
    first, second = mm.load_dataset("vgg-ss", **options, template="the sound of {}")
    assert list(first.inputs) == ["image", "audio", "text"]
    assert first.inputs["text"] == "the sound of dog barking"
    assert first.truth["image"].parts[0].region == (RelativeBox(0.5, 0.25, 1, 0.75),)
    assert len(second.truth["image"].parts[0].region) == 2  # type: ignore[arg-type]
    assert second.truth["image"].names == {"playing flute"}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"file": "gone", "class": "x", "bbox": [[0, 0, 1, 1]]}, "frame .*gone.jpg' is missing"),
        ({"file": "../x", "class": "x", "bbox": [[0, 0, 1, 1]]}, "outside of its folder"),
        ({"file": "-0ab_cdEfGh_000030", "class": "x", "bbox": []}, "bbox is empty"),
        ({"file": "-0ab_cdEfGh_000030", "class": "x", "bbox": [[0, 0, 1]]}, "four numbers"),
        ({"file": "-0ab_cdEfGh_000030", "class": "x", "bbox": [[1.5, 0, 2, 1]]}, "no area"),
        ({"class": "x"}, "not in the layout"),
        (None, "not in the layout"),
    ],
)
def test_a_broken_entry_of_vgg_ss_is_named(tmp_path: Path, entry: Any, says: str) -> None:
    options = small_vgg_ss(tmp_path)
    entries = json.loads((tmp_path / "vggss.json").read_text())
    written(tmp_path / "vggss.json", [entries[0], entry, entries[1]])
    with pytest.warns(InputWarning, match=rf"vggss\.json, entry 2: .*{says}"):
        assert len(list(mm.load_dataset("vgg-ss", **options))) == 2


def test_templates_have_one_place_for_the_name(tmp_path: Path) -> None:
    for given in ("no place", "{} {}", "{0.__class__}", "{}{x}", 3):
        with pytest.raises(OptionError, match="template must be text"):
            mm.load_dataset("vgg-ss", **small_vgg_ss(tmp_path), template=given)


def test_events_lie_on_time(tmp_path: Path) -> None:
    dog, alarm = mm.load_dataset("desed", **small_desed(tmp_path))
    assert dog.id == "Y00a_10.000_20.000.wav-Dog"
    assert alarm.inputs["text"] == "the sound of alarm bell ringing"
    parts = {part.name: part for part in dog.truth["audio"].parts}
    assert parts["Dog"].region == (TimeRegion(0.1, 0.4), TimeRegion(0.6, 0.8))
    assert (parts["Dog"].shared, parts["Alarm_bell_ringing"].shared) == (True, False)
    ex = mm.attribute(small_tiny(), inputs={**dog.inputs, "text": "a dog"}, method="random")
    seconds = ex["audio"].axes[1].values[dog.truth["audio"].on(ex["audio"]).mask.any(0)]
    assert np.all(((seconds >= 0.1) & (seconds < 0.4)) | ((seconds >= 0.6) & (seconds < 0.8)))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("Y00a_10.000_20.000.wav\t0.5\t0.2\tSpeech", "line 4: onset 0.5 and offset 0.2"),
        ("Y00a_10.000_20.000.wav\t7\t8\tSpeech", "line 4: onset 7 lies behind the end"),
        ("Y00a_10.000_20.000.wav\tx\t8\tSpeech", "line 4: onset is 'x'; accepted: a number"),
    ],
)
def test_a_broken_event_costs_its_recording(tmp_path: Path, row: str, says: str) -> None:
    options = small_desed(tmp_path)
    sound(tmp_path / "audio" / "validation" / "other.wav")
    text(options["annotations"], *DESED_ROWS[:3], row, "other.wav\t0.1\t0.3\tCat", "x\t1")
    with pytest.warns(InputWarning, match=f"line 2: {says}"):
        assert [s.id for s in mm.load_dataset("desed", **options)] == ["other.wav-Cat"]


def test_sounds_may_lie_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    options = small_desed(tmp_path)
    (tmp_path / "audio" / "validation").rename(tmp_path / "mine")
    with pytest.raises(InputError, match="1 of a missing file"):
        mm.load_dataset("desed", **options)
    assert len(list(mm.load_dataset("desed", **options, audio=tmp_path / "mine"))) == 2
    text(options["annotations"], "filename\tevent_labels", "a.wav\tDog,Cat")
    with pytest.raises(InputError, match="needed, each once: filename, onset, offset, event_label"):
        mm.load_dataset("desed", **options)


def test_five_captions_are_five_samples(tmp_path: Path) -> None:
    data = mm.load_dataset("clotho", **small_clotho(tmp_path))
    found = list(data)
    assert [sample.inputs["text"] for sample in found] == [
        f"A dog, number {number}, barks" for number in range(1, 6)
    ]
    assert found[0].id == "Dog near (the) road-1"
    assert len({sample.inputs["audio"] for sample in found}) == 1
    assert len(list(mm.load_dataset("clotho", folder=tmp_path, captions=2))) == 2
    with pytest.raises(OptionError, match="captions must be a whole number from 1 to 5"):
        mm.load_dataset("clotho", folder=tmp_path, captions=6)
    with pytest.raises(InputError, match=r"clotho_captions_validation\.csv is missing"):
        mm.load_dataset("clotho", folder=tmp_path, split="validation")


def test_sounds_that_can_no_longer_be_had_are_counted(tmp_path: Path) -> None:
    options = small_audiocaps(tmp_path)
    text(tmp_path / "test.csv", *AUDIOCAPS_ROWS)
    data = mm.load_dataset("audiocaps", **options)
    with pytest.warns(InputWarning, match=r"1 left out \(1 of a missing file\).*line 4: sound"):
        first, second = data
    assert (first.id, second.id) == ("103549", "103541")
    assert second.inputs["text"] == "Wind blows, and water runs"
    assert second.inputs["audio"].name == "Y0yxEvdnimGg.flac"
    assert first.tags == {"youtube_id": "-7fmOlUlwoNg", "start_time": 30}
    with pytest.raises(InputError, match="line 4"):
        mm.load_dataset("audiocaps", **options, strict=True)


@pytest.mark.parametrize("name", ["-7fmOlUlwoNg_30", "-7fmOlUlwoNg_30000_40000", "103549"])
def test_sounds_are_found_under_the_names_in_use(tmp_path: Path, name: str) -> None:
    text(tmp_path / "test.csv", *AUDIOCAPS_ROWS[:2])
    sound(tmp_path / "mine" / f"{name}.wav")
    (only,) = mm.load_dataset("audiocaps", folder=tmp_path, audio=tmp_path / "mine")
    assert only.inputs["audio"] == tmp_path / "mine" / f"{name}.wav"
