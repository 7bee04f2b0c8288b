from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch

from mmattrib.backbones.tiny.tokenizer import tokenise
from mmattrib.datasets.scenes import captions
from mmattrib.datasets.scenes import drawing as scene_render
from mmattrib.datasets.scenes.bank import Bank, Split
from mmattrib.datasets.scenes.generator import (
    MEL,
    Scene,
    generate,
    part_names,
    scene_of,
    scenes,
)
from mmattrib.datasets.scenes.specs import SceneOptions, draw_spec, draw_training_spec
from mmattrib.errors import InputError, OptionError
from mmattrib.models.melspec import MelSpec, hz_to_mel, mel_to_hz
from mmattrib.placement import from_map
from mmattrib.samples import MaskRegion
from mmattrib.types import RawAudio, RawImage, RawText, Word

BANK = Bank.shipped()


@pytest.fixture(scope="module")
def pool() -> list[Scene]:
    return scenes(8, seed=3)


def classes(scene: Scene) -> tuple[set[str], set[str], set[str]]:
    return (
        {o.class_name for o in scene.objects if o.class_name},
        {e.class_name for e in scene.events if e.class_name},
        {m.class_name for m in scene.mentions},
    )


def test_a_scene_depends_on_seed_and_index_alone(pool: list[Scene]) -> None:
    fewer = scenes(3, seed=3)
    for a, b in zip(fewer, pool, strict=False):
        assert a.caption == b.caption
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.audio, b.audio)
    alone = generate(3, 7)
    np.testing.assert_array_equal(alone.image, pool[7].image)
    assert not np.array_equal(generate(4, 7).image, alone.image)


def test_types_shapes_and_ranges(pool: list[Scene]) -> None:
    for scene in pool:
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == np.uint8
        assert scene.audio.shape == (40960,)
        assert scene.audio.dtype == np.float32
        assert np.abs(scene.audio).max() < 1
        assert {o.mask.shape for o in scene.objects} == {(96, 96)}
        assert {e.mask.shape for e in scene.events} == {(64, 128)}
        assert all(0 <= e.start < e.end <= 2.56 for e in scene.events)
        for count in (len(scene.objects), len(scene.events), len(scene.mentions)):
            assert 1 <= count <= 4


def test_shared_is_exactly_what_every_two_modalities_hold(pool: list[Scene]) -> None:
    for scene in pool:
        image, audio, text = classes(scene)
        for common in (image & audio, image & text, audio & text):
            assert tuple(sorted(common)) == scene.shared
        assert len(scene.shared) == 1


@pytest.mark.parametrize("shared", [0, 2])
def test_number_of_shared_classes_can_be_chosen(shared: int) -> None:
    for index in range(3):
        scene = generate(0, index, "heldout", SceneOptions(shared=shared))
        image, audio, text = classes(scene)
        assert len(scene.shared) == shared
        assert image & audio == image & text == audio & text == set(scene.shared)


def test_mixed_scenes_share_one_or_two() -> None:
    drawn = {
        len(draw_spec(BANK, 0, i, "train", SceneOptions(shared=None)).shared) for i in range(40)
    }
    assert drawn == {1, 2}


def test_distractor_counts_are_kept() -> None:
    options = SceneOptions(1, (2, 2), (1, 1), (0, 0), unnamed=0.0)
    for index in range(20):
        spec = draw_spec(BANK, 1, index, "heldout", options)
        assert (len(spec.image), len(spec.audio), len(spec.text)) == (3, 2, 1)


def test_object_masks_are_the_pixels_that_change_when_the_object_goes(pool: list[Scene]) -> None:
    for scene in pool:
        for k, thing in enumerate(scene.objects):
            left = scene.without("image", k)
            changed = np.abs(left.image.astype(int) - scene.image.astype(int)).max(-1) > 0
            assert len(left.objects) == len(scene.objects) - 1
            # Soft edges change too but are less than half the object's: at most a rim of them.
            rim = _grown(thing.mask) & ~thing.mask
            assert not (changed & ~thing.mask & ~rim).sum() > 0.12 * thing.mask.sum()
            assert (changed & thing.mask).sum() > 0.85 * thing.mask.sum()


def test_masks_of_objects_do_not_overlap_and_what_was_hidden_shows_again() -> None:
    uncovered = 0
    for index in range(40):
        spec = draw_spec(
            BANK, 5, index, "train", SceneOptions(image_distractors=(3, 3), check=False)
        )
        layout = scene_render.draw_image(spec)
        masks, _ = scene_render.image_masks(layout)
        assert np.stack(masks).sum(0).max() <= 1
        fewer = dataclasses.replace(layout, placements=layout.placements[:-1])
        before, _ = scene_render.image_masks(fewer)
        uncovered += sum(int((b & ~a).sum()) for a, b in zip(masks[:-1], before, strict=True))
        for a, b in zip(masks[:-1], before, strict=True):
            assert not (a & ~b).any()
    assert uncovered > 0


