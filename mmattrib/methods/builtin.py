"""Registers the methods of this package, through the hook that plugins use too."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmattrib.methods.base import Method
    from mmattrib.plugins.hookspecs import Register

_METHODS = (
    (
        "ca-m2ib",
        "ca_m2ib:CAM2IB",
        "bottleneck with one mask per token, in closed form, towards the other input as attended "
        "to; nothing in it can collapse",
    ),
    ("ca-m2ib-literal", "ca_m2ib:CAM2IBLiteral", "CA-M2IB as published (learned Q, K, V)"),
    ("m2ib", "m2ib:M2IB", "M2IB as published (Wang et al. 2023)"),
    ("nib", "nib:NIB", "gradients integrated from zero at a layer (ICLR 2025)"),
    ("gradient-x-input", "nib:GradientTimesInput", "gradient x tokens at a layer"),
    ("grad-cam", "gradcam:GradCAM", "channels weighted by their mean gradient (ICCV 2017)"),
    ("random", "random:Random", "noise, the floor for every comparison"),
)


def _factory(where: str) -> Callable[..., Method]:
    module, name = where.split(":")

    def make(**options: Any) -> Method:
        method: type[Method] = getattr(import_module(f"mmattrib.methods.{module}"), name)
        return method.build(**options)

    return make


@hookimpl
def register_methods(register: Register) -> None:
    """Register every method of this package."""
    for name, where, summary in _METHODS:
        register(name, _factory(where), summary=summary)
