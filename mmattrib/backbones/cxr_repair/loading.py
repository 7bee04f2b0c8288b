"""Loading CXR-RePaIR's weights, and radiographs as it was trained on them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmattrib.backbones.open_clip.encoders import OpenClipImageEncoder
from mmattrib.backbones.open_clip.loading import OPENAI_KEYS, backbone, quiet
from mmattrib.errors import OptionError, WeightsError, brief
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.pixels import PixelRecipe
from mmattrib.models.towers import relative_layer
from mmattrib.models.weights import (
    check_finite,
    check_state,
    parse_device,
    parse_dtype,
    read_state_dict,
)
from mmattrib.types import RawImage, RawInput

MEAN = 101.48761
"""Of pixels from 0 to 255: CXR-RePaIR's own training statistics."""

STD = 83.43944
"""Of pixels from 0 to 255: CXR-RePaIR's own training statistics."""

STORED_SIDE = 320
"""Pixels a side of the squares, black bars included, that radiographs were stored as before they
were resized to the tower's size: the preprocessing that CheXzero, by the same group, published."""

PREPROCESSING = ("cxr-repair", "m2ib")

LAYERS = {"image": 9, "text": 7}
"""Of 12 blocks: what M2IB's demonstration on radiographs explains."""

DARKEST = 32
"""A radiograph whose brightest 8-bit pixel is below this gets a warning."""


class RadiographEncoder(OpenClipImageEncoder):
    """An image encoder for radiographs that warns where one is nearly black.

    A 16-bit PNG is scaled from its full range; one that holds 12 bits comes out 16 times too dark.
    """

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        for raw in raws:
            if isinstance(raw, RawImage) and int(raw.pixels.max()) < DARKEST:
                warnings.warn(
                    f"{raw.name}: the brightest pixel is {int(raw.pixels.max())} of 255; a 16-bit "
                    "file that holds 12 bits must be rescaled to its full range first",
                    stacklevel=2,
                )
        return super().preprocess(raws)


def load(
    checkpoint: str | None,
    preprocessing: str = "cxr-repair",
    device: str = "cpu",
    dtype: str = "float32",
) -> Backbone:
    """Load a checkpoint; see :func:`mmattrib.backbones.cxr_repair.load`."""
    if checkpoint is None:
        raise OptionError(
            "cxr-repair needs checkpoint=, the path of clip-imp-pretrained_128_6_after_4.pt; its "
            "authors publish it with CXR-RePaIR (github.com/rajpurkarlab/CXR-RePaIR)"
        )
    if preprocessing not in PREPROCESSING:
        raise OptionError(
            f"preprocessing must be one of {', '.join(PREPROCESSING)}, got {brief(preprocessing)}"
        )
    place, kind = parse_device(device), parse_dtype(dtype)
    model = _model(checkpoint)
    with quiet():
        import open_clip

        tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    height, width = model.visual.image_size
    depth = len(model.visual.transformer.resblocks)
    return backbone(
        model.to(place, kind).eval(),
        tokenizer,
        "cxr-repair",
        {
            "checkpoint": Path(checkpoint).name,
            "preprocessing": preprocessing,
            "licence": "as the authors of CXR-RePaIR say; trained on MIMIC-CXR",
            "dtype": str(kind).removeprefix("torch."),
        },
        recipe=_recipe(preprocessing, (int(height), int(width))),
        layers=_layers(depth, len(model.transformer.resblocks)),
        image_encoder=RadiographEncoder,
    )


def _recipe(preprocessing: str, size: tuple[int, int]) -> PixelRecipe:
    if preprocessing == "m2ib":
        return PixelRecipe(size)
    return PixelRecipe(
        size,
        mean=(MEAN / 255,) * 3,
        std=(STD / 255,) * 3,
        fit="letterbox",
        resample="lanczos",
        via=(STORED_SIDE, STORED_SIDE),
    )


def _layers(image_depth: int, text_depth: int) -> Mapping[str, int]:
    return {
        "image": relative_layer(image_depth, LAYERS["image"]),
        "text": relative_layer(text_depth, LAYERS["text"]),
    }


def _model(checkpoint: str) -> Any:
    """A float32 CLIP of the sizes that the state dict has, with every weight from it."""
    state = {k: v for k, v in read_state_dict(checkpoint).items() if k not in OPENAI_KEYS}
    needed = ("visual.conv1.weight", "visual.proj", "positional_embedding", "text_projection")
    lacking = [name for name in needed if name not in state]
    if lacking:
        raise WeightsError(
            f"{checkpoint} has no {', '.join(lacking)}, so it is no ViT in OpenAI's CLIP format; "
            "accepted: a state dict like clip-imp-pretrained_128_6_after_4.pt. For open_clip's or "
            "transformers' checkpoints use the backbones `open_clip` and `clip`"
        )
    with quiet():
        import open_clip

        made = open_clip.CLIP(**_sizes(state), quick_gelu=True)
    check_state(checkpoint, "CLIP in OpenAI's format", made.state_dict(), state)
    made.load_state_dict({name: value.float() for name, value in state.items()})
    check_finite(checkpoint, dict(made.named_parameters()))
    return made


def _sizes(state: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that OpenAI's format leaves to its shapes: 64 channels to a head."""
    patches, patch = state["visual.positional_embedding"].shape[0] - 1, state["visual.conv1.weight"]
    side = round(patches**0.5)
    text_width = state["text_projection"].shape[0]
    return {
        "embed_dim": state["text_projection"].shape[1],
        "vision_cfg": {
            "layers": _blocks(state, "visual.transformer.resblocks."),
            "width": patch.shape[0],
            "patch_size": patch.shape[-1],
            "image_size": patch.shape[-1] * side,
        },
        "text_cfg": {
            "context_length": state["positional_embedding"].shape[0],
            "vocab_size": state["token_embedding.weight"].shape[0],
            "width": text_width,
            "heads": max(1, text_width // 64),
            "layers": _blocks(state, "transformer.resblocks."),
        },
    }


def _blocks(state: Mapping[str, Any], prefix: str) -> int:
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    return len(numbers)
