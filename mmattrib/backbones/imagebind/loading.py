"""Load ImageBind from a checkpoint file; an error names every weight that does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmattrib.backbones.imagebind import MODALITIES, download
from mmattrib.backbones.imagebind.clips import ENCODERS
from mmattrib.backbones.imagebind.encoders import TOWER_OF, Tower
from mmattrib.backbones.imagebind.library import Library, library
from mmattrib.backbones.imagebind.signals import MOST_CLIPS
from mmattrib.errors import OptionError, WeightsError, brief
from mmattrib.files import is_file
from mmattrib.models.backbone import Backbone
from mmattrib.models.bounds import bounded, check_sizes
from mmattrib.models.encoder import Encoder
from mmattrib.models.weights import (
    check_finite,
    check_keys,
    explain,
    load_mapped,
    parse_device,
    parse_dtype,
)

LICENCE: Final = "CC BY-NC-SA 4.0"

HUGE: Final[Mapping[str, int]] = {
    "vision_embed_dim": 1280,
    "vision_num_blocks": 32,
    "vision_num_heads": 16,
    "text_embed_dim": 1024,
    "text_num_blocks": 24,
    "text_num_heads": 16,
    "out_embed_dim": 1024,
}
"""ImageBind-huge, where it differs from the library's defaults (its ``imagebind_huge``)."""


def load(
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    modalities: Sequence[str] = MODALITIES,
    audio_clips: int | Literal["cover"] = 3,
    sha256: str | None = None,
    architecture: Mapping[str, int] | None = None,
) -> Backbone:
    """Load ImageBind; see :func:`mmattrib.backbones.imagebind.load`."""
    chosen = _checked_modalities(modalities)
    place, kind = parse_device(device), parse_dtype(dtype)
    _check_clips(audio_clips)
    source = library()
    model = build(source, architecture)
    path, found = _find(checkpoint, sha256)
    keys = list(dict.fromkeys(TOWER_OF[modality] for modality in chosen))
    name = "ImageBind-huge" if architecture is None else "this architecture"
    fill(model, read(path), keys, path, name, place, kind)
    model.eval()
    encoders = _encoders(model, chosen, source, audio_clips)
    details = {
        "checkpoint": path.name,
        "sha256": found,
        "published_weights": found == download.SHA256,
        "licence": LICENCE,
        "library": _library_version(),
        "dtype": str(kind).removeprefix("torch."),
        "audio_clips": audio_clips,
    }
    return Backbone(encoders, "imagebind", details)


def wrap(model: Any, audio_clips: int | Literal["cover"] = 3, name: str = "custom") -> Backbone:
    """Wrap a live model; see :func:`mmattrib.backbones.imagebind.wrap`."""
    parts = ("modality_preprocessors", "modality_trunks", "modality_heads")
    if lacking := [part for part in parts if not hasattr(model, part)]:
        raise OptionError(
            f"cannot wrap {type(model).__name__}: it has no {', '.join(lacking)}; accepted: an "
            "ImageBindModel"
        )
    _check_clips(audio_clips)
    keys = list(model.modality_trunks)
    chosen = [modality for modality in MODALITIES if TOWER_OF[modality] in keys]
    details = {"licence": LICENCE, "audio_clips": audio_clips}
    return Backbone(_encoders(model, chosen, library(), audio_clips), name, details)


def _encoders(
    model: nn.Module,
    modalities: Sequence[str],
    source: Library,
    audio_clips: int | Literal["cover"],
) -> dict[str, Encoder]:
    keys = dict.fromkeys(TOWER_OF[modality] for modality in modalities)
    towers = {key: Tower(model, key) for key in keys}
    return {
        modality: ENCODERS[modality](towers[TOWER_OF[modality]], source, audio_clips)
        for modality in modalities
    }


def _check_clips(count: object) -> None:
    if isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= MOST_CLIPS:
        return
    if count != "cover":
        raise OptionError(
            f"audio_clips must be a whole number from 1 to {MOST_CLIPS}, or 'cover', got "
            f"{brief(count)}"
        )


def _checked_modalities(modalities: Sequence[str]) -> list[str]:
    given = [modalities] if isinstance(modalities, str) else list(modalities)
    unknown = [modality for modality in given if modality not in MODALITIES]
    if unknown or not given:
        raise OptionError(
            f"imagebind does not embed {', '.join(map(repr, unknown)) or 'nothing'}; accepted: "
            f"one or more of {', '.join(MODALITIES)}"
        )
    return list(dict.fromkeys(given))


