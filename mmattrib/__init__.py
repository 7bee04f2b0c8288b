"""Which parts of one input made a joint-embedding model match it with another.

>>> import mmattrib as mm
>>> tiny = mm.load_backbone("tiny")
>>> scene = mm.scenes(1)[0]
>>> ex = mm.attribute(tiny, image=scene.image, text=scene.caption)
>>> ex["image"].scores.shape, ex["image"].unit
((96, 96), 'bits')

Names are imported when they are first used, so that ``import mmattrib`` and the command line's
listings import no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmattrib.api import attribute, attribute_many, load_backbone, load_method
    from mmattrib.backbone import Backbone
    from mmattrib.backbones.clip import wrap
    from mmattrib.benchmark import Evaluation, evaluate
    from mmattrib.data.scenes import Scene, scenes
    from mmattrib.encoder import BlockEncoder, Encoder
    from mmattrib.hookspecs import hookimpl
    from mmattrib.render import load
    from mmattrib.types import Attribution, Explanation

__version__ = "0.1.0"

_HOME = {
    "Attribution": "types",
    "Backbone": "backbone",
    "BlockEncoder": "encoder",
    "Encoder": "encoder",
    "Evaluation": "benchmark",
    "Explanation": "types",
    "Scene": "data.scenes",
    "attribute": "api",
    "attribute_many": "api",
    "evaluate": "benchmark",
    "hookimpl": "hookspecs",
    "load": "render",
    "load_backbone": "api",
    "load_method": "api",
    "scenes": "data.scenes",
    "wrap": "backbones.clip",
}

__all__ = [
    "Attribution",
    "Backbone",
    "BlockEncoder",
    "Encoder",
    "Evaluation",
    "Explanation",
    "Scene",
    "__version__",
    "attribute",
    "attribute_many",
    "evaluate",
    "hookimpl",
    "load",
    "load_backbone",
    "load_method",
    "scenes",
    "wrap",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'mmattrib' has no attribute {name!r}") from None
    value = getattr(import_module(f"mmattrib.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
