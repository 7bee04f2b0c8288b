"""`attribute` explains both inputs of a pair: which parts made a model match them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch

from mmattrib.engine import Guide
from mmattrib.errors import (
    EncoderError,
    InputError,
    OptionError,
    TrustWarning,
    brief,
    repr_of,
)
from mmattrib.loading import load_method
from mmattrib.methods import Method, Side, SideScores
from mmattrib.methods.base import guide_from
from mmattrib.methods.pace import Pace
from mmattrib.models.backbone import Backbone, check_backbone
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.passes import Passes, PassKeep
from mmattrib.models.rounding import agrees
from mmattrib.models.untouched import has_parts_of_others
from mmattrib.placement import with_unseen_warning
from mmattrib.plugins.strangers import is_own
from mmattrib.preparing import Prepared, pair_key, prepare, side_encoder, side_key
from mmattrib.provenance import provenance_of
from mmattrib.types import (
    SECOND,
    Attribution,
    Explanation,
)

Layers: TypeAlias = int | Mapping[str, int] | None


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
    precision: str = "auto",
    **options: Any,
) -> Explanation:
    """Explain which parts of two inputs made a model match them.

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
        seed: of the noise. The same seed gives the same map bit for bit, alone or in any batch, on
            the same machine and number of threads; but see :func:`attribute_many` for cards.
        precision: behind the explained layer: ``"full"``, the model's own; ``"half"``, bfloat16 for
            the products of a float32 model, which moves a map by a few hundredths of its largest
            score; ``"auto"``, half on graphics cards with units for it, and full elsewhere.
        **options: the method's own, e.g. ``beta=0.1``.

    Returns:
        An :class:`Explanation`: a mapping with both sides, named as they were given.

    Raises:
        InputError: not exactly two inputs, or one that cannot be read or embedded.
        OptionError: an unknown option, or one out of range.

    Warns:
        TrustWarning: the map was computed, but its diagnostics say not to trust it.
    """
    check_backbone(backbone)
    named = {"image": image, "audio": audio, "text": text}
    pair = {side: value for side, value in named.items() if value is not None}
    if inputs is not None and not isinstance(inputs, Mapping):
        raise InputError(
            "inputs= is a mapping from modality to input, such as {'depth': path}, got "
            f"{type(inputs).__name__}"
        )
    for side, value in (inputs or {}).items():
        if side in pair:
            raise InputError(
                f"{side} is given twice, as a keyword and in inputs; name the second {side}{SECOND}"
            )
        pair[side] = value
    pace = Pace(precision=precision)
    made = load_method(method, seed, **options)
    return explain(backbone, [prepare(backbone, pair)], made, layer, pace=pace)[0].explanation


@dataclass(frozen=True)
class Explained:
    """An explanation with what was computed on the way, so that nobody computes it again.

    Attributes:
        explanation: the result.
        inputs: side -> what the tower took, a batch of one.
        embeddings: side -> ``(D,)``, L2-normalised.
    """

    explanation: Explanation
    inputs: Mapping[str, EncoderInputs]
    embeddings: Mapping[str, torch.Tensor]

    __repr__ = repr_of()


def explain(
    backbone: Backbone,
    pairs: Sequence[Prepared],
    method: Method,
    layer: Layers = None,
    sides: Sequence[str] | None = None,
    *,
    keep: PassKeep | None = None,
    pace: Pace | None = None,
) -> list[Explained]:
    """Explain pairs whose inputs have the same shapes, as they go through the towers, in one go.

    Args:
        backbone: embeds both sides.
        pairs: at least one; their :attr:`Prepared.shapes` are equal once :meth:`Prepared.paced`.
        method: explains each side.
        layer: as for :func:`attribute`.
        sides: which sides to explain; both if None.
        keep: of passes through these encoders' towers; of these pairs alone if None.
        pace: how the pairs go through the model; as the device has it if None.

    Raises:
        OptionError: a layer or a side that is not there.
    """
    start, both, pace = time.perf_counter(), tuple(pairs[0].raw), pace or Pace()
    pairs = [pair.paced(backbone, pace) for pair in pairs]
    wanted, columns = _wanted(sides, both), dict[str, list[Attribution]]()
    encoders = {side: side_encoder(backbone, side) for side in both}
    layers = _layers(encoders, method, layer)
    keys = [pair_key(pair.raw) for pair in pairs]
    with ExitStack() as stack:
        for encoder in encoders.values():
            stack.enter_context(encoder.frozen())
        passes = _passes(encoders, pairs, layers, keep, pace)
        again = partial(
            explain, backbone, method=method, layer=layer, sides=sides, keep=keep, pace=pace
        )
        if _reads_padding(passes, pairs):
            return _unpadded(again, pairs)
        guides = _guides(passes)
        given = _sides(passes, pairs, guides, keys, pace)
        changed = {side: _changed(passes[side]) for side in both}
        kinds = [tuple(bool(changed[side][row]) for side in both) for row in range(len(pairs))]
        if len(set(kinds)) > 1:  # each row as it is explained alone
            return _by_kind(kinds, again, pairs)
        if any(kinds[0]):
            _replay(encoders, passes, changed)
            guides = _guides(passes)
            given = _sides(passes, pairs, guides, keys, pace)
        for side in wanted:
            _check_tokens(given[side])
            own = replace(given[side], other=given[_other(both, side)])
            columns[side] = _attributions(own, method(own), [pair.inputs[side] for pair in pairs])
    embeddings = {side: guides[side].embedding for side in both}
    seconds = round((time.perf_counter() - start) / len(pairs), 4)  # without the first hash
    provenance = {
        **provenance_of(backbone, method, encoders, layers),
        **pace.describe(encoder.device for encoder in encoders.values()),
        "seconds": seconds,
    }
    told = [{**provenance, "pair_key": key} for key in keys]
    return _with_embeddings(columns, told, pairs, embeddings)


def _with_embeddings(
    columns: Mapping[str, Sequence[Attribution]],
    told: Sequence[dict[str, Any]],
    pairs: Sequence[Prepared],
    embeddings: Mapping[str, torch.Tensor],
) -> list[Explained]:
    """Every pair's attributions and provenance as an explanation."""
    cosines = _cosines(*embeddings.values())
    made = [
        Explanation(
            {side: own[row] for side, own in columns.items()},
            pair.raw,
            cosines[row],
            told[row],
            pair.sample,
            pair.index,
        )
        for row, pair in enumerate(pairs)
    ]
    return [
        Explained(one, pair.inputs, {side: found[row] for side, found in embeddings.items()})
        for row, (one, pair) in enumerate(zip(made, pairs, strict=True))
    ]


