"""Loading open_clip models, with weights that are known to be theirs."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmattrib.backbones.open_clip.encoders import OpenClipImageEncoder, OpenClipTextEncoder
from mmattrib.backbones.open_clip.tokens import OpenClipTokenizer
from mmattrib.errors import OptionError, WeightsError, brief
from mmattrib.files import is_file
from mmattrib.models.backbone import Backbone
from mmattrib.models.bounds import UNSEEN, bounded, check_sizes, held_in
from mmattrib.models.pixels import Fit, PixelRecipe, three
from mmattrib.models.weights import (
    check_finite,
    check_state,
    explain,
    hub_reachable,
    parse_device,
    parse_dtype,
    read_state_dict,
    unreachable,
)
from mmattrib.types import JSONValue

OPENAI_KEYS = ("input_resolution", "context_length", "vocab_size")
"""Entries that only OpenAI's state dicts have; they identify the format."""

_SCHEMES = ("hf-hub:", "local-dir:")
_FITS: dict[str, Fit] = {"shortest": "crop", "squash": "stretch", "longest": "letterbox"}


def load(
    model: str,
    pretrained: str | None,
    device: str = "cpu",
    dtype: str = "float32",
    preprocess: Mapping[str, Any] | None = None,
) -> Backbone:
    """Load a model; see :func:`mmattrib.backbones.open_clip.load`."""
    import open_clip

    place, kind = parse_device(device), parse_dtype(dtype)
    forced = _preprocess(preprocess)
    with quiet():
        if model.startswith(_SCHEMES):
            made = _of_scheme(model, pretrained, forced)
        else:
            made = _of_architecture(model, pretrained, forced)
        try:
            tokenizer = open_clip.get_tokenizer(
                model if model.startswith(_SCHEMES) else model.replace("/", "-")
            )
        except Exception as error:  # the library's, the hub's or transformers' own
            raise explain(error, f"the tokenizer of {model}") from error
    check_finite(f"{model} {pretrained or ''}".strip(), dict(made.named_parameters()))
    provenance: dict[str, JSONValue] = {
        "model": model,
        "pretrained": None if pretrained is None else str(pretrained),
        "licence": "as the checkpoint's model card says",
        "dtype": str(kind).removeprefix("torch."),
    }
    return backbone(made.to(place, kind).eval(), tokenizer, "open_clip", provenance)


def wrap(model: Any, tokenizer: Any = None, name: str = "custom") -> Backbone:
    """Wrap a live model; see :func:`mmattrib.backbones.open_clip.wrap`."""
    if tokenizer is None:
        raise OptionError(
            f"wrap(model, tokenizer) needs the tokenizer of {type(model).__name__} too: "
            "open_clip.get_tokenizer(...) of the same architecture"
        )
    kind = "open_clip's VisionTransformer" if hasattr(model, "visual") else type(model).__name__
    return backbone(model, tokenizer, name, {"model": kind})


def backbone(
    model: Any,
    tokenizer: Any,
    name: str,
    provenance: dict[str, JSONValue],
    recipe: PixelRecipe | None = None,
    layers: Mapping[str, int] | None = None,
    image_encoder: type[OpenClipImageEncoder] = OpenClipImageEncoder,
) -> Backbone:
    """A backbone around a live open_clip model.

    Args:
        model: of ``open_clip.create_model``.
        tokenizer: of ``open_clip.get_tokenizer``.
        name: what provenance calls it.
        provenance: what else to record.
        recipe: how pictures are prepared; as the model's ``preprocess_cfg`` says if None.
        layers: default layers by modality; at M2IB's relative depth where not given.
        image_encoder: a subclass that prepares pictures in its own way.

    Raises:
        WeightsError: its towers are no transformers of open_clip's.
    """
    refuse_other_towers(model)
    recipe = _recipe(model) if recipe is None else recipe
    host = model.text if hasattr(model, "text") else model
    words = OpenClipTokenizer(tokenizer, int(host.context_length))
    chosen = layers or {}
    image = image_encoder(model, recipe, chosen.get("image"))
    text = OpenClipTextEncoder(model, words, chosen.get("text"))
    details: dict[str, JSONValue] = {
        **provenance,
        "image": {
            "blocks": image.num_layers,
            "pixels": list(recipe.size),
            "patch": [int(side) for side in model.visual.patch_size],
            "fit": recipe.fit,
            "resample": recipe.resample,
            "mean": list(recipe.mean),
            "std": list(recipe.std),
        },
        "text": {"blocks": text.num_layers, "tokens": words.longest},
        "activation": "quick-gelu" if uses_quick_gelu(model) else "gelu",
    }
    return Backbone({"image": image, "text": text}, name, details)


