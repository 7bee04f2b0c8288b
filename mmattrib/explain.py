"""The one verb: `attribute` explains both sides of a pair; `attribute_many` a stream of pairs."""

from __future__ import annotations

import hashlib
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby, islice
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm

from mmattrib.engine import Guide
from mmattrib.errors import InputError, MmattribError, OptionError, TrustWarning
from mmattrib.io import load as load_raw
from mmattrib.methods import Method, Side, SideScores
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.turns import turn
from mmattrib.plugins import default_plugins
from mmattrib.types import (
    Attribution,
    Explanation,
    JSONValue,
    RawArray,
    RawAudio,
    RawImage,
    RawInput,
    RawText,
)

Layers: TypeAlias = int | Mapping[str, int] | None
OnError: TypeAlias = Literal["raise", "warn"]

SECOND = "_2"
"""What the second of two inputs of one modality adds to its side's name."""


def load_backbone(name: str, **options: Any) -> Backbone:
    """Load a registered backbone.

    Args:
        name: as ``mmattrib backbones`` lists it.
        **options: the backbone's own, e.g. ``checkpoint=``, ``device=``.

    Raises:
        UnknownNameError: no such name; the message gives the nearest ones.
        MissingExtraError: what it needs is not installed; the message names the extra.
        PluginError: its plugin is broken.
        WeightsError: its checkpoint cannot be loaded.
    """
    with torch.inference_mode(False):  # weights made inside it could never be differentiated
        backbone = default_plugins().registry.create("backbone", name, **options)
    if not isinstance(backbone, Backbone):
        raise OptionError(
            f"backbone {name!r} gave {type(backbone).__name__}; its factory must return "
            "mmattrib.Backbone"
        )
    return backbone


def load_method(method: str | Method, seed: int = 0, **options: Any) -> Method:
    """Make a registered method, or pass a live one through.

    Args:
        method: a name that ``mmattrib methods`` lists, or a :class:`Method`.
        seed: of the method's noise, if it draws any.
        **options: the method's own.

    Raises:
        UnknownNameError: no such name.
        OptionError: an unknown option, or options beside a live method.
    """
    if isinstance(method, Method):
        if options:
            raise OptionError(
                f"method {method.name!r} was given as an object together with options "
                f"{sorted(options)}; set them where it is made"
            )
        return method
    made = default_plugins().registry.create("method", method, seed=seed, **options)
    if not isinstance(made, Method):
        raise OptionError(f"method {method!r} gave {type(made).__name__}, not mmattrib.Method")
    return made


def attribute(
    backbone: Backbone,
    *,
    image: Any = None,
    audio: Any = None,
    text: Any = None,
    inputs: Mapping[str, Any] | None = None,
    method: str | Method = "ca-m2ib",
    layer: Layers = None,
    seed: int = 0,
    **options: Any,
) -> Explanation:
    """Explain what in two inputs made the model match them.

    Args:
        backbone: from :func:`load_backbone`, or a :class:`Backbone` around your own encoders.
        image: a path, a PIL image, or an array ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``.
        audio: a path, or ``(samples, rate)`` with samples ``(T,)`` or ``(T, channels)``.
        text: a caption.
        inputs: modality -> input, for modalities without a keyword of their own. A second input
            of one modality stands under its name with ``_2``: ``image=a, inputs={"image_2": b}``
            asks which parts make two pictures alike.
        method: a registered name, or a :class:`mmattrib.methods.Method`.
        layer: the layer whose output is explained, for both sides or per side or modality; each
            encoder's own default if None. -1 is the embedding output, -2 the preprocessed input:
            pixels or cells of a spectrogram, for encoders and methods that offer it.
        seed: of the noise. The same seed gives the same map, alone or in any batch.
        **options: the method's own, e.g. ``beta=0.1``.

    Returns:
        An :class:`Explanation`: a mapping with both sides, named as they were given.

    Raises:
        InputError: not exactly two inputs, or one that cannot be read or embedded.
        OptionError: an unknown option, or one out of range.

    Warns:
        TrustWarning: the map was computed, but its diagnostics say not to trust it.
    """
    named = {"image": image, "audio": audio, "text": text}
    pair = {side: value for side, value in named.items() if value is not None}
    for side, value in (inputs or {}).items():
        if side in pair:
            raise InputError(
                f"{side} is given twice, as a keyword and in inputs; name the second {side}{SECOND}"
            )
        pair[side] = value
    made = load_method(method, seed, **options)
    return _explain_batch(backbone, [_prepare(backbone, pair)], made, layer)[0]


