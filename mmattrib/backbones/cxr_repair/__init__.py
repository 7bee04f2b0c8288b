"""`cxr-repair`: CXR-RePaIR's CLIP for chest radiographs and reports, from a local file.

Endo, Krishnan, Krishna, Ng and Rajpurkar, "Retrieval-Based Chest X-Ray Report Generation Using a
Pre-trained Contrastive Language-Image Model", ML4H 2021. The published weights,
``clip-imp-pretrained_128_6_after_4.pt``, are a plain state dict in OpenAI's format of CLIP
ViT-B/32. Any ViT in that format loads, CheXzero's too.

This module imports neither torch nor open_clip, so that listing backbones stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from mmattrib.models.backbone import Backbone


def load(
    checkpoint: str | None = None,
    preprocessing: str = "cxr-repair",
    device: str = "cpu",
    dtype: str = "float32",
) -> Backbone:
    """Load ``cxr-repair``.

    Args:
        checkpoint: path of the state dict.
        preprocessing: ``"cxr-repair"``, as the model was trained: letterboxed to 320 x 320 on
            black, mean 101.48761 and spread 83.43944 of pixels from 0 to 255, then bicubic to the
            tower's size. ``"m2ib"``: CLIP's own, a centre crop with CLIP's RGB statistics, as
            M2IB's demonstration feeds it.
        device: where to put it, e.g. ``"cuda"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Raises:
        OptionError: no checkpoint named; no such preprocessing, device or dtype.
        WeightsError: the file is missing, damaged, holds code, or is no ViT in OpenAI's format.
    """
    from mmattrib.backbones.cxr_repair.loading import load as load_checkpoint

    return load_checkpoint(checkpoint, preprocessing, device, dtype)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register ``cxr-repair``."""
    register(
        "cxr-repair",
        load,
        summary="chest radiographs and reports: CXR-RePaIR's CLIP ViT-B/32 from a local file",
        modalities=("image", "text"),
        requires=("open_clip",),
        extra="mmattrib[open_clip]",
    )
