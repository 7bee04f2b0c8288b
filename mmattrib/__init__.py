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

from typing import TYPE_CHECKING

from mmattrib.lazy import lazy_names

if TYPE_CHECKING:
    from mmattrib.backbones.clip import wrap
    from mmattrib.calibration import Calibration, Verdict, verdict
    from mmattrib.datasets import Dataset, load_dataset
    from mmattrib.datasets.scenes import Scene, scenes
    from mmattrib.evaluation import Results, Variant, evaluate
    from mmattrib.evaluation.calibrate import calibrate
    from mmattrib.explain import attribute
    from mmattrib.io.calibrations import load_calibration
    from mmattrib.io.explanations import load
    from mmattrib.loading import load_backbone, load_method
    from mmattrib.many import Failure, attribute_many
    from mmattrib.models.backbone import Backbone
    from mmattrib.models.blocks import BlockEncoder
    from mmattrib.models.encoder import Encoder
    from mmattrib.plugins.hookspecs import hookimpl
    from mmattrib.samples import Sample, Truth
    from mmattrib.types import Attribution, Explanation

__version__ = "0.1.0"

_HOME = {
    "Attribution": "types",
    "Backbone": "models.backbone",
    "BlockEncoder": "models.blocks",
    "Calibration": "calibration",
    "Dataset": "datasets",
    "Encoder": "models.encoder",
    "Failure": "many",
    "Explanation": "types",
    "Results": "evaluation",
    "Sample": "samples",
    "Scene": "datasets.scenes",
    "Truth": "samples",
    "Variant": "evaluation",
    "Verdict": "calibration",
    "attribute": "explain",
    "attribute_many": "many",
    "calibrate": "evaluation.calibrate",
    "evaluate": "evaluation",
    "hookimpl": "plugins.hookspecs",
    "load": "io.explanations",
    "load_backbone": "loading",
    "load_calibration": "io.calibrations",
    "load_dataset": "datasets",
    "load_method": "loading",
    "scenes": "datasets.scenes",
    "verdict": "calibration",
    "wrap": "backbones.clip",
}

__all__ = [
    "Attribution",
    "Backbone",
    "BlockEncoder",
    "Calibration",
    "Dataset",
    "Encoder",
    "Explanation",
    "Failure",
    "Results",
    "Sample",
    "Scene",
    "Truth",
    "Variant",
    "Verdict",
    "__version__",
    "attribute",
    "attribute_many",
    "calibrate",
    "evaluate",
    "hookimpl",
    "load",
    "load_backbone",
    "load_calibration",
    "load_dataset",
    "load_method",
    "scenes",
    "verdict",
    "wrap",
]


__getattr__ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
