"""`tiny`: a small tri-modal model that ships with the package. A demonstration and measuring model.

This module imports no torch, so that listing backbones stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from mmattrib.models.backbone import Backbone


def load(checkpoint: str | None = None, device: str = "cpu") -> Backbone:
    """Load ``tiny``.

    It knows 41 drawn things, their sounds and the words for them: photographs, speech and free text
    mean little to it. Words that it does not know are warned of; a caption without any that it
    knows is refused.

    Args:
        checkpoint: a safetensors file that its training command wrote; the shipped one if None.
        device: where to put it.

    Raises:
        WeightsError: the file is missing, broken, or not a checkpoint of ``tiny``.
        OptionError: no such device.
    """
    from mmattrib.backbones.tiny import encoders

    return encoders.load(checkpoint, device)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register ``tiny``."""
    register(
        "tiny",
        load,
        summary="small shipped model of drawn things, their sounds and names; not for photographs",
        modalities=("image", "audio", "text"),
    )
