"""Captions, pictures and recordings kept where their tokens enter the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy_encoders import RAWS, ToyAudio, ToyImage, ToyText

import mmattrib as mm
from mmattrib.errors import EncoderError, InputError, OptionError
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.grids import TextGrid, TokenGrid
from mmattrib.perturb.tokens import TOKEN_FILLS, keep_tokens, padding_id, token_weights
from mmattrib.types import RawImage, RawText

TOYS = {"image": ToyImage, "audio": ToyAudio, "text": ToyText}
PAIRS = [(kind, "embedding") for kind in TOYS] + [("text", "pad")]


def batch(kind: str) -> tuple[Any, EncoderInputs, TokenGrid]:
    encoder = TOYS[kind]()
    encoder.module.eval().requires_grad_(False)
    inputs = encoder.preprocess(RAWS[kind]())
    return encoder, inputs, encoder.grid(inputs, -1)


def shapes(grid: TokenGrid, count: int) -> list[tuple[int, ...]]:
    return [tuple(len(axis.values) for axis in grid.axes(number)) for number in range(count)]


@pytest.mark.parametrize(("kind", "fill"), PAIRS)
def test_weights_of_one_give_the_embedding(kind: str, fill: Any) -> None:
    encoder, inputs, grid = batch(kind)
    ones = [np.ones(shape, np.float32) for shape in shapes(grid, len(inputs))]
    found = keep_tokens(encoder, inputs, ones, fill=fill)
    torch.testing.assert_close(found, encoder.embed(inputs), rtol=0, atol=1e-6)
    per_token = keep_tokens(encoder, inputs, torch.ones(grid.valid.shape), fill=fill)
    torch.testing.assert_close(per_token, found, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "fill"), PAIRS)
def test_weights_of_zero_change_the_embedding_and_only_by_content_tokens(
    kind: str, fill: Any
) -> None:
    encoder, inputs, grid = batch(kind)
    gone = keep_tokens(encoder, inputs, torch.zeros(grid.valid.shape), fill=fill)
    assert (gone - encoder.embed(inputs)).norm(dim=1).min() > 1e-3
    zeros = (~grid.content).float() * 7.0  # what is not content is not even read
    again = keep_tokens(encoder, inputs, zeros, fill=fill)
    torch.testing.assert_close(again, gone, rtol=0, atol=0)


def test_the_embedding_fill_multiplies_the_tokens_of_a_word_by_its_weight() -> None:
    encoder, inputs, grid = batch("text")
    weights = [np.linspace(0.1, 0.9, len(grid.words(row)), dtype=np.float32) for row in range(3)]
    tokens = encoder.prefix(inputs, -1).clone()
    for row, (raw, values) in enumerate(zip(inputs.raw, weights, strict=True)):
        for column, (start, end) in enumerate(encoder.pieces(raw.text), start=1):
            inside = [w.start <= start and end <= w.end for w in grid.words(row)]
            tokens[row, column] *= float(values[inside.index(True)])
    found = keep_tokens(encoder, inputs, weights)
    torch.testing.assert_close(found, encoder.suffix(tokens, -1, inputs), rtol=0, atol=1e-6)


def test_the_pad_fill_is_the_padding_id_in_the_place_of_the_word() -> None:
    encoder, inputs, grid = batch("text")
    gone = [np.ones(len(grid.words(row)), np.float32) for row in range(3)]
    gone[0][1] = 0.0
    ids = inputs["x"].clone()
    spans = encoder.pieces(inputs.raw[0].text)
    word = grid.words(0)[1]
    for column, (start, end) in enumerate(spans, start=1):
        if word.start <= start and end <= word.end:
            ids[0, column] = 0
    padded = EncoderInputs({**inputs.tensors, "x": ids}, inputs.raw)
    found = keep_tokens(encoder, inputs, gone, fill="pad")
    torch.testing.assert_close(found, encoder.embed(padded), rtol=0, atol=1e-6)
    assert (found[0] - encoder.embed(inputs)[0]).norm() > 1e-3


def test_a_words_weight_is_every_one_of_its_tokens_weight_and_a_cells_is_the_mean() -> None:
    _, _, grid = batch("text")
    halves = [np.full(len(grid.words(row)), 0.5, np.float32) for row in range(3)]
    laid = token_weights(grid, halves)
    assert (laid[grid.content] == 0.5).all()
    assert (laid[~grid.content] == 1.0).all()
    _, _, cells = batch("image")
    ramp = [np.random.default_rng(0).random(shape) for shape in shapes(cells, 3)]
    maps = [one.astype(np.float32) for one in ramp]
    torch.testing.assert_close(
        token_weights(cells, maps)[cells.content], cells.to_tokens(maps)[cells.content]
    )


def test_repeating_a_row_applies_many_weights_at_once() -> None:
    encoder, inputs, grid = batch("text")
    count = len(grid.words(0))
    rows = np.random.default_rng(0).random((5, count)).astype(np.float32)
    many = keep_tokens(encoder, inputs.select([0] * 5), list(rows), fill="pad")
    one = torch.cat([keep_tokens(encoder, inputs.select([0]), [row], fill="pad") for row in rows])
    torch.testing.assert_close(many, one, rtol=0, atol=1e-6)


def test_gradients_reach_the_weights() -> None:
    encoder, inputs, grid = batch("text")
    weights = torch.full(grid.valid.shape, 0.5, requires_grad=True)
    keep_tokens(encoder, inputs, weights)[:, 0].sum().backward()
    assert weights.grad is not None
    assert (weights.grad[grid.content] != 0).any()
    assert not weights.grad[~grid.content].any()


def test_tiny_pads_with_zero_even_where_a_batch_shows_no_padding(untrained: mm.Backbone) -> None:
    text = untrained["text"]
    assert padding_id(text, text.preprocess([RawText("a red dog")])) == 0
    full = RawText("dog " * (text.config.max_tokens - 1))  # type: ignore[attr-defined]
    assert padding_id(text, text.preprocess([full])) == 0


class _PadsWithItsEnd(ToyText):
    """Reads a caption at its first end token, which is its padding too, as OpenAI's CLIP does."""

    pad_id = 2

    def preprocess(self, raws: Any) -> EncoderInputs:
        inputs = super().preprocess(raws)
        mask = inputs["mask"]
        return EncoderInputs({"x": inputs["x"].masked_fill(~mask, 2), "mask": mask}, inputs.raw)

    def forward(self, inputs: EncoderInputs) -> torch.Tensor:
        ids = inputs["x"]
        pool = (ids == 2).int().argmax(dim=1)
        return self.module(ids, mask=inputs["mask"], pool=pool)

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        shown = {"x": inputs["x"].masked_fill(~inputs["mask"], 0)}
        return super().grid(EncoderInputs(shown, inputs.raw), layer)