def attribute_many(
    backbone: Backbone,
    pairs: Iterable[Mapping[str, Any]],
    *,
    method: str | Method = "ca-m2ib",
    layer: Layers = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
    on_error: OnError = "raise",
    **options: Any,
) -> Iterator[Explanation]:
    """Explain many pairs; each map is the same as from :func:`attribute`.

    Args:
        backbone: as for :func:`attribute`.
        pairs: mappings of two inputs each, e.g. ``{"image": path, "text": caption}`` or
            ``{"image": path, "image_2": path}``. Read as needed, a batch at a time.
        method: as for :func:`attribute`.
        layer: as for :func:`attribute`.
        seed: as for :func:`attribute`.
        batch_size: pairs taken together; changes the speed and the memory, never a map.
        progress: show a progress bar on standard error.
        on_error: ``"raise"`` ends at the first pair that cannot be read; ``"warn"`` names it in a
            warning and leaves it out.
        **options: the method's own.

    Yields:
        One :class:`Explanation` per pair, in order.

    Raises:
        InputError: with the number of the pair that cannot be read.
        OptionError: an unknown option, or one out of range.
    """
    if batch_size < 1:
        raise OptionError(f"batch_size must be at least 1, got {batch_size}")
    if on_error not in ("raise", "warn"):
        raise OptionError(f"on_error must be 'raise' or 'warn', got {on_error!r}")
    made = load_method(method, seed, **options)
    total = len(pairs) if isinstance(pairs, Sequence) else None
    with tqdm(total=total, unit="pair", disable=not progress) as bar:
        numbered = enumerate(pairs)
        while batch := list(islice(numbered, batch_size)):
            prepared = [
                pair for number, raw in batch for pair in _try(backbone, number, raw, on_error)
            ]
            for _, group in groupby(prepared, key=lambda pair: pair.shapes):
                yield from _explain_batch(backbone, list(group), made, layer)
            bar.update(len(batch))


@dataclass(frozen=True)
class _Pair:
    """A decoded pair and its preprocessed sides, each a batch of one.

    Preprocessing pair by pair, and batching only those whose tensors have the same shapes, means
    that nothing is ever padded to fit a neighbour: a pair's map cannot depend on its batch.
    """

    raw: Mapping[str, RawInput]
    inputs: Mapping[str, EncoderInputs]

    @property
    def shapes(self) -> tuple[object, ...]:
        """Equal for pairs that can be batched."""
        return tuple((side, inputs.shapes) for side, inputs in self.inputs.items())


def _try(
    backbone: Backbone, number: int, pair: Mapping[str, Any], on_error: OnError
) -> Iterator[_Pair]:
    """The prepared pair, or nothing once a warning has named what is wrong with it."""
    try:
        prepared = _prepare(backbone, pair)
    except MmattribError as error:
        if on_error == "raise":
            raise type(error)(f"pair {number}: {error}") from error
        warnings.warn(f"pair {number} is left out: {error}", stacklevel=3)
    else:
        yield prepared


def _prepare(backbone: Backbone, pair: Mapping[str, Any]) -> _Pair:
    """Decode and preprocess a pair."""
    if len(pair) != 2:
        given = ", ".join(pair) or "none"
        raise InputError(
            f"exactly two inputs make a pair, got {len(pair)} ({given}); give two of "
            f"{', '.join(backbone.modalities)}"
        )
    encoders = {side: side_encoder(backbone, side) for side in pair}  # before any file is read
    raw = {side: load_raw(encoders[side].modality, value) for side, value in pair.items()}
    with turn():  # tokenizers and feature extractors have a state of their own
        return _Pair(raw, {side: encoders[side].preprocess([raw[side]]) for side in raw})


def side_encoder(backbone: Backbone, side: str) -> Encoder:
    """The encoder of a side: named by its modality, plus ``_2`` for the second of one modality.

    Raises:
        InputError: the backbone does not embed it.
    """
    return backbone[side if side in backbone else side.removesuffix(SECOND)]


