"""CLAP for mmattrib: recordings and captions, with transformers' checkpoints.

This module imports neither torch nor transformers, so that listing backbones stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from mmattrib import Backbone


def load(
    checkpoint: str = "laion/clap-htsat-unfused",
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    stage: int | None = None,
) -> Backbone:
    """Load ``clap``.

    Args:
        checkpoint: a hub id, or a folder that ``save_pretrained`` wrote, with its processor.
        device: where to put it, e.g. ``"cuda"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        revision: a branch, tag or commit of the hub repository.
        stage: the stage of the audio tower whose blocks are the layers; the last but one if None.

    Raises:
        WeightsError: not to be had, damaged, incomplete, or not CLAP.
        OptionError: no such stage, device or dtype.
    """
    from mmattrib_clap.loading import load_checkpoint

    return load_checkpoint(checkpoint, device, dtype, revision, stage)


def wrap(model: Any, processor: Any, stage: int | None = None) -> Backbone:
    """A backbone around a ``ClapModel`` that is in memory already, with its processor.

    Raises:
        OptionError: no such stage.
        WeightsError: the processor does not fit the model.
    """
    from mmattrib_clap.loading import wrap as wrap_model

    return wrap_model(model, processor, stage)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register ``clap``."""
    register(
        "clap",
        load,
        summary="CLAP of transformers (HTSAT and RoBERTa), with and without fusion",
        modalities=("audio", "text"),
        requires=("transformers",),
        extra="mmattrib-clap",
    )
