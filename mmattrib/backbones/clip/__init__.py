"""`clip`: CLIP and CLIP-shaped checkpoints of transformers, from the hub or a folder.

This module imports neither torch nor transformers, so that listing backbones stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from mmattrib.models.backbone import Backbone

DEFAULT_CHECKPOINT = "openai/clip-vit-base-patch32"


def load(
    checkpoint: str = DEFAULT_CHECKPOINT,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
) -> Backbone:
    """Load ``clip``.

    Args:
        checkpoint: a hub id such as ``"openai/clip-vit-large-patch14"``, or a folder that
            ``save_pretrained`` wrote, with the processor's files in it. CLIP, MetaCLIP 2, SigLIP
            (SigLIP 2 with a fixed resolution too), AltCLIP and Chinese-CLIP.
        device: where to put it, e.g. ``"cuda"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        revision: a branch, tag or commit of the hub repository.

    Raises:
        WeightsError: not to be had, damaged, incomplete, of another family, or with code in it.
        OptionError: no such device or dtype, or a revision of a folder.
    """
    from mmattrib.backbones.clip.loading import load as load_checkpoint

    return load_checkpoint(checkpoint, device, dtype, revision)


def wrap(model: Any, processor: Any = None, name: str = "custom") -> Backbone:
    """A backbone around a CLIP-like transformers model that is already in memory.

    The model stays where and as it is: device, dtype, training mode and gradients included.

    Args:
        model: a ``CLIPModel`` or one of the families that :func:`load` names.
        processor: its processor, always needed: anything with ``tokenizer`` and
            ``image_processor``.
        name: what provenance calls it.

    Raises:
        OptionError: another kind of model, or a processor without these parts.
        WeightsError: the processor does not fit the model.
    """
    from mmattrib.backbones.clip.loading import wrap as wrap_model

    return wrap_model(model, processor, name)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register ``clip``."""
    register(
        "clip",
        load,
        summary="CLIP, MetaCLIP 2, SigLIP, AltCLIP, Chinese-CLIP: transformers, hub or folder",
        modalities=("image", "text"),
        requires=("transformers",),
        extra="mmattrib[clip]",
    )
