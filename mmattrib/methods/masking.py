"""Parts of one input that masks keep or take away, and what the model makes of what they leave.

What RISE, Kernel SHAP and leave-one-out share. A picture's or a recording's parts are the cells of
a regular grid over what the model saw of it, on its map's own axes (pixels; bands x times); a
caption's are its words. Whatever a mask leaves goes through the encoder's own preprocessing and the
whole model, some masked inputs at a time, all of one pair: a map does not depend on other pairs.
Importing this module imports no torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mmattrib.errors import InputError, OptionError
from mmattrib.lazy import np, npt
from mmattrib.methods.base import Method, MethodOptions, Side, SideScores, option, require
from mmattrib.perturb import FILLS, keep, keep_many
from mmattrib.types import FloatArray, RawAudio, RawImage, RawInput, RawText

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.models.encoder import Encoder

Floats: TypeAlias = "npt.NDArray[np.float64]"
Bools: TypeAlias = "npt.NDArray[np.bool_]"

SOFT_FILLS: Final = tuple(name for name, fill in FILLS["image"].items() if fill.soft)
"""Fills of pictures that take weights between 0 and 1, such as RISE's."""

DROP: Final = "drop"
"""In place of a fill of pictures: patches are left out of the tower, and nothing stands in."""

HALF: Final = 0.5
"""Share of a patch from which on it is kept where others are dropped."""

OF_TOKENS: Final = ("embedding", "pad")
"""Fills of captions that :mod:`mmattrib.perturb.tokens` applies where tokens enter the blocks."""


@dataclass(frozen=True)
class MaskOptions(MethodOptions):
    """What methods that mask an input have in common.

    Attributes:
        image_fill: what stands in for a part of a picture: a name in ``mmattrib.perturb.FILLS``
            that takes soft weights; or ``"drop"``: nothing does, and the patches of which a mask
            keeps less than half are left out of the tower. That asks another question, what the
            model makes of fewer patches, and is quicker; towers that attend alone.
        audio_fill: likewise for a recording.
        text_fill: likewise for a word. Where ``"delete"`` leaves a caption that the encoder
            refuses, such as one without words, ``"blank"`` stands in; ``"embedding"`` and
            ``"pad"`` are those of ``mmattrib.perturb.tokens.TOKEN_FILLS``. Inputs of other
            modalities take the first fill of arrays.
        batch: masked inputs in one call of the model; fewer where memory does not suffice.
    """

    image_fill: str = option("mean", choices=(*SOFT_FILLS, DROP))
    audio_fill: str = option("silence", choices=tuple(FILLS["audio"]))
    text_fill: str = option("blank", choices=(*FILLS["text"], *OF_TOKENS))
    batch: int = option(32, least=1, most=4096, resource=True)

    def fill_of(self, raw: RawInput) -> str:
        """The fill for an input."""
        if isinstance(raw, RawImage):
            return self.image_fill
        if isinstance(raw, RawAudio):
            return self.audio_fill
        return self.text_fill if isinstance(raw, RawText) else next(iter(FILLS["array"]))


def pair_random(seed: int, key: str, purpose: str) -> np.random.Generator:
    """Random numbers that follow from these three alone, as those of :mod:`mmattrib.engine.noise`.

    Args:
        seed: the user's.
        key: of the pair and side, as in ``Side.keys``.
        purpose: keeps independent streams of one pair apart.
    """
    from mmattrib.engine.noise import pair_generator

    return np.random.default_rng(pair_generator(seed, key, purpose).initial_seed() % 2**64)


