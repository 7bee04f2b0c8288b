"""Loading CLIP-like checkpoints of transformers, and wrapping models that are loaded already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mmattrib.backbones.clip.encoders import (
    BertTextEncoder,
    ClipImageEncoder,
    ClipTextEncoder,
    SiglipImageEncoder,
    SiglipTextEncoder,
)
from mmattrib.errors import OptionError, WeightsError
from mmattrib.models.backbone import Backbone
from mmattrib.models.captions import CaptionTokenizer
from mmattrib.models.encoder import Encoder
from mmattrib.models.pixels import PixelRecipe
from mmattrib.models.pretrained import Pretrained
from mmattrib.models.weights import parse_device, parse_dtype
from mmattrib.types import JSONValue


@dataclass(frozen=True)
class Family:
    """One family of CLIP-shaped models.

    Attributes:
        image: (model, recipe) -> encoder.
        text: (model, tokenizer) -> encoder.
        fill: whether captions are padded to the full length, as in training.
    """

    image: Callable[[Any, PixelRecipe], Encoder]
    text: Callable[[Any, CaptionTokenizer], Encoder]
    fill: bool = False


FAMILIES: dict[str, Family] = {
    "clip": Family(ClipImageEncoder, ClipTextEncoder),
    "metaclip_2": Family(ClipImageEncoder, ClipTextEncoder),
    "siglip": Family(SiglipImageEncoder, SiglipTextEncoder, fill=True),
    "altclip": Family(ClipImageEncoder, BertTextEncoder),
    "chinese_clip": Family(ClipImageEncoder, BertTextEncoder),
}
"""transformers' ``model_type`` -> family. Each of them passes the conformance suite."""

_INSTEAD = {
    "siglip2": "this is the NaFlex kind with a variable number of patches; take a SigLIP 2 "
    "checkpoint with a fixed resolution, such as google/siglip2-base-patch16-224",
    "clap": "it embeds sound and text; install the plugin mmattrib-clap",
    "flava": "install the plugin mmattrib-flava",
}

_PLUGINS = {
    "clap": "install the plugin mmattrib-clap and call mmattrib_clap.wrap(model, processor)",
    "flava": "install the plugin mmattrib-flava and call mm.load_backbone('flava', checkpoint=...)",
}


def load(
    checkpoint: str, device: str = "cpu", dtype: str = "float32", revision: str | None = None
) -> Backbone:
    """Load a checkpoint; see :func:`mmattrib.backbones.clip.load`."""
    parse_device(device), parse_dtype(dtype)  # before anything is read
    found = Pretrained(checkpoint, revision)
    config = found.config()
    _family(config, checkpoint)
    model = found.model("AutoModel", device, dtype, config=config)
    processor = found.part("AutoProcessor", "its processor")
    provenance: dict[str, JSONValue] = {
        "checkpoint": str(checkpoint),
        "revision": revision,
        "commit": found.commit,
        "licence": "as the checkpoint's model card says",
    }
    return _backbone(model, processor, "clip", provenance)


def wrap(model: Any, processor: Any = None, name: str = "custom") -> Backbone:
    """Wrap a live model; see :func:`mmattrib.backbones.clip.wrap`."""
    parts = ("get_image_features", "get_text_features", "vision_model", "text_model")
    lacking = [part for part in parts if not hasattr(model, part)]
    if lacking or not isinstance(model, torch.nn.Module):
        raise OptionError(
            f"cannot wrap {type(model).__name__}: it has no {', '.join(lacking) or 'parameters'}; "
            f"accepted: transformers models of the families {', '.join(FAMILIES)}. {_way(model)}"
        )
    if processor is None:
        raise OptionError(
            f"wrap(model, processor) needs the processor of {type(model).__name__} too, which "
            "prepares pictures and captions: transformers.AutoProcessor.from_pretrained(...) of "
            "the same checkpoint"
        )
    return _backbone(model, processor, name, {"checkpoint": _name_of(model)})


def _backbone(model: Any, processor: Any, name: str, provenance: dict[str, JSONValue]) -> Backbone:
    family = _family(model.config, provenance["checkpoint"])
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise OptionError(
                f"the processor, {type(processor).__name__}, has no {part}; accepted: the "
                "processor that belongs to the model, e.g. AutoProcessor.from_pretrained(...)"
            )
    vision = model.config.vision_config
    side = int(vision.image_size)
    recipe = PixelRecipe.from_processor(processor.image_processor, (side, side))
    longest = _longest(model.config.text_config, processor.tokenizer)
    tokenizer = CaptionTokenizer(processor.tokenizer, longest, fill=family.fill)
    encoders = {"image": family.image(model, recipe), "text": family.text(model, tokenizer)}
    details: dict[str, JSONValue] = {
        **provenance,
        "family": str(model.config.model_type),
        "image": {
            "blocks": int(vision.num_hidden_layers),
            "pixels": side,
            "patch": int(vision.patch_size),
            "fit": recipe.fit,
            "resample": recipe.resample,
        },
        "text": {"blocks": int(model.config.text_config.num_hidden_layers), "tokens": longest},
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    return Backbone(encoders, name, details)


def _family(config: Any, source: object) -> Family:
    kind = getattr(config, "model_type", None)
    if kind in FAMILIES:
        return FAMILIES[kind]
    hint = _INSTEAD.get(str(kind), "name a checkpoint of one of these")
    raise WeightsError(
        f"{source} is a {kind!r} model; `clip` takes the families {', '.join(FAMILIES)}: {hint}"
    )


def _longest(config: Any, tokenizer: Any) -> int:
    """Most tokens of a caption, special ones included."""
    positions = int(config.max_position_embeddings)
    if hasattr(config, "project_dim"):  # AltCLIP counts positions from behind the padding's id
        positions -= int(config.pad_token_id) + 1
    return min(positions, int(getattr(tokenizer, "model_max_length", positions)))


def _way(model: Any) -> str:
    """Where a model that is not one of ours belongs."""
    kind = str(getattr(getattr(model, "config", None), "model_type", ""))
    if type(model).__module__.startswith("open_clip"):
        return (
            "This is open_clip's: mmattrib.backbones.open_clip.wrap(model, "
            "open_clip.get_tokenizer(...))"
        )
    if hasattr(model, "modality_trunks"):
        return "This is ImageBind: mmattrib.backbones.imagebind.wrap(model)"
    if kind in _PLUGINS:
        return f"This is a {kind!r} model: {_PLUGINS[kind]}"
    return "Write encoders of your own for others (docs/plugins.md)"


def _name_of(model: Any) -> str:
    return str(getattr(model, "name_or_path", "") or type(model).__name__)