def _cosines(first: torch.Tensor, second: torch.Tensor) -> list[float]:
    """Of each pair; the two towers may lie on two devices."""
    found: list[float] = (first * second.to(first.device)).sum(-1).tolist()
    return found


def _changed(known: Passes) -> tuple[float, ...]:
    """How far the suffix is from the model on each input."""
    own, tokens = known.embeddings(), known.tokens(known.layer)
    return known.encoder.changed(known.inputs, known.layer, tokens, own, known.behind())


def _replay(
    encoders: dict[str, Encoder],
    passes: dict[str, Passes],
    changed: Mapping[str, Sequence[float]],
) -> None:
    """Put in the place of encoders that were changed those that run the whole model."""
    for name, own in passes.items():
        if max(changed[name]):
            encoders[name] = own.encoder.replaying(max(changed[name]), own.layer)
            passes[name] = own.by(encoders[name])


def _by_kind(
    kinds: Sequence[object],
    call: Callable[[Sequence[Prepared]], list[Explained]],
    pairs: Sequence[Prepared],
) -> list[Explained]:
    """Call with the pairs of each kind; what it gives, in the order of the pairs."""
    found: dict[int, Explained] = {}
    for kind in dict.fromkeys(kinds):
        rows = [row for row, own in enumerate(kinds) if own == kind]
        found.update(zip(rows, call([pairs[row] for row in rows]), strict=True))
    return [found[row] for row in range(len(pairs))]


def _unpadded(
    call: Callable[[Sequence[Prepared]], list[Explained]], pairs: Sequence[Prepared]
) -> list[Explained]:
    """Call with the pairs as they are by themselves, those of equal shapes at once."""
    bare = [replace(pair, padded=pair.inputs) for pair in pairs]
    return _by_kind([pair.shapes for pair in bare], call, bare)


def _check_tokens(side: Side) -> None:
    tokens, valid = side.tokens(), side.grid().valid
    if tokens.shape[:2] != valid.shape:
        raise EncoderError(
            f"the {side.encoder.modality} encoder ({type(side.encoder).__name__}) gives "
            f"{tokens.shape[1]} tokens at layer {side.layer}, and its grid places "
            f"{valid.shape[1]}; accepted: equal numbers"
        )


def _wanted(sides: Sequence[str] | None, both: Sequence[str]) -> tuple[str, ...]:
    """The sides to explain.

    Raises:
        OptionError: one that is not there.
    """
    for side in sides or ():
        if side not in both:
            raise OptionError(f"no side is named {side!r}; the pair has {' and '.join(both)}")
    return tuple(both if sides is None else sides)


def _passes(
    encoders: Mapping[str, Encoder],
    pairs: Sequence[Prepared],
    layers: Mapping[str, int],
    keep: PassKeep | None,
    pace: Pace,
) -> dict[str, Passes]:
    """What is known of each side's inputs, one beside the other."""
    found = {}
    for side, encoder in encoders.items():
        inputs = EncoderInputs.cat([pair.given[side] for pair in pairs])
        together = pace.together(encoder.device, len(pairs))
        found[side] = Passes(encoder, inputs, layers[side], keep, together=together)
    return found


