"""RISE: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.lazy import np
from mmattrib.methods.base import SeededOptions, Side, option
from mmattrib.methods.masking import Floats, MaskedInput, MaskingMethod, MaskOptions, pair_random
from mmattrib.perturb.weights import between
from mmattrib.plugins.hookspecs import hookimpl
from mmattrib.types import FloatArray

if TYPE_CHECKING:
    from mmattrib.plugins.hookspecs import Register


@dataclass(frozen=True)
class RISEOptions(MaskOptions, SeededOptions):
    """Options of ``rise``; the fills and ``batch`` as in :class:`MaskOptions`.

    Attributes:
        samples: masks (the paper: 4,000 for VGG16, 8,000 for ResNet50).
        cells: s, cells of the small random grid along each axis of what the model saw.
        keep: p, probability that a cell or a word is kept.
        centred: take the mean cosine of all masked inputs off each cosine before it is averaged.
            In expectation the map is then eq. (6) minus that mean: 0 at places that change nothing.
            False for eq. (6) as written.
    """

    samples: int = option(512, least=1, most=100_000)
    cells: int = option(7, least=1, most=64)
    keep: float = option(0.5, least=0.01, most=0.99)
    centred: bool = option(True)


class RISE(MaskingMethod):
    """The mean cosine of randomly masked inputs, weighted by how much of a place they kept.

    S(λ) = 1 / (p N) Σ_i f(I ⊙ M_i) M_i(λ), eq. (6), f the cosine with the guide. Masks as in
    section 3.2: s x s cells, each kept with probability p, enlarged bilinearly to (s + 1) / s of
    what the model saw, and cropped at a random place. A token's score is the mean of S over its own
    places. What is not kept fades into the fill; the paper's is ``image_fill="black"``.

    Of a caption each word is kept or not, and a word's score is shared by its tokens. A caption
    with no more than ``samples`` sets of words goes through all of them, each weighted by its
    probability, and its map is the expectation itself.

    Diagnostics: ``clean_cosine``; ``empty_cosine``, of the fill alone; ``mean_cosine``, of the
    masked inputs; ``parts``; ``fill``; ``exact``, whether all sets of words were taken;
    ``model_rows``.
    """

    name = "rise"
    summary = "RISE (BMVC 2018): mean cosine of randomly masked inputs, by what they keep"
    Options: ClassVar[type[Any]] = RISEOptions
    options: RISEOptions

    def explain_one(self, side: Side, row: int) -> tuple[Floats, dict[str, Any]]:
        options = self.options
        random = pair_random(options.seed, side.keys[row], "rise masks")
        masked = MaskedInput(side, row, options, int(random.integers(2**31)))
        parts = masked.parts(options.cells)
        exact = masked.words is not None and 2 ** parts[0] <= options.samples
        drawn = self._sets(masked) if exact else self._draws(masked, random)

        taken: list[tuple[float, Floats]] = []

        def masks() -> Iterator[FloatArray]:
            for probability, laid in drawn:
                taken.append((probability, masked.kept_by(laid)))
                yield laid

        total, mean = np.zeros(masked.grid.content.shape[1]), 0.0
        kept = np.zeros_like(total)
        for cosines in masked.cosines(masks()):
            weights = np.array([probability for probability, _ in taken])
            shares = np.stack([share for _, share in taken])
            taken.clear()
            total += (weights * cosines) @ shares
            kept += weights @ shares
            mean += float(weights @ cosines)
        scores = (total - mean * kept if options.centred else total) / options.keep
        empty = masked.cosine(np.zeros(parts))
        return scores * masked.share_of_word, masked.report(
            int(np.prod(parts)), empty_cosine=empty, mean_cosine=mean, exact=exact
        )

    def _sets(self, masked: MaskedInput) -> Iterator[tuple[float, FloatArray]]:
        """Every set of words with its probability."""
        p = self.options.keep
        (count,) = masked.parts(0)
        for kept in product((0.0, 1.0), repeat=count):
            words = int(sum(kept))
            yield p**words * (1 - p) ** (count - words), masked.lay(np.array(kept))

    def _draws(
        self, masked: MaskedInput, random: np.random.Generator
    ) -> Iterator[tuple[float, FloatArray]]:
        """Random masks, each with its share of all of them."""
        options = self.options
        parts = masked.parts(options.cells)
        for _ in range(options.samples):
            kept = (random.random(parts) < options.keep).astype(np.float64)
            if masked.words is None:
                shift = random.random(len(parts))
                yield 1 / options.samples, enlarged(kept, masked.shape, masked.extents, shift)
            else:
                yield 1 / options.samples, masked.lay(kept)


def enlarged(
    cells: Floats, shape: tuple[int, ...], extents: tuple[tuple[int, int], ...], shift: Floats
) -> FloatArray:
    """A small grid enlarged bilinearly, and shifted by up to a cell: section 3.2 of RISE.

    Args:
        cells: of any number of axes.
        shape: of the result.
        extents: along each axis, the first place that the grid must cover and the one after the
            last; the outermost values hold beyond.
        shift: along each axis in [0, 1), by which share of a cell the grid starts earlier.
    """
    laid = cells
    for axis, (length, (start, stop), by) in enumerate(zip(shape, extents, shift, strict=True)):
        count = cells.shape[axis]
        cell = (stop - start) / count
        centres = np.arange(count, dtype=np.float64) + 0.5
        known: Floats = start + centres * (cell * (count + 1) / count) - by * cell
        places = np.arange(length, dtype=np.float64) + 0.5
        front = np.moveaxis(laid, axis, 0)
        flat = between(front.reshape(count, -1), known, places)
        laid = np.moveaxis(flat.reshape(length, *front.shape[1:]), 0, axis)
    found: FloatArray = laid.astype(np.float32)
    return found


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``rise``."""
    RISE.register(register)
