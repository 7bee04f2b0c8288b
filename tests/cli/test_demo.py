"""`mmattrib demo`: pages that show the maps beside what is truly shared."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cli_program import Run
from quick_methods import quick

import mmattrib as mm
from mmattrib.cli.demo_pages import SCENES, describe, truth_masks


@pytest.mark.parametrize("number", range(len(SCENES)))
def test_the_truth_of_each_side_is_what_is_shared(untrained: mm.Backbone, number: int) -> None:
    scene, pair = mm.scenes(len(SCENES))[number], SCENES[number]
    inputs = {side: scene.input(side) for side in pair}
    found = mm.attribute(untrained, inputs=inputs, method="random")
    truth = truth_masks(scene, found)
    (name,) = scene.shared
    for side in pair:
        assert truth[side].shape == found[side].scores.shape
    if "image" in pair:
        (thing,) = (o for o in scene.objects if o.class_name == name)
        np.testing.assert_array_equal(truth["image"], thing.mask)
    if "audio" in pair:
        (event,) = (e for e in scene.events if e.class_name == name)
        np.testing.assert_array_equal(truth["audio"], event.mask)
    if "text" in pair:
        (mention,) = (m for m in scene.mentions if m.class_name == name)
        words = [w for w, yes in zip(found["text"].words, truth["text"], strict=True) if yes]
        assert (words[0].start, words[-1].end) == mention.span


def test_the_description_names_everything_and_what_has_no_name() -> None:
    scene = next(s for s in mm.scenes(20) if any(o.class_name is None for o in s.objects))
    told = describe(scene, ("image", "text"))
    assert told.startswith("The image holds ")
    assert "something unnamed" in told
    assert all(m.class_name in told.split("; the text holds ")[1] for m in scene.mentions)


def test_pages_are_written_for_every_pair(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = partial(mm.attribute, **quick("ca-m2ib"))
    monkeypatch.setattr("mmattrib.cli.demo_pages.attribute", few)
    result = run("demo", "--out", tmp_path / "pages")
    assert result.code == 0
    names = {f"{k + 1}-{'-'.join(pair)}" for k, pair in enumerate(SCENES)}
    written = {path.name for path in (tmp_path / "pages").iterdir()}
    assert written == {
        "index.html",
        *(f"{n}.{kind}" for n in names for kind in ("html", "png", "npz")),
    }
    index = (tmp_path / "pages" / "index.html").read_text(encoding="utf-8")
    assert all(f"{name}.html" in index for name in names)
