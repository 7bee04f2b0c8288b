"""Load registered backbones, and make registered methods, by name."""

from __future__ import annotations

from typing import Any

import torch

from mmattrib.errors import OptionError
from mmattrib.methods import Method
from mmattrib.methods.base import check_attributes
from mmattrib.models.backbone import Backbone
from mmattrib.plugins import default_plugins


def load_backbone(name: str, **options: Any) -> Backbone:
    """Load a registered backbone.

    Args:
        name: as ``mmattrib backbones`` lists it.
        **options: the backbone's own, e.g. ``checkpoint=``, ``device=``.

    Raises:
        UnknownNameError: no such name; the message gives the nearest ones.
        MissingExtraError: what it needs is not installed; the message names the extra.
        PluginError: its plugin is broken.
        WeightsError: its checkpoint cannot be loaded.
    """
    # Weights made inside inference mode could never be differentiated, and those made on another
    # device by default would not be where the backbone's own option puts them.
    with torch.inference_mode(False), torch.device("cpu"):
        backbone = default_plugins().registry.create("backbone", name, **options)
    if not isinstance(backbone, Backbone):
        raise OptionError(
            f"backbone {name!r} gave {type(backbone).__name__}; its factory must return "
            "mmattrib.Backbone"
        )
    return backbone


def load_method(method: str | Method, seed: int = 0, **options: Any) -> Method:
    """Make a registered method from its name, or return a :class:`Method` as given.

    Args:
        method: a name that ``mmattrib methods`` lists, or a :class:`Method`.
        seed: of the noise, where the method draws any; nothing else depends on it.
        **options: the method's own.

    Raises:
        UnknownNameError: no such name.
        OptionError: an unknown option, or options beside a live method.
        MethodError: it lacks an attribute of the contract, such as its name.
    """
    if isinstance(method, Method):
        if options:
            raise OptionError(
                f"method {method.name!r} was given as an object together with options "
                f"{sorted(options)}; set them where it is made"
            )
        check_attributes(method)
        return method
    made = default_plugins().registry.create("method", method, **options)
    if not isinstance(made, Method):
        raise OptionError(f"method {method!r} gave {type(made).__name__}, not mmattrib.Method")
    check_attributes(made)
    return made.seeded(seed)
