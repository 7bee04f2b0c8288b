"""The conformance suite on both encoders, and what the model is for."""

from __future__ import annotations

import numpy as np
import pytest
from mmattrib_colours import encoders
from mmattrib_colours.towers import COLOURS

import mmattrib as mm
from mmattrib.errors import InputError
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawImage, RawText


def picture(left: str, right: str) -> RawImage:
    pixels = np.empty((90, 120, 3), dtype=np.uint8)
    pixels[:, :60], pixels[:, 60:] = COLOURS[left], COLOURS[right]
    return RawImage(pixels, f"{left}-{right}.png")


PICTURES = [picture("red", "blue"), picture("green", "white"), picture("pink", "brown")]
CAPTIONS = [RawText("a red ball"), RawText("grey"), RawText("the yellow door, the blue wall")]


def test_image_encoder_conforms() -> None:
    encoder = encoders.backbone()["image"]
    check_encoder(encoder, PICTURES)
    check_grid(encoder, PICTURES[0])


def test_text_encoder_conforms() -> None:
    encoder = encoders.backbone()["text"]
    check_encoder(encoder, CAPTIONS)
    check_grid(encoder, RawText("the red door by a blue wall"), layer=0)


@pytest.mark.parametrize("name", COLOURS)
def test_a_colour_matches_its_name_best(name: str) -> None:
    backbone = encoders.backbone()
    image, text = backbone["image"], backbone["text"]
    seen = image.embed(image.preprocess([picture(name, name)]))
    names = text.embed(text.preprocess([RawText(f"something {each}") for each in COLOURS]))
    assert list(COLOURS)[int((seen @ names.T).argmax())] == name


def test_words_out_of_bounds() -> None:
    encoder = encoders.backbone()["text"]
    with pytest.raises(InputError, match="65 words"):
        encoder.preprocess([RawText("red " * 65)])
    with pytest.raises(InputError, match="0 words"):
        encoder.preprocess([RawText("...")])
    with pytest.raises(InputError, match="takes text"):
        encoder.preprocess([PICTURES[0]])


# Leaving the other colour out lifts the cosine far above the clean one: the warning says so.
@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")
def test_the_map_follows_the_caption() -> None:
    """The red half explains "red", the blue half "blue", and of the words the colour counts."""
    backbone = encoders.backbone()
    image = picture("red", "blue")
    maps = {}
    for colour in ("red", "blue"):
        explained = mm.attribute(backbone, image=image, text=f"a {colour} wall")
        maps[colour] = explained["image"].scores
        assert explained["text"].scores.argmax() == 1
    assert maps["red"][:, :60].mean() > 5 * maps["red"][:, 60:].mean()
    assert maps["blue"][:, 60:].mean() > 5 * maps["blue"][:, :60].mean()