def test_padding_that_is_the_end_token_too_does_not_end_the_caption_earlier() -> None:
    encoder = _PadsWithItsEnd()
    encoder.module.eval().requires_grad_(False)
    inputs = encoder.preprocess(RAWS["text"]())
    assert padding_id(encoder, inputs) == 2
    kept = [np.ones(len(encoder.grid(inputs, -1).words(row)), np.float32) for row in range(3)]
    kept[0][0] = 0.0
    found = keep_tokens(encoder, inputs, kept, fill="pad")
    ids = inputs["x"].clone()
    ids[0, 1] = 2
    padded = EncoderInputs({**inputs.tensors, "x": ids}, inputs.raw)
    put_in = encoder.suffix(encoder.prefix(padded, -1), -1, inputs)
    torch.testing.assert_close(found, put_in, rtol=0, atol=1e-6)
    assert (found[0] - encoder.embed(padded)[0]).norm() > 1e-3, "read at the true end"


class _NeverPads(ToyText):
    """Counts its padding as valid, as SigLIP does, and does not say which id it is."""

    pad_id = None

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        grid = super().grid(inputs, layer)
        assert isinstance(grid, TextGrid)
        grid.valid = torch.ones_like(grid.valid)
        return grid


def test_an_encoder_that_does_not_declare_its_padding_needs_the_id() -> None:
    encoder = _NeverPads()
    encoder.module.eval()
    inputs = encoder.preprocess(RAWS["text"]())
    weights = torch.zeros(inputs["x"].shape)
    with pytest.raises(EncoderError, match="pad_id="):
        keep_tokens(encoder, inputs, weights, fill="pad")
    given = keep_tokens(encoder, inputs, weights, fill="pad", pad_id=0)
    usual, same = ToyText(), encoder.preprocess(RAWS["text"]())
    usual.module.load_state_dict(encoder.module.state_dict())
    usual.module.eval()
    torch.testing.assert_close(given, keep_tokens(usual, same, weights, fill="pad"))


def test_what_does_not_fit_is_refused() -> None:
    encoder, inputs, grid = batch("text")
    fits = [np.ones(len(grid.words(row)), np.float32) for row in range(3)]
    with pytest.raises(OptionError, match=", ".join(TOKEN_FILLS)):
        keep_tokens(encoder, inputs, fits, fill="blank")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="2 maps for 3"):
        keep_tokens(encoder, inputs, fits[:2])
    with pytest.raises(OptionError, match="one weight per word"):
        keep_tokens(encoder, inputs, [*fits[:2], fits[2][:-1]])
    with pytest.raises(OptionError, match="batch, tokens"):
        keep_tokens(encoder, inputs, torch.ones(3, 5))
    for wrong in (1.5, -0.5, float("nan")):
        with pytest.raises(OptionError, match=r"\[0, 1\]"):
            keep_tokens(encoder, inputs, torch.full(grid.valid.shape, wrong))
    image, pictures, cells = batch("image")
    with pytest.raises(InputError, match="captions"):
        keep_tokens(image, pictures, torch.ones(cells.valid.shape), fill="pad")


def test_cells_of_the_preprocessed_input_fade_to_zero(untrained: mm.Backbone) -> None:
    """Layer -2: the normalised tensor times the weights."""
    encoder = untrained["image"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    with encoder.frozen(), torch.no_grad():
        inputs = encoder.preprocess([RawImage(each) for each in pixels])
        weights = [np.random.default_rng(n).random((96, 96)).astype(np.float32) for n in (1, 2)]
        found = keep_tokens(encoder, inputs, weights, layer=-2)
        faded = inputs["x"] * torch.from_numpy(np.stack(weights))[:, None]
        wanted = encoder.embed(inputs.with_tensor("x", faded))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        assert (found - encoder.embed(inputs)).norm(dim=1).min() > 1e-3
        for layer in (0, -3):
            with pytest.raises(OptionError, match="layer -1 or -2"):
                keep_tokens(encoder, inputs, weights, layer=layer)
    toy, given, grid = batch("image")
    with pytest.raises(OptionError, match="layer -2"):
        keep_tokens(toy, given, torch.ones(grid.valid.shape), layer=-2)