def _find(checkpoint: str | Path | None, sha256: str | None) -> tuple[Path, str]:
    """The file and its hash.

    Raises:
        WeightsError: there is no such file, or its hash is another one.
    """
    if checkpoint is None:
        path = download.cache_folder() / "imagebind" / download.NAME
        if not is_file(path):
            download.fetch(download.URL, path, sha256 or download.SHA256)
        sha256 = sha256 or download.SHA256
    else:
        path = Path(checkpoint).expanduser()
        if not is_file(path):
            raise WeightsError(
                f"{path} is not a file; give the path of imagebind_huge.pth on this machine, or no "
                f"checkpoint to download it from {download.URL}"
            )
    found = download.file_hash(path)
    if sha256 is not None and found != sha256.lower():
        raise WeightsError(
            f"{path} has SHA-256 {found}, expected {sha256.lower()}; it is cut short, damaged or "
            "another file. Delete it and download it again"
        )
    return path, found


class _NumbersOnCpu(TorchFunctionMode):
    """The library reads drop-path rates out of ``torch.linspace``, which a meta tensor lacks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is torch.linspace:
            given["device"] = "cpu"
        return func(*args, **given)


def build(source: Library, architecture: Mapping[str, int] | None) -> nn.Module:
    """The library's model without memory behind its weights.

    Args:
        source: the library.
        architecture: keywords of its ``ImageBindModel``; ImageBind-huge if None.

    Raises:
        OptionError: an unknown keyword, or sizes that do not fit each other.
    """
    sizes = dict(HUGE if architecture is None else architecture)
    accepted = list(inspect.signature(source.model.ImageBindModel.__init__).parameters)[1:]
    if unknown := [name for name in sizes if name not in accepted]:
        raise OptionError(
            f"architecture has no {', '.join(map(repr, unknown))}; accepted: {', '.join(accepted)}"
        )
    try:
        check_sizes("architecture", sizes)
        with bounded("architecture"), torch.device("meta"), _NumbersOnCpu():
            model: nn.Module = source.model.ImageBindModel(**sizes)
    except (
        *(AssertionError, TypeError, ValueError, RuntimeError, ZeroDivisionError),
        WeightsError,
    ) as error:
        raise OptionError(
            f"no ImageBind of the architecture {sizes} can be built: {error}. Widths must be "
            "multiples of the number of heads, and sizes positive whole numbers"
        ) from error
    return model


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, read from the file as they are needed; no code in it is run.

    Raises:
        WeightsError: truncated, damaged, with code in it, or no state dict.
    """
    try:
        loaded = load_mapped(path)
    except Exception as error:  # readers raise errors of many kinds for broken files
        raise explain(error, path) from error
    state = loaded if isinstance(loaded, Mapping) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        inside = (
            f"a dictionary of {', '.join(map(str, list(state)[:4]))}"
            if state
            else (type(loaded).__name__)
        )
        raise WeightsError(
            f"{path} holds {inside}; accepted: the state dict of an ImageBindModel, that is, "
            "tensors by name. Save it with torch.save(model.state_dict(), path)"
        )
    return dict(state)


def fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    keys: Sequence[str],
    path: Path,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Put a checkpoint's weights into the towers that are wanted.

    Args:
        model: as :func:`build` made it.
        state: the checkpoint.
        keys: the library's names of the towers that are wanted.
        path: where the checkpoint is, for messages.
        name: what to call the model in messages.
        device: where the weights go.
        dtype: what the weights become.

    Raises:
        WeightsError: a weight of these towers is missing or of another shape, or the checkpoint
            has one that no tower has.
    """
    everything = model.state_dict()
    wanted = {key: value for key, value in everything.items() if key.split(".")[1] in keys}
    check_keys(
        path,
        name,
        mismatched=[
            f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
            for key, value in wanted.items()
            if key in state and state[key].shape != value.shape
        ],
        missing=[key for key in wanted if key not in state],
        unexpected=[key for key in state if key not in everything],
    )
    if strange := [key for key in wanted if not state[key].is_floating_point()]:
        raise WeightsError(
            f"{path} holds {strange[0]} as {state[strange[0]].dtype}; accepted: floats. Give the "
            "weights as published, not quantised ones"
        )
    # Copies: weights that stay mapped to the file would change, or end, with it.
    own = {key: state[key].to(device, dtype, copy=True) for key in wanted}
    model.load_state_dict(own, strict=False, assign=True)
    check_finite(path, {name: p for name, p in model.named_parameters() if name in own})


def _library_version() -> str:
    for name in ("imagebind-unofficial", "imagebind"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "imagebind"
