"""Reading and writing `tiny`'s weights: safetensors, with all that rebuilds the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mmattrib.backbones.tiny.model import TinyConfig, TinyModel
from mmattrib.backbones.tiny.tokenizer import UNK_ID, tokenise
from mmattrib.errors import WeightsError, doubled
from mmattrib.files import is_file
from mmattrib.models.bounds import bounded, check_sizes, held_by
from mmattrib.models.weights import check_finite, check_state

WEIGHTS: Final = Path(__file__).parent / "weights" / "tiny.safetensors"
CALIBRATION: Final = WEIGHTS.with_name("calibration.json")
"""What unrelated pairs look like to the shipped weights; `examples.tiny.calibrate` writes it."""


@dataclass(frozen=True)
class TinyInfo:
    """The description stored in a checkpoint: sizes, words, classes and how it was trained."""

    config: TinyConfig
    vocabulary: tuple[str, ...]
    class_names: tuple[str, ...]
    training: dict[str, Any]


def save_tiny(path: str | Path, model: TinyModel, info: TinyInfo) -> None:
    """Writes float32 weights and their description, atomically."""
    path = Path(path)
    tensors = {k: v.detach().float().contiguous() for k, v in model.state_dict().items()}
    metadata = {
        "format": "mmattrib-tiny-1",
        "config": json.dumps(asdict(info.config)),
        "vocabulary": json.dumps(info.vocabulary),
        "class_names": json.dumps(info.class_names),
        "training": json.dumps(info.training),
    }
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    partial.chmod(0o644)  # safetensors writes for the owner alone
    partial.replace(path)


def load_tiny(path: str | Path = WEIGHTS) -> tuple[TinyModel, TinyInfo]:
    """The model in evaluation mode, and its description.

    Raises WeightsError for a file that is missing, broken, or of other shapes than it says.
    """
    path = Path(path)
    if not is_file(path):
        raise WeightsError(f"{path} is missing: install mmattrib again, or name another file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = json.loads(metadata["config"])
        check_sizes(path, described)
        info = TinyInfo(
            TinyConfig(**described),
            tuple(json.loads(metadata["vocabulary"])),
            tuple(json.loads(metadata["class_names"])),
            json.loads(metadata["training"]),
        )
        with torch.inference_mode(False), torch.device("meta"), bounded(path, held_by(state)):
            model = TinyModel(info.config)
    except WeightsError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} is not a checkpoint of tiny: {error}") from error
    check_state(path, "tiny of its own configuration", model.state_dict(), state)
    # Copies: weights that stay mapped to the file would change, or end, with it.
    with torch.inference_mode(False):
        own = {name: value.to("cpu", torch.float32, copy=True) for name, value in state.items()}
        model.load_state_dict(own, assign=True)
    _check_words(path, info)
    check_finite(path, dict(model.named_parameters()))
    return model.eval(), info


def _check_words(path: Path, info: TinyInfo) -> None:
    words = info.vocabulary
    if strange := [word for word in words if not isinstance(word, str) or not word]:
        raise WeightsError(
            f"{path} has {strange[0]!r} in its vocabulary; accepted: words, as texts"
        )
    if unheard := [
        word for word in words[UNK_ID + 1 :] if [t for t, _ in tokenise(word)] != [word]
    ]:
        raise WeightsError(
            f"{path} has {unheard[0]!r} in its vocabulary, which no caption can hold: captions "
            "are split into words and lower-cased. Accepted: words as they are then"
        )
    again = sorted(doubled(words))
    if len(words) > info.config.vocabulary or len(words) <= UNK_ID or again:
        twice = f", of them twice: {', '.join(again[:3])}" if again else ""
        raise WeightsError(
            f"{path} has a vocabulary of {len(words)} words{twice}; accepted: different "
            f"words, {UNK_ID + 1} to {info.config.vocabulary} of them, "
            "marks included"
        )


def count_parameters(model: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters())