def test_event_masks_are_the_cells_that_lose_power_when_the_event_goes(pool: list[Scene]) -> None:
    for scene in pool:
        whole = MEL.power(torch.from_numpy(scene.audio)[None])[0].numpy()
        for k, event in enumerate(scene.events):
            left = scene.without("audio", k)
            power = MEL.power(torch.from_numpy(left.audio)[None])[0].numpy()
            lost = power < 0.75 * whole
            assert lost[event.mask].mean() > 0.85
            frames = np.flatnonzero(event.mask.any(0))
            seconds = np.asarray(MEL.seconds(128))[[frames[0], frames[-1]]]
            assert seconds[0] >= event.start - 0.05  # half a window
            assert seconds[1] <= event.end + 0.05


def test_event_masks_are_exclusive(pool: list[Scene]) -> None:
    for scene in pool:
        assert np.stack([e.mask for e in scene.events]).sum(0).max() <= 1


def test_mentions_are_the_words_of_their_class(pool: list[Scene]) -> None:
    for scene in pool:
        for k, mention in enumerate(scene.mentions):
            start, end = mention.span
            assert scene.caption[start:end] in BANK.words_of(mention.class_name)
            left = scene.without("text", k)
            assert mention.class_name not in {m.class_name for m in left.mentions}
            assert [m.class_name for m in left.mentions] == [
                m.class_name for j, m in enumerate(scene.mentions) if j != k
            ]


def test_without_changes_one_modality_only_and_what_is_shared(pool: list[Scene]) -> None:
    scene = pool[0]
    for k, thing in enumerate(scene.objects):
        left = scene.without("image", k)
        np.testing.assert_array_equal(left.audio, scene.audio)
        assert left.caption == scene.caption
        gone = thing.class_name in scene.shared
        assert left.shared == (() if gone else scene.shared)


def test_without_can_be_repeated(pool: list[Scene]) -> None:
    scene = next(s for s in pool if len(s.events) > 2)
    left = scene.without("audio", 0).without("audio", 0)
    stems = scene_render.stems(scene._audio)  # type: ignore[arg-type]
    want = stems[2:].sum(0) * scene_render.peak_scale(stems.sum(0))
    np.testing.assert_allclose(left.audio, want, atol=1e-6)


def test_without_refuses_what_is_not_there(pool: list[Scene]) -> None:
    with pytest.raises(InputError, match="counted from 0"):
        pool[0].without("image", 9)
    with pytest.raises(InputError, match="hold image, audio and text"):
        pool[0].without("video", 0)


def test_held_out_and_training_renderings_are_disjoint() -> None:
    shipped_once = {s.file for s in BANK.catalog.sprites if s.split == "both"}
    files: dict[Split, set[str]] = {"train": set(), "heldout": set()}
    for split, found in files.items():
        for index in range(150):
            spec = draw_spec(BANK, 0, index, split, SceneOptions(check=False))  # type: ignore[arg-type]
            image, audio = scene_render.draw_image(spec), scene_render.draw_audio(spec)
            found |= {p.file for p in image.placements} | {t.file for t in audio.takes}
    assert len(files["heldout"]) > 100
    assert files["train"] & files["heldout"] <= shipped_once
    for file in shipped_once:  # the only drawing of a class: turned and coloured differently
        one, other = (scene_render._variant(BANK, file, s, 0) for s in ("train", "heldout"))
        assert one.shape != other.shape or not np.array_equal(one, other)
    backgrounds = [scene_render._background(BANK, s, 0) for s in ("train", "heldout")]
    assert not np.array_equal(*backgrounds)


def test_scene_of_holds_exactly_the_classes_asked_for() -> None:
    names = BANK.class_names[3:5]
    scene = scene_of(names, seed=1)
    assert classes(scene) == (set(names), set(names), set(names))
    with pytest.raises(OptionError, match="unicorn"):
        scene_of(["unicorn"])


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match=r"shared must be .* got 9"):
        SceneOptions(shared=9)
    with pytest.raises(OptionError, match="least, most"):
        SceneOptions(image_distractors=(2, 1))
    with pytest.raises(OptionError, match="from 0 to"):
        scenes(-1)
    with pytest.raises(OptionError, match="train and heldout"):
        generate(0, 0, "validation")  # type: ignore[arg-type]


def test_captions_fit_and_use_the_vocabulary() -> None:
    known = set(captions.vocabulary())
    rng = random.Random(0)
    for _ in range(300):
        members = rng.sample(BANK.class_names, rng.randint(1, 4))
        text, mentions = captions.write_caption(captions.draw_caption(BANK, members, rng))
        tokens = captions.tokenise(text)
        assert len(tokens) < captions.MAX_TOKENS
        assert {word for word, _ in tokens} <= known
        assert [m.class_name for m in mentions] == members


def test_no_wording_outside_a_mention_names_a_class() -> None:
    named = {
        word
        for name in BANK.class_names
        for text in BANK.words_of(name)
        for word, _ in captions.tokenise(text)
    }
    fixed = [*captions.TEMPLATES, *captions.PLACES, *captions.ADJECTIVES, *captions.PAIR_SEPARATORS]
    used = {word for text in fixed for word, _ in captions.tokenise(text.replace("{}", ""))}
    assert not used & named


