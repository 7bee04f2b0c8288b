"""Registers the backbone ``colours``; imports no torch until it is asked for."""

from __future__ import annotations

from mmattrib.plugins.hookspecs import Register, hookimpl


def load() -> object:
    """Make the backbone."""
    from mmattrib_colours.encoders import backbone

    return backbone()


@hookimpl
def register_backbones(register: Register) -> None:
    """Register ``colours``."""
    register(
        "colours",
        load,
        summary="Eleven basic colours, in pictures and captions; nothing is learned.",
        modalities=["image", "text"],
    )
