"""What an encoder can do beyond its contract, and how a method asks for it.

Each capability is optional. An encoder names those it has in ``Encoder.capabilities``, and
:func:`mmattrib.testing.check_encoder` holds it to every one that it names. A method calls
:func:`require` before it uses one::

    require(side.encoder, [ATTENTION], "method 'rollout'")
    found = side.encoder.embed_with_attention(side.inputs)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mmattrib.errors import OptionError

if TYPE_CHECKING:
    from mmattrib.models.encoder import Encoder

ATTENTION: Final = "attention"
"""``Encoder.attention`` and ``Encoder.embed_with_attention``: the weights of every block, in one
graph with the embedding."""

INPUT_GRADIENT: Final = "input_gradient"
"""Layer :data:`INPUT_LAYER`: the preprocessed input itself, cell by cell, in place of tokens."""

INPUT_LAYER: Final = -2
"""The layer in front of the embedding output: the numbers that the tower is given.

Its tokens ``(B, N, C)`` are the cells of the preprocessed input: a picture's pixels with their
channels, a spectrogram's cells, the time steps of a series. Text has no such numbers, since ids
cannot be differentiated: there it is the embedding output, the same as layer -1. ``prefix``,
``suffix`` and ``grid`` take it like any other layer, so that a method needs no case for it."""

MEANING: Final = {
    ATTENTION: "the attention weights of its blocks",
    INPUT_GRADIENT: "gradients at its preprocessed input",
}
"""Every capability, and what it gives."""

_ADVICE: Final = {
    ATTENTION: "it fits towers whose blocks attend through torch's attention or a softmax; name it "
    "in the encoder's `capabilities` where check_encoder confirms it, or take a method that "
    "needs no attention",
    INPUT_GRADIENT: "name it in the encoder's `capabilities`, with `input_name` and "
    "`input_pattern`, or explain a layer from -1 on",
}


def require(encoder: Encoder, names: Iterable[str], who: str) -> None:
    """Refuse an encoder that lacks a capability.

    Args:
        encoder: the encoder.
        names: capabilities, e.g. ``[ATTENTION]``.
        who: what needs them, as the message begins: ``"method 'rollout'"``.

    Raises:
        OptionError: the encoder lacks one, or there is no capability of this name.
    """
    for name in names:
        if name not in MEANING:
            raise OptionError(
                f"{who} requires the capability {name!r}; there are {', '.join(MEANING)}"
            )
        if name not in encoder.capabilities:
            has = ", ".join(sorted(encoder.capabilities)) or "none"
            raise OptionError(
                f"{who} needs {MEANING[name]}, and the {encoder.modality} encoder "
                f"({type(encoder).__name__}) does not offer them (its capabilities: {has}); "
                f"{_ADVICE[name]}"
            )