class MaskedInput:
    """One input of a side: its parts, and the cosines with its guide of what masks leave of it.

    Attributes:
        raw: the decoded input.
        shape: places of its map, on which masks are laid: ``(H, W)``, ``(mel, frames)``,
            ``(words,)``.
        fill: the name of what stands in.
        clean: cosine of the input itself, as it was preprocessed for this side.
        rows: how many masked inputs went through the model so far.
    """

    def __init__(self, side: Side, row: int, options: MaskOptions, fill_seed: int = 0) -> None:
        """Take one input of a side.

        Args:
            side: a batch of inputs with their guides.
            row: its number in it.
            options: fills and batch.
            fill_seed: of fills that draw at random.
        """
        from mmattrib.engine.together import Together

        self.inputs = side.inputs.select([row])
        self.raw = self.inputs.raw[0]
        self.grid = side.encoder.grid(self.inputs, side.layer)
        self.shape = self.grid.placement(0).shape
        self.fill, self.rows = options.fill_of(self.raw), 0
        if self.fill == DROP:
            self._check_droppable(side)
        self._encoder, self._batch, self._seed = side.encoder, options.batch, fill_seed
        self._together = Together(options.batch)
        self._goal = side.guide.embedding[row].float().cpu()
        self.clean = float(self._cosines(side.embeddings()[row : row + 1])[0])

    def _check_droppable(self, side: Side) -> None:
        from mmattrib.models.capabilities import ATTENTION

        require(side.encoder, frozenset({ATTENTION}), f"image_fill={DROP!r}")
        count = side.encoder.grid(self.inputs, -1).content.shape[1]
        if self.grid.content.shape[1] != count:
            raise OptionError(
                f"image_fill={DROP!r} leaves out tokens of the blocks, {count} here, and layer "
                f"{side.layer} has {self.grid.content.shape[1]}; explain a layer from -1 on"
            )

    @cached_property
    def extents(self) -> tuple[tuple[int, int], ...]:
        """Along each axis the first place that the model saw and the one after the last."""
        seen = self.grid.placement(0).seen(self.grid.content[0].numpy())
        found = []
        for axis in range(seen.ndim):
            others = tuple(each for each in range(seen.ndim) if each != axis)
            places = np.flatnonzero(seen.any(axis=others))
            found.append(
                (int(places[0]), int(places[-1]) + 1) if len(places) else (0, seen.shape[axis])
            )
        return tuple(found)

    @cached_property
    def words(self) -> npt.NDArray[np.intp] | None:
        """Of a caption, the numbers of the words that the model read; None for other inputs."""
        if not isinstance(self.raw, RawText):
            return None
        return np.flatnonzero(self.grid.placement(0).seen(self.grid.content[0].numpy()))

    def parts(self, cells: int) -> tuple[int, ...]:
        """Number of parts along each axis: the words of a caption, or at most ``cells``."""
        if self.words is not None:
            return (len(self.words),)
        return tuple(min(cells, stop - start) for start, stop in self.extents)

    def lay(self, kept: npt.NDArray[Any], rest: float = 1.0) -> FloatArray:
        """Weights of the parts, laid on the input's places: each place takes its part's.

        Cells at the rim reach to the end of the input, beyond what the model saw.

        Args:
            kept: in the shape of :meth:`parts`.
            rest: of words that the model did not read.
        """
        if self.words is not None:
            laid = np.full(self.shape, rest, dtype=np.float32)
            laid[self.words] = kept
            return laid
        index = [
            _cell_of_place(length, extent, count)
            for length, extent, count in zip(self.shape, self.extents, kept.shape, strict=True)
        ]
        found: FloatArray = np.asarray(kept, dtype=np.float32)[np.ix_(*index)]
        return found

    def on_tokens(self, laid: FloatArray) -> Floats:
        """``(N,)``: the mean of a laid mask over each token's own places, 0 for other tokens."""
        found: Floats = self.grid.to_tokens([laid])[0].double().numpy()
        return found

    def kept_by(self, laid: FloatArray) -> Floats:
        """``(N,)``: how much of each token a laid mask keeps, as the model is shown it."""
        shares = self.on_tokens(laid)
        return (shares >= HALF).astype(np.float64) if self.fill == DROP else shares

    def spread(self, values: Floats) -> Floats:
        """``(N,)``: each part's value shared among the tokens that lie on it; their sum is kept.

        Args:
            values: one per part, in the shape of :meth:`parts`.
        """
        scores = np.zeros(self.grid.content.shape[1])
        one = np.zeros(values.shape)
        for place, value in np.ndenumerate(values):
            one[place] = 1.0
            shares = self.on_tokens(self.lay(one, rest=0.0))
            one[place] = 0.0
            if shares.sum() > 0:
                scores += value * shares / shares.sum()
        return scores

    @cached_property
    def share_of_word(self) -> Floats:
        """``(N,)``: 1 over the number of tokens of a token's word; 1 where there are no words."""
        content = self.grid.content[0].numpy()
        if self.words is None:
            return np.ones(len(content))
        counts = self.grid.placement(0).lay(np.ones(len(content), np.float32), content)
        found: Floats = 1.0 / np.maximum(self.on_tokens(counts), 1.0)
        return found

    def cosines(self, laid: Iterable[FloatArray]) -> Iterator[Floats]:
        """Cosines with the guide of what masks leave, a batch at a time.

        Masks are taken from ``laid`` as they are needed, at most ``batch`` ahead.

        Args:
            laid: weights on the input's places, as :meth:`lay` gives them.
        """
        import torch

        made = self._embedded(iter(laid))
        while True:
            with torch.no_grad():  # not across the yield: what is done between is the caller's
                embeddings = next(made, None)
                if embeddings is None:
                    return
                found = self._cosines(embeddings)
            self.rows += len(found)
            yield found

    def cosine(self, kept: npt.NDArray[Any]) -> float:
        """The cosine of what one mask over the parts leaves."""
        return float(next(self.cosines([self.lay(kept)]))[0])

    def report(self, parts: int, **more: Any) -> dict[str, Any]:
        """Diagnostics that all these methods give, and some more."""
        return {
            "clean_cosine": self.clean,
            "parts": parts,
            "fill": self.fill,
            "model_rows": self.rows,
            "warnings": [],
            **more,
        }

    def _embedded(self, laid: Iterator[FloatArray]) -> Iterator[Tensor]:
        import torch

        encoder, batch = self._encoder, self._batch
        if self.fill == DROP:
            from mmattrib.perturb.tokens import embed_without

            while masks := list(islice(laid, batch)):
                stays = torch.from_numpy(np.stack([self.kept_by(row) for row in masks]) > 0)
                yield embed_without(encoder, self.inputs, stays)
            return
        if self.fill in OF_TOKENS:
            from mmattrib.perturb.tokens import keep_tokens

            fill: Any = self.fill
            while rows := list(islice(laid, batch)):
                yield keep_tokens(encoder, self.inputs.select([0] * len(rows)), rows, fill=fill)
            return
        kept = self._kept(laid)
        while raws := list(islice(kept, batch)):
            some = partial(_embed_some, encoder, raws)
            yield torch.cat(list(self._together.over(len(raws), some)))

    def _kept(self, laid: Iterator[FloatArray]) -> Iterator[RawInput]:
        words = self.grid.words(0)
        if self.fill != "delete":
            axes = self.grid.axes(0)
            yield from keep_many(
                self.raw, laid, axes=axes, words=words, fill=self.fill, seed=self._seed
            )
            return
        for weights in laid:
            raw = keep(self.raw, weights, words=words, fill="delete")
            try:
                self._encoder.preprocess([raw])
            except InputError:  # no word is left, or none that the encoder knows
                raw = keep(self.raw, weights, words=words, fill="blank")
            yield raw

    def _cosines(self, embeddings: Tensor) -> Floats:
        from mmattrib.engine.objective import fit

        found: Floats = (
            fit(embeddings.float().cpu()[None], self._goal[None, None])[0].double().numpy()
        )
        return found


def _embed_some(encoder: Encoder, raws: list[RawInput], some: Tensor, _rows: int) -> Tensor:
    return encoder.embed(encoder.preprocess([raws[row] for row in some.tolist()]))


class MaskingMethod(Method):
    """A method that masks one input after the other: :meth:`explain_one` says how."""

    unit = "cosine"
    options: MaskOptions

    def explain(self, side: Side) -> SideScores:
        import torch

        found = [self.explain_one(side, row) for row in range(len(side))]
        scores = np.stack([each for each, _ in found]).astype(np.float32)
        return self.scored(torch.from_numpy(scores), [report for _, report in found])

    @abstractmethod
    def explain_one(self, side: Side, row: int) -> tuple[Floats, dict[str, Any]]:
        """Scores ``(N,)`` and diagnostics of input ``row``."""


def _cell_of_place(length: int, extent: tuple[int, int], count: int) -> npt.NDArray[np.intp]:
    """``(length,)``: which of ``count`` equal cells between two places each place lies in."""
    start, stop = extent
    at = (np.arange(length) + 0.5 - start) * (count / max(1, stop - start))
    found: npt.NDArray[np.intp] = np.clip(np.floor(at), 0, count - 1).astype(np.intp)
    return found