def _reads_padding(passes: Mapping[str, Passes], pairs: Sequence[Prepared]) -> bool:
    """Whether padding reaches the embedding, as by a part that others put into a model of ours.

    That is tried on one input where there is such a part, and on each of an encoder of others.

    Raises:
        EncoderError: it does in an encoder of others, which says that it does not.
    """
    for side, known in passes.items():
        encoder, own = known.encoder, is_own(known.encoder)
        rows = [n for n, pair in enumerate(pairs) if pair.given[side] is not pair.inputs[side]]
        if own:
            rows = rows[:1] if rows and has_parts_of_others(encoder.module) else []
        for row in rows:
            found = known.embeddings()[row : row + 1]
            with torch.no_grad():
                alone = encoder.embed(pairs[row].inputs[side])
            if agrees(found, alone, known.tokens(known.layer).dtype):
                continue
            if own:
                return True
            raise EncoderError(
                f"the {encoder.modality} encoder ({type(encoder).__name__}): padded changes the "
                "embedding of an input; accepted: further tokens that the embedding does not read. "
                "Run mmattrib.testing.check_encoder on this encoder"
            )
    return False


def _sides(
    passes: Mapping[str, Passes],
    pairs: Sequence[Prepared],
    guides: Mapping[str, Guide],
    keys: Sequence[str],
    pace: Pace,
) -> dict[str, Side]:
    """Each side of a batch of pairs, guided by the other."""
    found = {}
    for side, known in passes.items():
        own = [f"{key}:{side_key(p.raw, side)}" for key, p in zip(keys, pairs, strict=True)]
        found[side] = Side(
            encoder=known.encoder,
            inputs=known.inputs,
            layer=known.layer,
            guide=guides[_other(tuple(passes), side)],
            keys=tuple(own),
            passes=known,
            pace=pace,
        )
    return found


def _guides(passes: Mapping[str, Passes]) -> dict[str, Guide]:
    """Each side as the guide of the other."""
    guides = {side: guide_from(known) for side, known in passes.items()}
    _check_joint({side: known.encoder for side, known in passes.items()}, guides)
    return guides


def _check_joint(encoders: Mapping[str, Encoder], guides: Mapping[str, Guide]) -> None:
    sizes = {side: guide.embedding.shape[-1] for side, guide in guides.items()}
    if len(set(sizes.values())) > 1:
        told = " and ".join(
            f"{encoders[side].modality} ({type(encoders[side]).__name__}) into {size}"
            for side, size in sizes.items()
        )
        raise EncoderError(
            f"the encoders embed into spaces of different sizes: {told} dimensions; a backbone's "
            "encoders share one joint space"
        )


def _other(both: Sequence[str], side: str) -> str:
    return both[1] if side == both[0] else both[0]


def _layers(encoders: Mapping[str, Encoder], method: Method, layer: Layers) -> dict[str, int]:
    """The layer of each side.

    Raises:
        OptionError: a layer that an encoder lacks, or a side that the pair lacks.
    """
    chosen: dict[str, int | None] = dict.fromkeys(encoders)
    if isinstance(layer, Mapping):
        by_modality = {side: encoder.modality for side, encoder in encoders.items()}
        for name in layer:
            if name not in chosen and name not in by_modality.values():
                raise OptionError(
                    f"layer= names {brief(name)}, which is not in the pair; accepted: "
                    f"{' and '.join(encoders)}"
                )
        for side, modality in by_modality.items():
            chosen[side] = layer.get(side, layer.get(modality))
    elif layer is not None:
        chosen = dict.fromkeys(encoders, layer)
    return {
        side: encoder.check_layer(
            method.default_layer(encoder) if chosen[side] is None else chosen[side]  # type: ignore[arg-type]
        )
        for side, encoder in encoders.items()
    }


def _attributions(
    side: Side, scores: SideScores, alone: Sequence[EncoderInputs]
) -> list[Attribution]:
    """Token scores with where the tokens lie on the inputs.

    Args:
        side: the batch as it went through the tower.
        scores: of it.
        alone: each input as it is by itself; a map has nothing of what was padded behind it.
    """
    encoder, inputs = side.encoder, side.inputs
    raw = scores.scores.detach().to("cpu", torch.float32)
    found = []
    for row, one in enumerate(alone):
        grid = encoder.grid(one, side.layer)
        own = raw[row, : grid.valid.shape[1]].masked_fill(~grid.valid[0], float("nan"))
        attribution = Attribution(
            modality=encoder.modality,
            unit=scores.unit,
            token_scores=own.numpy().copy(),
            content=grid.content[0].numpy().copy(),
            placement=grid.placement(0),
            layer=side.layer,
            diagnostics=_with_notes(scores.diagnostics[row], encoder.notes(inputs.raw[row])),
        )
        attribution = with_unseen_warning(attribution)
        for message in attribution.diagnostics.get("warnings", ()):
            name = inputs.raw[row].name
            warnings.warn(f"{encoder.modality} {name!r}: {message}", TrustWarning, stacklevel=4)
        found.append(attribution)
    return found


def _with_notes(diagnostics: dict[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    return {**diagnostics, "warnings": [*diagnostics.get("warnings", ()), *notes]}