def uses_quick_gelu(model: Any) -> bool:
    """Whether the blocks' activation is the sigmoid approximation that OpenAI trained with."""
    return type(model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def refuse_other_towers(model: Any) -> None:
    """Say what an architecture has in place of the transformers that the encoders know.

    Raises:
        WeightsError: a convolutional, timm or transformers tower, or an untried pooler.
    """
    from open_clip.transformer import TextTransformer, VisionTransformer

    visual, text = getattr(model, "visual", None), getattr(model, "text", model)
    known = "accepted: architectures with open_clip's own VisionTransformer and TextTransformer"
    if not isinstance(visual, VisionTransformer):
        raise WeightsError(
            f"the image tower is {type(visual).__name__}, which has no sequence of transformer "
            f"blocks that can be cut; {known}, e.g. ViT-B-32. SigLIP and MobileCLIP-like models: "
            "see the backbone `clip`"
        )
    if text is not model and not isinstance(text, TextTransformer):
        raise WeightsError(
            f"the text tower is {type(text).__name__}, a model of another library; {known}"
        )
    if getattr(visual, "attn_pool_type", "") in ("parallel", "cascade"):
        raise WeightsError(
            f"the image tower pools by {visual.attn_pool_type!r} attention, which open_clip marks "
            f"as untested; {known} with CLS, mean or plain attention pooling"
        )
    host = text
    for tower in (visual.transformer, host.transformer):
        if not tower.batch_first:
            raise WeightsError(f"a tower runs with the batch second; {known}, batch first")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip's notes on its progress off the root logger.

    ``logging.warning`` would also add a handler to the root logger permanently.
    """
    root = logging.getLogger()
    level, handler = root.level, logging.NullHandler()
    root.addHandler(handler)
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _of_scheme(model: str, pretrained: str | None, forced: dict[str, Any]) -> nn.Module:
    """``hf-hub:`` and ``local-dir:``, whose weights and configuration come together."""
    if pretrained is not None:
        raise OptionError(
            f"pretrained={pretrained!r} was given with {model!r}, which names its own weights; "
            "leave one of them out"
        )
    scheme, _, rest = model.partition(":")
    if scheme == "local-dir":
        config = Path(rest) / "open_clip_config.json"
        if not is_file(config):
            raise WeightsError(
                f"{rest} has no open_clip_config.json; accepted after local-dir: a folder that "
                "open_clip's push_to_hf_hub or save wrote"
            )
        try:
            described: Mapping[str, Any] = dict(json.loads(config.read_text("utf-8"))["model_cfg"])
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{config} does not describe a model ({error})") from error
        _refuse_other_configurations(described)
        files = [f for kind in ("*.safetensors", "*.bin", "*.pth") for f in Path(rest).glob(kind)]
        if not files:
            raise WeightsError(
                f"{rest} holds no weights; accepted: a .safetensors, .bin or .pth file beside "
                "open_clip_config.json"
            )
    else:
        if not _cached(rest) and not hub_reachable():
            raise unreachable(model)
        described = _described(model)
        _refuse_other_configurations(described)
    check_sizes(model, described)
    with bounded(model, held_in(rest) if scheme == "local-dir" else UNSEEN), torch.device("meta"):
        _created(model, None, forced, load_weights=False, require_pretrained=False, device="meta")
    return _created(model, None, forced)


def _described(model: str) -> Mapping[str, Any]:
    """The configuration of a hub repository; its weights are left where they are."""
    import open_clip

    try:
        described: Mapping[str, Any] = open_clip.get_model_config(model)
    except Exception as error:  # the hub's and the library's own kinds
        raise explain(error, model) from error
    return described


def _of_architecture(name: str, pretrained: str | None, forced: dict[str, Any]) -> nn.Module:
    """An architecture that open_clip knows, with weights of a tag or a file."""
    import open_clip

    name = name.replace("/", "-")  # OpenAI writes ViT-B/32
    described = open_clip.get_model_config(name)
    if described is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise OptionError(
            f"open_clip has no architecture {brief(name)}; {hint}"
            "open_clip.list_models() lists them, and hf-hub: and local-dir: bring their own"
        )
    _refuse_other_configurations(described)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        raise OptionError(
            f"no weights were named for {name!r}, and random ones explain nothing; give "
            f"pretrained= the path of a checkpoint, or one of {', '.join(tags) or 'no known tags'}"
        )
    if is_file(Path(pretrained)):
        return _from_file(name, Path(pretrained), described, forced)
    if pretrained not in tags:
        raise OptionError(
            f"pretrained={str(pretrained)!r} is neither a file on this machine nor a tag of "
            f"{name!r}; tags: {', '.join(tags) or 'none'}"
        )
    found = open_clip.get_pretrained_cfg(name, pretrained)
    if bool(found.get("quick_gelu", False)) != bool(described.get("quick_gelu", False)):
        raise WeightsError(_activation(name, f"the tag {pretrained!r}", found.get("quick_gelu")))
    if not _cached(str(found.get("hf_hub", "")).rpartition("/")[0]) and not hub_reachable():
        raise unreachable(f"{name} {pretrained}")
    return _created(name, pretrained, forced)


def _from_file(
    name: str, path: Path, described: Mapping[str, Any], forced: dict[str, Any]
) -> nn.Module:
    """A checkpoint file in open_clip's or OpenAI's format, every weight accounted for."""
    import open_clip
    from open_clip.model import convert_to_custom_text_state_dict

    state = read_state_dict(path)
    if any(key in state for key in OPENAI_KEYS):
        state = {key: value for key, value in state.items() if key not in OPENAI_KEYS}
        if not described.get("quick_gelu", False):
            raise WeightsError(_activation(name, f"{path}, which is in OpenAI's format,", True))
    made: nn.Module = open_clip.create_model(
        name, load_weights=False, pretrained_text=False, force_preprocess_cfg=forced
    )
    wanted = made.state_dict()
    if "positional_embedding" in state and "positional_embedding" not in wanted:
        state = convert_to_custom_text_state_dict(state)
    if "logit_scale" in state and "logit_scale" in wanted:
        state["logit_scale"] = state["logit_scale"].reshape(wanted["logit_scale"].shape)
    check_state(path, name, wanted, state)
    made.load_state_dict(state)
    return made


def _created(
    model: str, pretrained: str | None, forced: dict[str, Any], **options: Any
) -> nn.Module:
    """``open_clip.create_model``, with an error where the weights were not loaded."""
    import open_clip

    try:
        made: nn.Module = open_clip.create_model(
            model,
            pretrained=pretrained,
            pretrained_text=False,
            weights_only=True,
            force_preprocess_cfg=forced,
            **{"require_pretrained": True, **options},
        )
    except Exception as error:  # the library's, the hub's and the readers' own kinds
        text = " ".join(str(error).split())
        source = f"{model} {pretrained}" if pretrained else model
        if "state_dict" in text:
            raise WeightsError(
                f"the weights of {source} do not fit its architecture: {text[:400]}. Give the "
                "checkpoint and the configuration that belong together"
            ) from error
        raise explain(error, source) from error
    return made


def _refuse_other_configurations(described: Mapping[str, Any]) -> None:
    """The same as :func:`refuse_other_towers`, before anything is downloaded or built."""
    vision, text = described.get("vision_cfg", {}), described.get("text_cfg", {})
    other = None
    if vision.get("timm_model_name"):
        other = f"the image tower is timm's {vision['timm_model_name']}"
    elif isinstance(vision.get("layers"), list | tuple):
        other = "the image tower is a ResNet, which has no transformer blocks that can be cut"
    elif text.get("hf_model_name"):
        other = f"the text tower is transformers' {text['hf_model_name']}"
    if other:
        raise WeightsError(
            f"{other}; accepted: architectures with open_clip's own VisionTransformer and text "
            "transformer, e.g. ViT-B-32. SigLIP models: see the backbone `clip`"
        )


def _activation(name: str, source: str, quick: object) -> str:
    other = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
    trained, built = ("quick-gelu", "gelu") if quick else ("gelu", "quick-gelu")
    return (
        f"{source} was trained with {trained}, and {name!r} computes {built}: the weights would "
        f"load and every embedding be wrong. Ask for model={other!r}"
    )


def _cached(repository: str) -> bool:
    """Whether the hub's cache here has anything of a repository."""
    from huggingface_hub import constants

    folder = "models--" + repository.replace("/", "--")
    return bool(repository) and (Path(constants.HF_HUB_CACHE) / folder / "snapshots").is_dir()


def _preprocess(given: Mapping[str, Any] | None) -> dict[str, Any]:
    accepted = ("mean", "std", "interpolation", "resize_mode")
    for name in given or {}:
        if name not in accepted:
            raise OptionError(
                f"preprocess has no entry {brief(name)}; accepted: {', '.join(accepted)}"
            )
    return dict(given or {})


def _recipe(model: Any) -> PixelRecipe:
    """What open_clip's own transform for evaluation does."""
    described = getattr(model.visual, "preprocess_cfg", None)
    if described is None:
        raise OptionError(
            "the model does not say how pictures are prepared (visual.preprocess_cfg); accepted: "
            "models of open_clip.create_model, which set it"
        )
    size = described["size"]
    height, width = (size, size) if isinstance(size, int) else size
    mode = described.get("resize_mode") or "shortest"
    if mode not in _FITS or (mode == "longest" and described.get("fill_color", 0)):
        raise WeightsError(
            f"the model resizes pictures by {mode!r} with fill colour "
            f"{described.get('fill_color', 0)!r}; accepted: {', '.join(_FITS)}, on black"
        )
    interpolation = described.get("interpolation")
    return PixelRecipe(
        (int(height), int(width)),
        mean=three(described["mean"], "mean"),
        std=three(described["std"], "std"),
        fit=_FITS[mode],
        resample="bilinear" if interpolation == "bilinear" else "bicubic",
    )
