"""Preparing a pair: decoding it, preprocessing its sides, and naming what its noise belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mmattrib.errors import InputError, repr_of
from mmattrib.io import content_hash
from mmattrib.io import load as load_raw
from mmattrib.methods.pace import Pace
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.guard import guarded
from mmattrib.models.turns import ordinary_tensors, reading_turn, turn
from mmattrib.models.untouched import has_hooks
from mmattrib.plugins.strangers import is_own
from mmattrib.samples import Sample
from mmattrib.types import SECOND, RawInput


@dataclass(frozen=True)
class Prepared:
    """A decoded pair and its preprocessed sides, each a batch of one.

    Preprocessing pair by pair, and batching only those whose tensors have the same shapes, means
    that nothing is ever padded to fit a neighbour: a pair's map cannot depend on its batch.

    Attributes:
        raw: side -> decoded input.
        inputs: side -> what the tower takes.
        sample: id of the sample, or None.
        index: the pair's place among those asked for, or None.
        padded: side -> ``inputs`` as they go through the towers; None before :meth:`paced`.
    """

    raw: Mapping[str, RawInput]
    inputs: Mapping[str, EncoderInputs]
    sample: str | None = None
    index: int | None = None
    padded: Mapping[str, EncoderInputs] | None = None

    __repr__ = repr_of()

    @property
    def given(self) -> Mapping[str, EncoderInputs]:
        """Side -> what goes through the tower: ``padded`` where that is known, else ``inputs``."""
        return self.inputs if self.padded is None else self.padded

    @property
    def shapes(self) -> tuple[object, ...]:
        """Equal for pairs that can be batched."""
        return tuple((side, inputs.shapes) for side, inputs in self.given.items())

    def paced(self, backbone: Backbone, pace: Pace) -> Prepared:
        """The pair with its sides padded where pairs go through a tower together.

        How far follows from each input alone (:meth:`Encoder.padded`), whatever stands beside it.
        A model with hooks is given no padding, which they might read.
        """
        if self.padded is not None:
            return self
        found = {}
        for side, own in self.inputs.items():
            encoder = side_encoder(backbone, side)
            found[side] = _padded(encoder, own) if pace.takes_together(encoder.device) else own
        return replace(self, padded=found)


def as_pair(pair: Any) -> Any:
    """A mapping of inputs with an ``id`` beside them, as data sets write samples, as a sample.

    Raises:
        InputError: the ``id`` is no text.
    """
    if not isinstance(pair, Mapping) or "id" not in pair:
        return pair
    name = pair["id"]
    if not isinstance(name, str) or not name:
        raise InputError(f"the id of a pair is a text, got {str(name)[:80]!r}")
    return Sample(name, {side: value for side, value in pair.items() if side != "id"})


def prepare(
    backbone: Backbone, pair: Mapping[str, Any] | Sample, index: int | None = None
) -> Prepared:
    """Decode and preprocess a pair.

    Args:
        backbone: embeds both sides.
        pair: two inputs by side, with an ``id`` or without, or a sample of two.
        index: its place among those asked for.

    Raises:
        InputError: not exactly two inputs, or one that cannot be read or embedded.
    """
    pair = as_pair(pair)
    sample = pair.id if isinstance(pair, Sample) else None
    given = pair.inputs if isinstance(pair, Sample) else pair
    if not isinstance(given, Mapping):
        raise InputError(
            f"a pair is a mapping of two inputs, such as {{'image': path, 'text': caption}}, or a "
            f"mmattrib.Sample; got {type(given).__name__}"
        )
    if len(given) != 2:
        named = ", ".join(map(str, given)) or "none"
        todo = (
            "take two with sample.pair(...)"
            if sample is not None
            else f"give two of {', '.join(backbone.modalities)}"
        )
        raise InputError(f"exactly two inputs make a pair, got {len(given)} ({named}); {todo}")
    encoders = {side: side_encoder(backbone, side) for side in given}  # before any file is read
    raw = {side: load_raw(encoders[side].modality, value) for side, value in given.items()}
    inputs = {side: _preprocess(encoders[side], raw[side]) for side in raw}
    return Prepared(raw, inputs, sample, index)


def _preprocess(encoder: Encoder, raw: RawInput) -> EncoderInputs:
    with _making_inputs(encoder):
        return encoder.preprocess([raw])


def _padded(encoder: Encoder, inputs: EncoderInputs) -> EncoderInputs:
    with _making_inputs(encoder):
        found = encoder.padded(inputs)
    if found is not inputs:
        with turn():  # other threads' explanations have hooks of their own on it
            if has_hooks(encoder.module):
                return inputs
    return found


@contextmanager
def _making_inputs(encoder: Encoder) -> Iterator[None]:
    # Tokenizers and feature extractors have a state of their own, and make tensors. Those of others
    # may use their model, which ours do not: they wait for it.
    waits = reading_turn if is_own(encoder) else turn
    with waits(), ordinary_tensors(encoder.module):
        yield


def side_encoder(backbone: Backbone, side: str) -> Encoder:
    """The encoder of a side: named by its modality, plus ``_2`` for the second of one modality.

    Its methods are checked: it may be anyone's.

    Raises:
        InputError: the backbone does not embed it.
        EncoderError: it lacks an attribute of the contract.
    """
    return guarded(backbone[side if side in backbone else str(side).removesuffix(SECOND)])


def pair_key(pair: Mapping[str, RawInput]) -> str:
    """What a pair's noise belongs to: SHA-256 of both decoded inputs, in no particular order."""
    parts = sorted(f"{raw.modality}:{content_hash(raw)}" for raw in pair.values())
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def side_key(pair: Mapping[str, RawInput], side: str) -> str:
    """What a side's noise belongs to, so that it does not depend on which input came first."""
    modality = pair[side].modality
    alone = sum(raw.modality == modality for raw in pair.values()) == 1
    return modality if alone else f"{modality}:{content_hash(pair[side])}"
