"""Loading CLIP-like checkpoints of transformers, and wrapping models that are loaded already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmattrib.backbones.clip.encoders import (
    BertTextEncoder,
    ClipImageEncoder,
    ClipTextEncoder,
    SiglipImageEncoder,
    SiglipTextEncoder,
)
from mmattrib.backbones.clip.tokens import CaptionTokenizer
from mmattrib.errors import OptionError, WeightsError
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import Encoder
from mmattrib.models.pixels import PixelRecipe
from mmattrib.models.weights import (
    check_keys,
    explain,
    hub_reachable,
    parse_device,
    parse_dtype,
    unreachable,
)
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
}


def load(
    checkpoint: str, device: str = "cpu", dtype: str = "float32", revision: str | None = None
) -> Backbone:
    """Load a checkpoint; see :func:`mmattrib.backbones.clip.load`."""
    place, kind = parse_device(device), parse_dtype(dtype)
    source, options = _source(checkpoint, revision)
    config = _reading(checkpoint, _auto("AutoConfig"), source, options)
    _family(config, checkpoint)
    model, info = _reading(
        checkpoint,
        _auto("AutoModel"),
        source,
        {
            **options,
            "config": config,
            "dtype": kind,
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,
        },
    )
    check_keys(
        checkpoint,
        f"a {type(model).__name__} of its own configuration",
        missing=_names(info.get("missing_keys")),
        unexpected=[name for name in _names(info.get("unexpected_keys")) if not _harmless(name)],
        mismatched=_names(info.get("mismatched_keys")),
    )
    processor = _reading(checkpoint, _auto("AutoProcessor"), source, options, "its processor: ")
    provenance: dict[str, JSONValue] = {
        "checkpoint": str(checkpoint),
        "revision": revision,
        "commit": _commit(source, revision),
        "licence": "as the checkpoint's model card says",
    }
    return _backbone(model.to(place).eval(), processor, "clip", provenance)


def wrap(model: Any, processor: Any, name: str = "custom") -> Backbone:
    """Wrap a live model; see :func:`mmattrib.backbones.clip.wrap`."""
    parts = ("get_image_features", "get_text_features", "vision_model", "text_model")
    lacking = [part for part in parts if not hasattr(model, part)]
    if lacking or not isinstance(model, torch.nn.Module):
        raise OptionError(
            f"cannot wrap {type(model).__name__}: it has no {', '.join(lacking) or 'parameters'}; "
            f"accepted: transformers models of the families {', '.join(FAMILIES)}. Write encoders "
            "of your own for others (docs/plugins.md)"
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


def _source(checkpoint: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """What to give to ``from_pretrained``, and with which options."""
    name = str(checkpoint)
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise OptionError(
                f"revision={revision!r} was given with the folder {path}; a folder has no "
                "revisions, leave it out"
            )
        return str(path), {"local_files_only": True}
    looks_local = name.startswith(("/", ".", "~", "\\")) or name.count("/") > 1 or path.exists()
    if looks_local:
        raise WeightsError(
            f"{name} is not a folder; accepted: a folder that save_pretrained wrote, or a hub id "
            "such as 'openai/clip-vit-base-patch32'"
        )
    options: dict[str, Any] = {"local_files_only": not hub_reachable()}
    if revision is not None:
        options["revision"] = revision
    return name, options


def _commit(source: str, revision: str | None) -> str | None:
    """The commit of a hub checkpoint, as the cache has it; None for a folder."""
    if Path(source).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def _auto(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _reading(
    checkpoint: str, kind: Any, source: str, options: dict[str, Any], what: str = ""
) -> Any:
    """``kind.from_pretrained`` with its many errors turned into ours."""
    try:
        return kind.from_pretrained(source, **options)
    except Exception as error:  # transformers, the hub and the readers each raise their own
        text = " ".join(str(error).split())
        local = Path(source).is_dir()
        if not local and options["local_files_only"]:
            raise unreachable(checkpoint) from error
        if not local and "revision" in options and "identifier" in text:
            raise WeightsError(
                f"{checkpoint} has no revision {options['revision']!r}; give a branch, tag or "
                "commit of that repository"
            ) from error
        if not local and any(sign in text for sign in ("not a valid model", "404", "401")):
            raise WeightsError(
                f"the hub has no model {checkpoint!r} that may be read; check the spelling, and "
                "log in with `hf auth login` if it is gated or private"
            ) from error
        if local and ("no file named" in text or "does not appear to have" in text):
            raise WeightsError(
                f"{what}{source} is not complete ({text[:160]}); accepted: a folder with the "
                "model's and the processor's files, as both save_pretrained methods write them"
            ) from error
        raise explain(error, f"{what}{checkpoint}" if what else source) from error


def _names(keys: Any) -> list[str]:
    return [str(key[0]) if isinstance(key, tuple) else str(key) for key in keys or ()]


def _harmless(name: str) -> bool:
    """Position numbers, which old releases wrote into checkpoints and which hold nothing."""
    return name.endswith("position_ids")


def _name_of(model: Any) -> str:
    return str(getattr(model, "name_or_path", "") or type(model).__name__)
