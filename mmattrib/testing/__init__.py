"""The conformance suite: does an encoder keep its contract, and does its grid tell the truth?

Authors of encoders run both checks in their own tests::

    def test_my_encoder():
        check_encoder(encoder, [load_image("a.png"), load_image("b.png")])
        check_grid(encoder, load_image("a.png"))

Each returns None, or raises :class:`mmattrib.errors.EncoderError` that names what broke, at which
layer and by how much.
"""

from __future__ import annotations

from mmattrib.testing.encoders import check_encoder, check_grid
from mmattrib.testing.probes import Region

__all__ = ["Region", "check_encoder", "check_grid"]