def _explain_batch(
    backbone: Backbone, pairs: Sequence[_Pair], method: Method, layer: Layers
) -> list[Explanation]:
    """Both sides of pairs whose inputs have the same shapes."""
    start = time.perf_counter()
    sides = tuple(pairs[0].raw)
    encoders = {side: side_encoder(backbone, side) for side in sides}
    layers = {side: _layer(side, encoders[side], method, layer) for side in sides}
    keys = [pair_key(pair.raw) for pair in pairs]
    columns: dict[str, list[Attribution]] = {}
    with ExitStack() as stack:
        for encoder in encoders.values():
            stack.enter_context(encoder.frozen())
        inputs = {side: [pair.inputs[side] for pair in pairs] for side in sides}
        guides = {side: _guide(encoders[side], inputs[side]) for side in sides}
        given = {
            side: Side(
                encoder=encoders[side],
                inputs=EncoderInputs.cat(inputs[side]),
                layer=layers[side],
                guide=guides[other],
                keys=tuple(
                    f"{key}:{_side_key(pair.raw, side)}"
                    for key, pair in zip(keys, pairs, strict=True)
                ),
            )
            for side, other in (sides, sides[::-1])
        }
        for side, other in (sides, sides[::-1]):
            explained = _checked(replace(given[side], other=given[other]), guides[side])
            columns[side] = _attributions(explained, method(explained))
    cosines = (guides[sides[0]].embedding * guides[sides[1]].embedding).sum(-1).tolist()
    seconds = (time.perf_counter() - start) / len(pairs)
    provenance = _provenance(backbone, method, layers)
    return [
        Explanation(
            {side: columns[side][row] for side in sides},
            pair.raw,
            float(cosines[row]),
            {**provenance, "pair_key": keys[row], "seconds": round(seconds, 4)},
        )
        for row, pair in enumerate(pairs)
    ]


def _checked(side: Side, own: Guide) -> Side:
    """The side with an encoder whose suffix is the model's, on this very input."""
    encoder = side.encoder.checked(
        side.inputs, side.layer, tokens=side.tokens(), embedding=own.embedding
    )
    return side if encoder is side.encoder else replace(side, encoder=encoder)


def _layer(side: str, encoder: Encoder, method: Method, layer: Layers) -> int:
    if isinstance(layer, Mapping):
        layer = layer.get(side, layer.get(encoder.modality))
    return encoder.check_layer(method.default_layer(encoder) if layer is None else layer)


def _guide(encoder: Encoder, inputs: Sequence[EncoderInputs]) -> Guide:
    """Embedding and token embeddings of each input, one by one so that no batch rounds them."""
    with torch.no_grad():
        embeddings = [encoder.embed(one) for one in inputs]
        tokens = [encoder.token_embeddings(one) for one in inputs]
    return Guide(
        embedding=torch.cat(embeddings),
        tokens=torch.cat([found.values for found in tokens]),
        valid=torch.cat([found.valid for found in tokens]),
    )


def _attributions(side: Side, scores: SideScores) -> list[Attribution]:
    """Lay token scores on the inputs."""
    encoder, inputs = side.encoder, side.inputs
    grid = encoder.grid(inputs, side.layer)
    maps = grid.to_input(scores.scores)
    raw = scores.scores.detach().to("cpu", torch.float32)
    raw = raw.masked_fill(~grid.valid, float("nan"))
    found = []
    for row, values in enumerate(maps):
        diagnostics = scores.diagnostics[row]
        for message in diagnostics.get("warnings", ()):
            name = inputs.raw[row].name
            warnings.warn(f"{encoder.modality} {name!r}: {message}", TrustWarning, stacklevel=4)
        found.append(
            Attribution(
                modality=encoder.modality,
                scores=values,
                unit=scores.unit,
                axes=grid.axes(row),
                token_scores=raw[row].numpy().copy(),
                layer=side.layer,
                words=grid.words(row),
                diagnostics=diagnostics,
            )
        )
    return found


def pair_key(pair: Mapping[str, RawInput]) -> str:
    """What a pair's noise belongs to: SHA-256 of both decoded inputs, in no particular order."""
    parts = sorted(f"{raw.modality}:{_digest(raw)}" for raw in pair.values())
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _side_key(pair: Mapping[str, RawInput], side: str) -> str:
    """What a side's noise belongs to, so that it does not depend on which input came first."""
    modality = pair[side].modality
    alone = sum(raw.modality == modality for raw in pair.values()) == 1
    return modality if alone else f"{modality}:{_digest(pair[side])}"


_CONTENT: dict[type, Callable[[Any], bytes]] = {
    RawImage: lambda raw: (
        repr(raw.pixels.shape).encode() + np.ascontiguousarray(raw.pixels).tobytes()
    ),
    RawAudio: lambda raw: repr(raw.sample_rate).encode() + raw.samples.tobytes(),
    RawText: lambda raw: raw.text.encode(),
    RawArray: lambda raw: repr((raw.values.shape, raw.rate)).encode() + raw.values.tobytes(),
}


def _digest(raw: RawInput) -> str:
    return hashlib.sha256(_CONTENT[type(raw)](raw)).hexdigest()


def _provenance(
    backbone: Backbone, method: Method, layers: Mapping[str, int]
) -> dict[str, JSONValue]:
    return {
        "backbone": backbone.name,
        "backbone_details": backbone.provenance,
        "weights_sha256": backbone.weights_hash(),
        "method": method.name,
        "options": method.describe(),
        "layers": dict(layers),
        "versions": {
            "mmattrib": _version("mmattrib"),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
