"""`check_grid` passes sound grids and finds every misplaced one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_encoders import (
    RAWS,
    WIDTH,
    ToyAudio,
    ToyEncoder,
    ToyImage,
    ToyText,
    captions,
    pictures,
    recordings,
)

from mmattrib.errors import EncoderError, InputError, OptionError
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.grids import Box, ImageGrid, Layout, SpectrogramGrid, TextGrid, TokenGrid
from mmattrib.models.resizing import pixels_to_tensor
from mmattrib.testing import check_grid
from mmattrib.types import RawAudio, RawImage, RawText


class RowsForColumns(ToyImage):
    layout = Layout("w h", "h w", {"h": 4, "w": 3})


class ClsAtTheEnd(ToyImage):
    prefix_tokens, suffix_tokens = 0, 1


class UpsideDown(ToyImage):
    def preprocess(self, raws: Any) -> EncoderInputs:
        return super().preprocess([RawImage(raw.pixels[::-1].copy()) for raw in raws])

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        return super().grid(inputs, layer)


class WholePicture(ToyImage):
    """Crops, but says that the whole picture was seen."""

    def box(self, raw: RawImage) -> Box:
        return Box(0, 0, *raw.pixels.shape[:2])


class TimeForFrequency(ToyAudio):
    layout = Layout("chunk t f", "f (chunk t)", {"chunk": 2, "f": 8, "t": 4})


class ClipsIntoRows(ToyAudio):
    """The plain reshape that put a sound in the wrong place in HTSAT."""

    layout = Layout("f t", "f t", {"f": 8, "t": 8})


class HighFirst(ToyAudio):
    def preprocess(self, raws: Any) -> EncoderInputs:
        inputs = super().preprocess(raws)
        cells = inputs["x"].view(-1, 2, 8, 4, 10).flip(2).reshape(-1, 64, 10)
        return EncoderInputs({"x": cells}, inputs.raw)


class HalfTime(ToyAudio):
    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        frequency, time = super().grid(inputs, layer).axes(0)
        return SpectrogramGrid(self.layout, frequency.values, [time.values / 2] * len(inputs))


class MelForLinear(ToyAudio):
    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        _, time = super().grid(inputs, layer).axes(0)
        hertz = np.geomspace(100, 3800, 16).astype(np.float32)
        return SpectrogramGrid(self.layout, hertz, [time.values] * len(inputs))


class WithoutBos(ToyText):
    shift = 1


class WordsBackwards(ToyText):
    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        good = super().grid(inputs, layer)
        words = [good.words(row) for row in range(len(inputs))]
        last = torch.tensor([[len(row) - 1] for row in words])
        turned = torch.where(good._word_of_token < 0, -1, last - good._word_of_token)
        return TextGrid(words, turned, good.valid)


class Blind(ToyImage):
    def preprocess(self, raws: Any) -> EncoderInputs:
        inputs = super().preprocess(raws)
        return EncoderInputs({"x": 0 * inputs["x"]}, inputs.raw)


MISPLACED: dict[str, tuple[Callable[[], Encoder], str]] = {
    "rows for columns": (RowsForColumns, "image encoder's grid of layer -1 misplaces .*came back"),
    "CLS offset": (ClsAtTheEnd, "prefix tokens"),
    "upside down": (UpsideDown, "came back at y"),
    "box": (WholePicture, "boxes"),
    "time for frequency": (TimeForFrequency, r"frequency .* Hz and time .* s came back"),
    "clips folded": (ClipsIntoRows, "came back"),
    "high first": (HighFirst, "came back"),
    "half time": (HalfTime, "came back"),
    "mel for linear": (MelForLinear, "came back"),
    "BOS offset": (WithoutBos, "word"),
    "words backwards": (WordsBackwards, "word"),
    "blind": (Blind, "changed no token"),
}


draws = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
"""One by default: what is drawn are the regions and the noise in them."""


@draws
@pytest.mark.parametrize("name", MISPLACED)
def test_check_grid_finds(name: str, seed: int) -> None:
    make, message = MISPLACED[name]
    encoder = make()
    raws = RAWS[encoder.modality]()
    with pytest.raises(EncoderError, match=message) as caught:
        check_grid(encoder, raws[0], seed=seed)
    assert "\n" not in str(caught.value)


@draws
def test_sound_grids_pass_with_any_draw(seed: int) -> None:
    for height, width in ((48, 60), (200, 50), (64, 48)):
        picture = pictures(1, height, width)[0]
        check_grid(ToyImage(), picture, seed=seed)
        flat = RawImage(np.full((height, width, 3), 128, dtype=np.uint8))
        check_grid(ToyImage(), flat, seed=seed)
    for rate in (8000, 16000, 44100):
        check_grid(ToyAudio(), recordings(1, rate)[0], seed=seed)


def test_regions_of_ones_own() -> None:
    picture = pictures(1)[0]  # the crop is columns 12:48, 12 pixels a token both ways
    check_grid(ToyImage(), picture, regions=[(0, 12, 12, 24), (20, 30, 30, 40)])
    with pytest.raises(EncoderError, match="y 0 to 12 px and x 12 to 24 px came back at"):
        check_grid(ClsAtTheEnd(), picture, regions=[(0, 12, 12, 24)])
    recording = recordings(1)[0]
    check_grid(ToyAudio(), recording, regions=[(500, 900, 1.0, 1.25), (3000, 3400, 0.2, 0.5)])
    with pytest.raises(EncoderError, match="1 of 1 regions"):
        check_grid(ClipsIntoRows(), recording, regions=[(500, 900, 1.0, 1.25)])
    check_grid(ToyText(), captions()[0], regions=[1, 3])
    check_grid(ClipsIntoRows(), recording, regions=[(500, 900, 1.0, 1.25)], misses=1)
    with pytest.raises(OptionError, match="number from 0 to 5"):
        check_grid(ToyText(), captions()[0], regions=[6])
    with pytest.raises(OptionError, match="four numbers"):
        check_grid(ToyImage(), picture, regions=[3])
    with pytest.raises(OptionError, match="no pixel"):
        check_grid(ToyImage(), picture, regions=[(5, 5, 5, 5)])


def test_what_check_grid_needs() -> None:
    with pytest.raises(InputError, match="larger picture"):
        check_grid(ToyImage(), RawImage(np.zeros((4, 4, 3), dtype=np.uint8)))
    with pytest.raises(InputError, match="longer recording"):
        check_grid(ToyAudio(), RawAudio(np.ones(900, dtype=np.float32), 8000))
    with pytest.raises(InputError, match="several words"):
        check_grid(ToyText(), RawText("rain"))
    with pytest.raises(InputError, match="raw text for an encoder of image"):
        check_grid(ToyImage(), RawText("rain"))
    with pytest.raises(OptionError, match="no layer 9"):
        check_grid(ToyImage(), pictures(1)[0], layer=9)
    with pytest.raises(OptionError, match="count"):
        check_grid(ToyImage(), pictures(1)[0], count=0)


def test_grids_of_odd_shapes_can_be_told_apart() -> None:
    """A transposed layout shows even where rows and columns are as many."""

    class Square(ToyImage):
        size = (24, 24)
        layout = Layout("h w", "h w", {"h": 3, "w": 3})

        def __init__(self) -> None:
            ToyEncoder.__init__(self, nn.Linear(192, WIDTH), 9, cls=True)

        def preprocess(self, raws: Any) -> EncoderInputs:
            cells = []
            for raw in raws:
                patches = pixels_to_tensor(raw, self.size)[0].unfold(1, 8, 8).unfold(2, 8, 8)
                cells.append(patches.permute(1, 2, 0, 3, 4).reshape(9, 192))
            return EncoderInputs({"x": torch.stack(cells)}, tuple(raws))

    class Transposed(Square):
        layout = Layout("w h", "h w", {"h": 3, "w": 3})

    check_grid(Square(), pictures(1)[0])
    assert isinstance(Square().grid(Square().preprocess(pictures(1)), 0), ImageGrid)
    with pytest.raises(EncoderError, match="misplaces"):
        check_grid(Transposed(), pictures(1)[0])
