"""Encoders, backbones and token grids, and the toolkit for those who adapt a model of their own.

What an adapter needs is here, by its public name; docs/plugins.md shows it in use. Names are
imported when they are first used, so that importing this package imports no torch.

- The contract: :class:`Encoder`, :class:`BlockEncoder` (from a list of blocks), :class:`Backbone`,
  :class:`EncoderInputs`, :class:`TokenEmbeddings`, :func:`expect`; what is optional:
  ``ATTENTION``, ``INPUT_GRADIENT``, ``INPUT_LAYER``, :func:`require`, :class:`AttentionPass`.
- Transformer towers: :class:`TowerEncoder` (a true suffix from recorded block arguments),
  :class:`ImageTowerEncoder`, :class:`TextTowerEncoder`, :class:`PreNorm`, :class:`Parts`,
  :func:`relative_layer`, :func:`attend_linear`, :func:`causal_keys`, :func:`packed_parts`.
- Convolutional towers: :class:`ConvEncoder` (blocks of feature maps), :class:`ConvImageEncoder`,
  :class:`ConvCells`, :func:`conv_grid`.
- Checkpoints: :class:`Pretrained` (a transformers checkpoint of a folder or the hub),
  :func:`read_state_dict`, :func:`check_state`, :func:`check_keys`, :func:`explain`,
  :func:`parse_device`, :func:`parse_dtype`.
- Captions: :class:`CaptionTokenizer`, :class:`Caption`, :func:`align`.
- Pictures and sound: :class:`PixelRecipe`, :func:`patch_grid`, :func:`stretch`,
  :func:`centre_crop`, :func:`letterbox`, :func:`normalise`, :func:`pixels_to_tensor`,
  :class:`MelSpec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.lazy import lazy_names

if TYPE_CHECKING:
    from mmattrib.models.attention import AttentionPass
    from mmattrib.models.backbone import Backbone
    from mmattrib.models.blocks import BlockEncoder
    from mmattrib.models.capabilities import ATTENTION, INPUT_GRADIENT, INPUT_LAYER, require
    from mmattrib.models.captions import Caption, CaptionTokenizer, align
    from mmattrib.models.convolution import ConvCells, ConvEncoder, ConvImageEncoder, conv_grid
    from mmattrib.models.encoder import Encoder, EncoderInputs, TokenEmbeddings, expect
    from mmattrib.models.melspec import MelSpec
    from mmattrib.models.pixels import PixelRecipe, patch_grid
    from mmattrib.models.prenorm import PreNorm, attend_linear, causal_keys, packed_parts
    from mmattrib.models.pretrained import Pretrained
    from mmattrib.models.resizing import (
        centre_crop,
        letterbox,
        normalise,
        pixels_to_tensor,
        stretch,
    )
    from mmattrib.models.towers import (
        ImageTowerEncoder,
        Parts,
        TextTowerEncoder,
        TowerEncoder,
        relative_layer,
    )
    from mmattrib.models.weights import (
        check_keys,
        check_state,
        explain,
        parse_device,
        parse_dtype,
        read_state_dict,
    )

_NAMES = {
    "attention": ("AttentionPass",),
    "backbone": ("Backbone",),
    "blocks": ("BlockEncoder",),
    "capabilities": ("ATTENTION", "INPUT_GRADIENT", "INPUT_LAYER", "require"),
    "captions": ("Caption", "CaptionTokenizer", "align"),
    "convolution": ("ConvCells", "ConvEncoder", "ConvImageEncoder", "conv_grid"),
    "encoder": ("Encoder", "EncoderInputs", "TokenEmbeddings", "expect"),
    "melspec": ("MelSpec",),
    "passes": ("Pass",),
    "pixels": ("PixelRecipe", "patch_grid"),
    "prenorm": ("PreNorm", "attend_linear", "causal_keys", "packed_parts"),
    "pretrained": ("Pretrained",),
    "resizing": ("centre_crop", "letterbox", "normalise", "pixels_to_tensor", "stretch"),
    "towers": (
        "ImageTowerEncoder",
        "Parts",
        "TextTowerEncoder",
        "TowerEncoder",
        "relative_layer",
    ),
    "weights": (
        "check_keys",
        "check_state",
        "explain",
        "parse_device",
        "parse_dtype",
        "read_state_dict",
    ),
}

__all__ = [
    "ATTENTION",
    "INPUT_GRADIENT",
    "INPUT_LAYER",
    "AttentionPass",
    "Backbone",
    "BlockEncoder",
    "Caption",
    "CaptionTokenizer",
    "ConvCells",
    "ConvEncoder",
    "ConvImageEncoder",
    "Encoder",
    "EncoderInputs",
    "ImageTowerEncoder",
    "MelSpec",
    "Parts",
    "PixelRecipe",
    "PreNorm",
    "Pretrained",
    "TextTowerEncoder",
    "TokenEmbeddings",
    "TowerEncoder",
    "align",
    "attend_linear",
    "causal_keys",
    "centre_crop",
    "check_keys",
    "check_state",
    "conv_grid",
    "expect",
    "explain",
    "letterbox",
    "normalise",
    "packed_parts",
    "parse_device",
    "parse_dtype",
    "patch_grid",
    "pixels_to_tensor",
    "read_state_dict",
    "relative_layer",
    "require",
    "stretch",
]


_HOME = {name: module for module, names in _NAMES.items() for name in names}
__getattr__ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
