"""Conformance checks for plugins: encoders and their grids, methods, metrics and data sets.

Authors run them in their own tests::

    def test_my_encoder():
        check_encoder(encoder, [load_image("a.png"), load_image("b.png")])
        check_grid(encoder, load_image("a.png"))

    def test_my_method():
        check_method(MyMethod(), image_encoder, pictures, text_encoder, captions)

    def test_my_metric():
        check_metric(MyMetric())

    def test_my_dataset():
        check_dataset(MyDataset(folder))

Each returns None, or raises an error that names what broke and by how much:
:class:`mmattrib.errors.EncoderError`, :class:`mmattrib.errors.MethodError`,
:class:`mmattrib.errors.MetricError` or :class:`mmattrib.errors.DatasetError`.
"""

from __future__ import annotations

from mmattrib.testing.datasets import check_dataset
from mmattrib.testing.encoders import check_encoder
from mmattrib.testing.grids import check_grid
from mmattrib.testing.methods import check_method
from mmattrib.testing.metrics import cases_of, check_metric
from mmattrib.testing.probes import Region

__all__ = [
    "Region",
    "cases_of",
    "check_dataset",
    "check_encoder",
    "check_grid",
    "check_method",
    "check_metric",
]
