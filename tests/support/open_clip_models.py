"""Small open_clip models with random weights, in the shapes of published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from checkpoints import bert_tokenizer, livelier

_VISION = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
_TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}


def _config(vision: dict[str, Any], text: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "embed_dim": 24,
        "vision_cfg": {**_VISION, **vision},
        "text_cfg": {**_TEXT, **text},
        **more,
    }


_COCA = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}

CONFIGS: dict[str, dict[str, Any]] = {
    # ViT-B-32
    "plain": _config({}, {}),
    # ViT-B-32-quickgelu, as OpenAI's weights need it
    "quickgelu": _config({}, {}, quick_gelu=True),
    # a text tower of its own; patches that leave pixels over; an eos token by its id
    "custom_text": _config(
        {"image_size": 35}, {"pool_type": "eos", "eos_id": 49407}, custom_text=True
    ),
    # CLIPA: mean of the patches, norm after it, a text tower without a causal mask, BERT's tokens
    "averaged": _config(
        {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
        {
            "no_causal_mask": True,
            "pool_type": "last",
            "vocab_size": 90,
            "hf_tokenizer_name": "local",
            "tokenizer_kwargs": {"strip_sep_token": True},
        },
    ),
    # layer scale, and the attention of open_clip's own with everything that it can scale
    "scaled": _config(
        {
            "ls_init_value": 0.5,
            "block_type": "custom",
            "scale_heads": True,
            "scale_attn_inner": True,
            "scale_attn": True,
            "scale_fc": True,
            "qk_norm": True,
        },
        {"ls_init_value": 0.5},
    ),
    # CoCa: an attention pooler, a class token behind the caption
    "coca": _config(
        _COCA,
        {"embed_cls": True, "output_tokens": True},
        custom_text=True,
        multimodal_cfg={
            "context_length": 24,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 1,
            "attn_pooler_heads": 2,
        },
    ),
}

PREPROCESS: dict[str, dict[str, Any]] = {
    "averaged": {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3},
    "custom_text": {"resize_mode": "longest"},
}


def create(kind: str) -> Any:
    """The model, in evaluation mode, with lively random weights."""
    import open_clip
    from open_clip.coca_model import CoCa

    config = json.loads(json.dumps(CONFIGS[kind]))
    own = config.pop("custom_text", False)
    if "multimodal_cfg" in config:
        made = CoCa
    else:
        made = open_clip.CustomTextCLIP if own else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = made(**config).eval()
        livelier(model)
    return model


def write(kind: str, folder: Path) -> tuple[Path, Any]:
    """Write a folder as open_clip's hub repositories have it; return folder and model."""
    from safetensors.torch import save_file

    target = folder / kind
    target.mkdir()
    model = create(kind)
    described = {"model_cfg": CONFIGS[kind], "preprocess_cfg": PREPROCESS.get(kind, {})}
    (target / "open_clip_config.json").write_text(json.dumps(described))
    if "hf_tokenizer_name" in CONFIGS[kind]["text_cfg"]:
        bert_tokenizer().save_pretrained(target)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, target / "open_clip_model.safetensors")
    return target, model


def write_openai(folder: Path) -> tuple[Path, Any]:
    """Write a ViT with quick-gelu as a state dict in OpenAI's format; return file and model."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        model = open_clip.CLIP(
            embed_dim=24,
            vision_cfg={"layers": 3, "width": 64, "patch_size": 8, "image_size": 32},
            text_cfg={**_TEXT, "width": 64, "heads": 1, "layers": 4},
            quick_gelu=True,
        ).eval()
        livelier(model)
    numbers = {"input_resolution": 32, "context_length": 24, "vocab_size": 49408}
    state = {name: torch.tensor(value) for name, value in numbers.items()}
    target = folder / "clip-imp.pt"
    torch.save({**model.state_dict(), **state}, target)
    return target, model
