"""`imagebind`: Meta's ImageBind, seven kinds of input in one joint space.

This module imports neither torch nor the model's library, so that listing backbones stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from mmattrib.models.backbone import Backbone

MODALITIES = ("image", "text", "audio", "video", "depth", "thermal", "imu")
"""What ImageBind embeds. Pictures and videos share one tower."""


def load(
    checkpoint: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    modalities: Sequence[str] = MODALITIES,
    audio_clips: int | Literal["cover"] = 3,
    sha256: str | None = None,
    architecture: Mapping[str, int] | None = None,
) -> Backbone:
    """Load ``imagebind``.

    Args:
        checkpoint: a file in the format of ``imagebind_huge.pth``. If None, the published one:
            from this machine's cache, or downloaded into it (4.8 GB; an interrupted download goes
            on where it stopped) and checked against its SHA-256.
        device: where to put it, e.g. ``"cuda"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        modalities: what to keep; towers that none of these needs are not loaded.
        audio_clips: clips of 2 s taken from a longer recording: 3 as published, another number, or
            ``"cover"`` for as many as it takes to hear all of it.
        sha256: what the file must have; a file of your own is not checked if None.
        architecture: sizes of a model that is not ImageBind-huge, as keywords of the library's
            ``ImageBindModel``.

    Raises:
        WeightsError: missing, truncated, of another architecture, with another hash, or with code
            in it; or the download failed.
        MissingExtraError: a library that it needs is not installed.
        OptionError: an option that is none of the above.
    """
    from mmattrib.backbones.imagebind.loading import load as load_files

    return load_files(checkpoint, device, dtype, modalities, audio_clips, sha256, architecture)


def wrap(model: Any, audio_clips: int | Literal["cover"] = 3, name: str = "custom") -> Backbone:
    """A backbone around an ``ImageBindModel`` that is in memory already, e.g. fine-tuned.

    The model stays where and as it is: device, dtype, training mode and gradients included.

    Args:
        model: the model; every modality that it has is taken.
        audio_clips: as for :func:`load`.
        name: what provenance calls it.

    Raises:
        MissingExtraError: a library that it needs is not installed.
        OptionError: another kind of model, or a number of clips out of range.
    """
    from mmattrib.backbones.imagebind.loading import wrap as wrap_model

    return wrap_model(model, audio_clips, name)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register ``imagebind``."""
    register(
        "imagebind",
        load,
        summary="Meta's ImageBind (CC BY-NC-SA 4.0), published weights or a local file",
        modalities=MODALITIES,
        requires=("imagebind", "einops", "ftfy", "iopath", "regex", "timm", "torchvision"),
        extra="mmattrib[imagebind]",
    )
