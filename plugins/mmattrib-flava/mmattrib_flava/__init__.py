"""FLAVA for mmattrib: pictures and captions, with transformers' checkpoints.

This module imports neither torch nor transformers, so that listing backbones stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from mmattrib import Backbone


def load(
    checkpoint: str = "facebook/flava-full",
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
) -> Backbone:
    """Load ``flava``.

    Args:
        checkpoint: a hub id, or a folder that ``save_pretrained`` wrote, with its processor.
        device: where to put it, e.g. ``"cuda"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        revision: a branch, tag or commit of the hub repository.

    Raises:
        WeightsError: not to be had, damaged, incomplete, or not FLAVA.
        OptionError: no such device or dtype.
    """
    from mmattrib_flava.loading import load_checkpoint

    return load_checkpoint(checkpoint, device, dtype, revision)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register ``flava``."""
    register(
        "flava",
        load,
        summary="FLAVA of transformers, its two contrastive towers",
        modalities=("image", "text"),
        requires=("transformers",),
        extra="mmattrib-flava",
    )
