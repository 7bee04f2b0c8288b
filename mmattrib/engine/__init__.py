"""The information bottleneck of one input, guided by the other: formulas in pure torch.

Pure torch. It knows tokens ``(B, N, C)``, a suffix that turns them into embeddings, and a guide;
it knows no modality, no encoder and no registry. A bottleneck is fitted by descent
(:func:`fit_bottleneck`) or solved from slopes (:func:`channel_slopes`, :func:`closed_mask`) at a
price that is given or found (:func:`prices_that_keep`).
Equation numbers are those of CA-M2IB (Bourigault et al., "Multi-Modal Information Bottleneck
Attribution with Cross-Attention Guidance") unless another paper is named.
"""

from __future__ import annotations

from mmattrib.engine.guidance import GUIDANCES, Context, Guidance, Guide, Steering
from mmattrib.engine.optimise import BottleneckResult, fit_bottleneck
from mmattrib.engine.options import BottleneckOptions
from mmattrib.engine.path import path_attribution
from mmattrib.engine.price import prices_that_keep
from mmattrib.engine.rate import (
    channel_slopes,
    closed_mask,
    expected_embedding,
    pooled,
    rectified_attention,
)
from mmattrib.engine.statistics import TokenStatistics

__all__ = [
    "GUIDANCES",
    "BottleneckOptions",
    "BottleneckResult",
    "Context",
    "Guidance",
    "Guide",
    "Steering",
    "TokenStatistics",
    "channel_slopes",
    "closed_mask",
    "expected_embedding",
    "fit_bottleneck",
    "path_attribution",
    "pooled",
    "prices_that_keep",
    "rectified_attention",
]