def test_training_specs_depend_on_seed_step_and_row() -> None:
    one = draw_training_spec(BANK, 0, 5, 3, 0.1, 0.4)
    assert one == draw_training_spec(BANK, 0, 5, 3, 0.1, 0.4)
    assert one != draw_training_spec(BANK, 0, 6, 3, 0.1, 0.4)
    lone = draw_training_spec(BANK, 0, 5, 3, 1.0, 0.4)
    assert len(lone.image) == len(lone.audio) == len(lone.text) == 1


def test_a_tone_lands_in_its_mel_bin_and_frame() -> None:
    spec = MelSpec()
    time = np.arange(40960) / 16000
    for hz in (200.0, 1000.0, 4000.0):
        wave = np.where((time >= 1.0) & (time < 1.5), np.sin(2 * np.pi * hz * time), 0.0)
        power = spec.power(torch.from_numpy(wave)[None])[0]
        low, _, high = spec.edges_hz()[int(power.sum(1).argmax())]
        assert low <= hz <= high
        loud = np.flatnonzero((power.sum(0) > 0.5 * power.sum(0).max()).numpy())
        seconds = np.asarray(spec.seconds(128))[loud]
        assert seconds.min() == pytest.approx(1.0, abs=0.025)
        assert seconds.max() == pytest.approx(1.5, abs=0.025)


def test_mel_power_is_the_same_alone_or_in_a_batch() -> None:
    wave = torch.randn(9, 6400, generator=torch.Generator().manual_seed(0))
    spec = MelSpec()
    power = spec.power(wave)
    assert power.shape == (9, 64, 20)
    torch.testing.assert_close(power[8:], spec.power(wave[8:]))
    assert mel_to_hz(hz_to_mel(440.0)) == pytest.approx(440.0)
    assert len(spec.hz()) == 64
    with pytest.raises(OptionError, match="half the sample rate"):
        MelSpec(fmax=9000.0)


def test_the_inputs_of_a_scene_are_what_it_holds(pool: list[Scene]) -> None:
    for scene in pool:
        image, audio, text = (scene.input(side) for side in ("image", "audio", "text"))
        assert isinstance(image, RawImage)
        assert isinstance(audio, RawAudio)
        assert isinstance(text, RawText)
        assert image.pixels is scene.image
        assert (audio.samples is scene.audio, audio.sample_rate) == (True, scene.sample_rate)
        assert text.text == scene.caption
        assert f"scene {scene.index} of seed 3" == image.name == audio.name == text.name


def test_the_parts_of_a_scene_are_its_objects_events_and_mentions(pool: list[Scene]) -> None:
    for scene in pool:
        for side in ("image", "audio", "text"):
            parts = scene.parts(side)
            assert tuple(part.name for part in parts) == part_names(scene, side)
            assert tuple(p.name for p in parts if p.shared) == scene.shared
        for part, thing in zip(scene.parts("image"), scene.objects, strict=True):
            assert isinstance(part.region, MaskRegion)
            assert part.region.values is thing.mask
            names = [(a.name, a.unit, len(a.values)) for a in part.region.axes]
            assert names == [("y", "px", 96), ("x", "px", 96)]
        for part, event in zip(scene.parts("audio"), scene.events, strict=True):
            assert isinstance(part.region, MaskRegion)
            assert part.region.values is event.mask
            axes = part.region.axes
            assert [(a.name, a.unit) for a in axes] == [("frequency", "Hz"), ("time", "s")]
            assert tuple(len(axis.values) for axis in axes) == event.mask.shape
            heard = axes[1].values[np.flatnonzero(event.mask.any(0))]
            assert event.start - 0.05 <= heard.min() <= heard.max() <= event.end + 0.05


def test_a_mention_covers_its_own_words_and_no_others(pool: list[Scene]) -> None:
    for scene in pool:
        found = tokenise(scene.caption)
        words = tuple(Word(scene.caption[a:b], a, b) for _, (a, b) in found)
        map_ = from_map("text", np.zeros(len(words)), "bits", words=words)
        for part, mention in zip(scene.parts("text"), scene.mentions, strict=True):
            covered = [w.text for w, yes in zip(words, part.on(map_), strict=True) if yes]
            start, end = mention.span
            assert " ".join(covered) == scene.caption[start:end]


def test_another_modality_is_refused(pool: list[Scene]) -> None:
    for ask in (pool[0].input, pool[0].parts, lambda side: part_names(pool[0], side)):
        with pytest.raises(InputError, match="'depth': scenes hold image, audio and text"):
            ask("depth")


def _grown(mask: np.ndarray) -> np.ndarray:
    """The mask and its eight neighbours."""
    padded = np.pad(mask, 1)
    shifts = [padded[i : i + 96, j : j + 96] for i in range(3) for j in range(3)]
    return np.logical_or.reduce(shifts)
