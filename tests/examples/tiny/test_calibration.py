"""What ships beside tiny's weights, and what is said of its scenes by it."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import mmattrib as mm
from examples.tiny.calibrate import SEED, main, rates
from mmattrib.calibration import Calibration, kind_of, setting_of
from mmattrib.cli import main as program
from mmattrib.evaluation.calibrate import pair_cosines
from mmattrib.render import report_html
from mmattrib.render.figures import png_bytes
from mmattrib.render.overlay import colour_table
from mmattrib.render.panels import PlanePanel, TextPanel, panels

KINDS = (("image", "text"), ("audio", "image"), ("audio", "text"))
OTHER_SEED = 2_718  # none that the calibration was made of


@pytest.fixture(scope="module")
def tiny() -> mm.Backbone:
    return mm.load_backbone("tiny")


@pytest.fixture(scope="module")
def shipped(tiny: mm.Backbone) -> Calibration:
    assert tiny.calibration is not None
    return tiny.calibration


def test_it_covers_every_kind_of_pair_and_the_default_method(
    tiny: mm.Backbone, shipped: Calibration
) -> None:
    assert set(shipped.similarities) == {kind_of((a, b)) for a in tiny for b in tiny}
    method = mm.load_method("ca-m2ib")
    for kind in KINDS:
        settings = {
            side: setting_of(method.name, method.describe(), method.default_layer(tiny[side]))
            for side in kind
        }
        known = shipped.entry({side: side for side in kind}, method.name, settings)
        assert known is not None
        # If this fails a default of ca-m2ib changed: run `python -m examples.tiny.calibrate`.
        assert set(known["scores"]) == set(kind)


def test_other_weights_come_without_it(tiny: mm.Backbone, tmp_path: Path) -> None:
    from mmattrib.backbones.tiny.checkpoint import WEIGHTS

    copy = tmp_path / "own.safetensors"
    copy.write_bytes(WEIGHTS.read_bytes())
    assert mm.load_backbone("tiny", checkpoint=str(copy)).calibration is None


@pytest.mark.slow
def test_other_scenes_give_the_shipped_numbers_within_sampling_error(
    tiny: mm.Backbone, shipped: Calibration
) -> None:
    assert SEED != OTHER_SEED
    count = 50
    found, _ = pair_cosines(tiny, mm.load_dataset("scenes", n=count, seed=OTHER_SEED))
    for kind, cosines in found.items():
        known = shipped.similarities[kind]
        error = known.sd * math.sqrt(1 / count + 1 / known.n)
        assert abs(np.mean(cosines) - known.mean) < 4 * error, kind
        for level in (50, 75, 95):
            p = level / 100
            spread = math.sqrt(p * (1 - p) * (1 / count + 1 / known.n))
            share = np.mean(np.asarray(cosines) <= known.at(level))
            assert abs(share - p) < 4 * spread, (kind, level)


@pytest.mark.slow
def test_scenes_match_and_unrelated_inputs_do_not(tiny: mm.Backbone) -> None:
    found = rates(tiny, n=20, seed=OTHER_SEED)
    assert set(found) == {kind_of(kind) for kind in KINDS}
    for kind, (paired, unrelated) in found.items():
        assert sum(paired.values()) == sum(unrelated.values()) == 20
        assert paired["no match"] <= 3, kind
        assert paired["match"] >= 13, kind  # 78 to 95 % of 300 scenes
        assert unrelated["no match"] >= 17, kind


@pytest.fixture(scope="module")
def wrong(tiny: mm.Backbone) -> mm.Explanation:
    scenes = mm.load_dataset("scenes", n=1, seed=OTHER_SEED)
    (sample,) = scenes
    caption = scenes.unrelated(0, sample, "image", "text")
    return mm.attribute(tiny, image=sample.inputs["image"], text=caption)


def test_a_wrong_caption_is_said_not_to_match(wrong: mm.Explanation) -> None:
    assert wrong.verdict.level == "no match"
    page = report_html(wrong)
    assert "<h1>This picture and this caption do not match</h1>" in page
    assert wrong.verdict.sentence in page
    with Image.open(io.BytesIO(png_bytes(wrong))) as picture:
        assert "do not match" in picture.info["Description"]


def test_the_maps_of_a_wrong_caption_have_no_bright_place(wrong: mm.Explanation) -> None:
    image, text = panels(wrong)
    assert isinstance(image, PlanePanel)
    assert isinstance(text, TextPanel)
    for panel in (image, text):
        assert panel.heat.values.max() < 0.5
        assert panels(wrong, scale="map")[0].heat.values.max() == 1.0
    bright = colour_table(False)[-1] * 255
    assert np.abs(image.mapped - bright).sum(axis=-1).min() > 150
    assert not any(piece.coloured for piece in text.pieces if piece.score is not None)


def test_the_command_says_first_that_two_inputs_do_not_match(
    wrong: mm.Explanation, tmp_path: Path
) -> None:
    picture = tmp_path / "scene.png"
    Image.fromarray(wrong.inputs["image"].pixels).save(picture)  # type: ignore[union-attr]
    arguments = ["attribute", "--image", str(picture), "--text", wrong.inputs["text"].text]  # type: ignore[union-attr]
    found = CliRunner().invoke(program, [*arguments, "--method", "random"])
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("These two do not match: cosine −")
    made = tmp_path / "tiny.json"
    mm.load_backbone("tiny").calibration.save(made)  # type: ignore[union-attr]
    given = CliRunner().invoke(program, [*arguments, "--method", "random", "--calibration", made])
    assert given.stdout == found.stdout
    made.write_text(re.sub('"weights_sha256": "..', '"weights_sha256": "zz', made.read_text()))
    refused = CliRunner().invoke(program, [*arguments, "--calibration", str(made)])
    assert refused.exit_code == 2
    assert "make one of these weights" in refused.stderr


@pytest.mark.slow
def test_both_commands_write_a_file_that_loads(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    assert main(["--n", "20", "--maps", "0", "--seed", "3", "--out", str(first)]) == 0
    found = CliRunner().invoke(
        program,
        ["calibrate", "--data-option", "seed=3", "--limit", "20", "--maps", "0", "--out", second],
    )
    assert found.exit_code == 0, found.output
    assert "image-text: of 20 unrelated pairs 95 % have a cosine of at most" in found.stdout
    assert mm.load_calibration(first) == mm.load_calibration(second)
