"""`open_clip`: any architecture and weights of open_clip whose towers are its own transformers.

This module imports neither torch nor open_clip, so that listing backbones stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from mmattrib.models.backbone import Backbone


def load(
    model: str = "ViT-B-32",
    pretrained: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    preprocess: Mapping[str, Any] | None = None,
) -> Backbone:
    """Load ``open_clip``.

    Args:
        model: an architecture of open_clip such as ``"ViT-B-32"``, a hub repository such as
            ``"hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"``, or ``"local-dir:PATH"``.
        pretrained: for an architecture, a tag such as ``"laion2b_s34b_b79k"`` or the path of a
            checkpoint, OpenAI's format included.
        device: where to put it, e.g. ``"cuda"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        preprocess: what differs from the checkpoint's own preprocessing, by open_clip's names:
            ``mean``, ``std``, ``interpolation``, ``resize_mode``.

    Raises:
        OptionError: no such architecture, tag, device or dtype, or no weights named.
        WeightsError: weights that are not to be had, damaged, incomplete, of another architecture
            or activation, or with code in them; towers that are no transformers of open_clip's.
    """
    from mmattrib.backbones.open_clip.loading import load as load_model

    return load_model(model, pretrained, device, dtype, preprocess)


def wrap(model: Any, tokenizer: Any = None, name: str = "custom") -> Backbone:
    """A backbone around an open_clip model that is already in memory.

    The model stays where and as it is.

    Args:
        model: of ``open_clip.create_model`` or ``open_clip.create_model_and_transforms``.
        tokenizer: of ``open_clip.get_tokenizer``.
        name: what provenance calls it.

    Raises:
        OptionError: no tokenizer.
        WeightsError: its towers are no transformers of open_clip's, or another tokenizer.
    """
    from mmattrib.backbones.open_clip.loading import wrap as wrap_model

    return wrap_model(model, tokenizer, name)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register ``open_clip``."""
    register(
        "open_clip",
        load,
        summary="any open_clip model with transformer towers: by tag, hf-hub: or local checkpoint",
        modalities=("image", "text"),
        requires=("open_clip",),
        extra="mmattrib[open_clip]",
    )
