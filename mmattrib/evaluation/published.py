"""What the paper of CA-M2IB published, to stand beside what is measured here.

Numbers of Table 1 of Bourigault, Bourigault and Mandic, "Multi-Modal Information Bottleneck
Attribution with Cross-Attention Guidance": means and standard errors over ten random seeds, in
percent; a CLIP of ViT-B/32, CXR-RePaIR's weights for MS-CXR, openai/clip-vit-base-patch32 for
Conceptual Captions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SOURCE: Final = "Table 1 of the CA-M2IB paper, mean ± standard error over ten seeds"
METHODS: Final = ("grad-cam", "saliency", "kernel-shap", "rise", "chefer", "m2ib", "ca-m2ib")
"""The paper's columns by our names: GradCAM, Saliency, K-SHAP, RISE, Chefer et al., M2IB, Ours."""

METRICS: Final[Mapping[str, tuple[str, ...]]] = {
    "Conf. Drop": ("confidence_drop",),
    "Conf. Incr.": ("confidence_increase",),
    "ROAR+": (),
    "Localization": ("localization", "iou"),
}
"""The paper's rows -> metrics here that measure it, the first that is registered. ROAR+ trains a
model and is no metric of one map."""

_ROWS = """
ms-cxr image|text Conf. Drop   2.70 0.03  0.76 0.01  2.30 0.04  3.85 0.03  1.82 0.02  0.52 0.01  0.46 0.01
ms-cxr image|text Conf. Incr. 12.91 0.47 35.68 0.45 10.45 0.69  7.42 0.45 21.81 0.47 46.56 0.71 48.93 0.73
ms-cxr image|text ROAR+        3.61 0.82 25.97 1.37 12.92 1.03 17.11 0.77 24.84 1.21 39.47 0.88 43.25 0.90
ms-cxr image|text Localization 5.66 0.13 22.01 0.17  7.92 0.14 11.19 0.24 21.98 0.26 23.04 0.15 25.21 0.16
ms-cxr text|image Conf. Drop   2.22 0.04  3.28 0.03  2.35 0.05  1.13 0.02  2.88 0.03  2.25 0.04  2.02 0.03
ms-cxr text|image Conf. Incr. 36.92 0.55 19.27 0.55 34.68 0.78 58.34 0.66 28.56 0.35 36.09 0.70 39.89 0.72
ms-cxr text|image ROAR+       11.31 0.63 16.11 0.93 14.53 1.11 12.33 1.54  9.29 0.61 16.72 0.76 18.51 0.79
cc     image|text Conf. Drop   4.81 0.01  1.93 0.01  1.88 0.01  1.09 0.01  1.58 0.01  1.08 0.01  1.01 0.01
cc     image|text Conf. Incr. 18.18 0.08 23.47 0.12 25.69 0.29 36.43 0.14 38.13 0.12 42.22 0.19 46.35 0.20
cc     image|text ROAR+        2.35 0.42  7.01 0.90  1.59 0.90  3.22 0.99  7.79 0.56 10.82 0.86 12.37 0.90
cc     text|image Conf. Drop   2.14 0.01  1.73 0.01  1.66 0.01  1.27 0.01  1.03 0.01  1.03 0.01  0.94 0.01
cc     text|image Conf. Incr. 30.34 0.19 39.51 0.15 47.65 0.22 39.05 0.49 39.17 0.11 39.30 0.20 42.46 0.21
cc     text|image ROAR+       44.32 0.67 44.83 0.66 48.56 3.65 50.14 1.14 54.68 1.27 61.53 1.13 64.60 1.19
"""  # noqa: E501


def _table() -> dict[tuple[str, str, str], dict[str, tuple[float, float]]]:
    found = {}
    width = 2 * len(METHODS)
    for line in _ROWS.strip().splitlines():
        words = line.split()
        data, direction, *metric = words[:-width]
        numbers = [float(word) for word in words[-width:]]
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        found[data, direction, " ".join(metric)] = dict(zip(METHODS, pairs, strict=True))
    return found


TABLE_1: Final = _table()
"""Data set, direction and row of Table 1 -> method -> mean and standard error, in percent."""
