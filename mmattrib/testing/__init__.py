"""The conformance suite: does an encoder or a method keep its contract, is a grid true?

Authors of encoders and of methods run the checks in their own tests::

    def test_my_encoder():
        check_encoder(encoder, [load_image("a.png"), load_image("b.png")])
        check_grid(encoder, load_image("a.png"))

    def test_my_method():
        check_method(MyMethod(), image_encoder, pictures, text_encoder, captions)

Each returns None, or raises :class:`mmattrib.errors.EncoderError` (of a method:
:class:`mmattrib.errors.MethodError`) that names what broke and by how much.
"""

from __future__ import annotations

from mmattrib.testing.encoders import check_encoder, check_grid
from mmattrib.testing.methods import check_method
from mmattrib.testing.probes import Region

__all__ = ["Region", "check_encoder", "check_grid", "check_method"]
