"""Grids of maps and surfaces: a tile for each row and column, the same bytes each time."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.datasets import Samples
from mmattrib.errors import OptionError
from mmattrib.evaluation import Variant
from mmattrib.evaluation.pictures import comparison, degradation, degraded_input, stacked
from mmattrib.render.gallery import Gallery, Tile, gallery_bytes
from mmattrib.render.panels import TextPanel
from mmattrib.render.surface import Surface, surface_bytes
from mmattrib.samples import Sample

QUICK = [Variant("noise", "random"), Variant("gradient", "gradient-x-input")]


@pytest.fixture(scope="module")
def tiny() -> mm.Backbone:
    return small_tiny()


def test_methods_stand_side_by_side_in_png_and_pdf(tiny: mm.Backbone) -> None:
    data = mm.load_dataset("scenes", n=1)
    made = comparison(tiny, data, QUICK, [("image", "text")], count=1)
    assert made.columns == ["input", "noise", "gradient"]
    ((label, _),) = made.rows
    assert label.endswith(": image and text")
    for _, tiles in made.rows:
        assert [len(tile.panels) for tile in tiles] == [2, 2, 2]
        assert [tile.shown for tile in tiles] == ["original", "map", "map"]
    png, pdf = gallery_bytes(made, "png", 50), gallery_bytes(made, "pdf", 50)
    assert Image.open(io.BytesIO(png)).width > 300
    assert pdf.startswith(b"%PDF")
    assert gallery_bytes(made, "pdf", 50) == pdf
    joined = stacked({"a": made, "b": made})
    assert [label.partition(": ")[0] for label, _ in joined.rows] == ["a", "b"]


def test_sides_that_are_not_asked_for_are_not_drawn_and_a_failure_says_why(
    tiny: mm.Backbone,
) -> None:
    inputs = next(iter(mm.load_dataset("scenes", n=1))).inputs
    lacking = [Sample("whole", inputs), Sample("no sound", {"image": inputs["image"]})]
    data = Samples(lacking)
    made = comparison(tiny, data, QUICK[:1], [("image", "audio")], sides=("image",))
    assert [panel.side for panel in made.rows[0][1][1].panels] == ["image"]
    assert len(made.rows[0][1][0].panels) == 2, "the inputs are shown whole"
    assert "no 'audio'" in made.rows[1][1][1].note
    assert gallery_bytes(made, "png", 40)


def test_degradation_keeps_what_scores_high_and_takes_it_away(tiny: mm.Backbone) -> None:
    data = mm.load_dataset("scenes", n=1)
    made = degradation(tiny, data, QUICK[1], [("image", "text")], count=1)
    ((_, tiles),) = made.rows
    captions = [
        "".join(p.text for p in panel.pieces).split()
        for tile in tiles
        for panel in tile.panels
        if isinstance(panel, TextPanel)
    ]
    words, _, kept, left = captions
    for word, high, low in zip(words, kept, left, strict=True):
        assert [high, low].count(word) == 1, "each word is kept in one of the two"
    ex = mm.attribute(tiny, inputs=next(iter(data)).pair("image", "text").inputs, method="random")
    raw = ex.inputs["image"]
    taken = degraded_input(raw, ex["image"])
    high = ex["image"].scores > np.percentile(ex["image"].scores, 75)
    np.testing.assert_array_equal(taken.pixels[~high], raw.pixels[~high])
    assert len(np.unique(taken.pixels[high], axis=0)) == 1


def test_a_grid_that_no_figure_holds_is_refused(tiny: mm.Backbone) -> None:
    for columns, rows in ((0, 1), (1, 0), (100, 1), (1, 100)):
        with pytest.raises(OptionError, match="1 to"):
            gallery_bytes(Gallery(["a"] * columns, [("x", [Tile()] * columns)] * rows), "png")
    with pytest.raises(OptionError, match="a grid of 100 rows"):
        comparison(tiny, Samples([]), QUICK, [("image", "text")], count=100)
    with pytest.raises(OptionError, match="2 tiles for 1"):
        gallery_bytes(Gallery(["a"], [("x", [Tile(), Tile()])]), "png")


def test_a_surface_frames_what_was_chosen() -> None:
    values = np.array([[1.0, np.nan], [3.0, 2.0]], np.float32)
    one = Surface("image", "auc", "beta", ["1", "3"], "layer", ["0", "1"], values, (1, 0))
    other = Surface("image", "auc", "beta", ["1", "3"], "layer", ["0", "1"], values, (0, 0))
    assert surface_bytes([one], "png", 60) == surface_bytes([one], "png", 60)
    assert surface_bytes([one], "png", 60) != surface_bytes([other], "png", 60)
    assert surface_bytes([one, other], "pdf").startswith(b"%PDF")
    with pytest.raises(OptionError, match="1 to 64"):
        surface_bytes([], "png")
