"""Kernel SHAP: Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS
2017, section 4.1; the estimator is in :mod:`mmattrib.methods.shapley`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.lazy import np
from mmattrib.methods.base import SeededOptions, Side, option
from mmattrib.methods.masking import Floats, MaskedInput, MaskingMethod, MaskOptions, pair_random
from mmattrib.methods.shapley import coalitions, shapley_values
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from mmattrib.plugins.hookspecs import Register


@dataclass(frozen=True)
class KernelSHAPOptions(MaskOptions, SeededOptions):
    """Options of ``kernel-shap``; the fills and ``batch`` as in :class:`MaskOptions`.

    Attributes:
        samples: masked inputs, the empty and the whole one among them (captum's default: 25).
        cells: players along each axis of what the model saw of a picture or a recording. Of a
            caption each word is a player.
    """

    samples: int = option(512, least=3, most=100_000)
    cells: int = option(7, least=1, most=16)


class KernelSHAP(MaskingMethod):
    """Shapley values of the game whose players are the parts of an input.

    A coalition is worth the cosine with the guide of what is left when a fill stands in for all
    other parts. The values sum to the cosine of the whole input minus that of the fill alone, and
    so do the scores of the tokens, among which each part's value is shared. Up to
    log2(``samples``) players the values are exact.

    Diagnostics: ``clean_cosine``; ``empty_cosine``, of the fill alone; ``completeness_gap``, the
    sum of the map minus their difference (a recording kept whole differs from itself by the
    rounding of its spectrum's round trip); ``parts``, the players; ``exact``; ``fill``;
    ``model_rows``.
    """

    name = "kernel-shap"
    summary = "Kernel SHAP (NeurIPS 2017): Shapley values of an input's parts for the cosine"
    Options: ClassVar[type[Any]] = KernelSHAPOptions
    options: KernelSHAPOptions

    def explain_one(self, side: Side, row: int) -> tuple[Floats, dict[str, Any]]:
        options = self.options
        random = pair_random(options.seed, side.keys[row], "coalitions")
        masked = MaskedInput(side, row, options, int(random.integers(2**31)))
        parts = masked.parts(options.cells)
        players = int(np.prod(parts))
        chosen, weights = coalitions(players, options.samples - 2, random)
        ends = np.repeat([[False], [True]], players, axis=1)
        every = np.concatenate([ends, chosen])
        laid = (masked.lay(row.reshape(parts)) for row in every)
        worth = np.concatenate(list(masked.cosines(laid)))
        empty, full = float(worth[0]), float(worth[1])
        values = shapley_values(chosen, weights, worth[2:], empty, full)
        scores = masked.spread(values.reshape(parts))
        report = masked.report(
            players,
            empty_cosine=empty,
            completeness_gap=float(scores.sum() - (masked.clean - empty)),
            exact=len(chosen) == 2**players - 2,
        )
        if len(chosen) < min(players - 1, 2**players - 2):
            report["warnings"].append(
                f"{options.samples} masked inputs cannot tell {players} parts apart: give more "
                "samples, or fewer cells"
            )
        return scores, report


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``kernel-shap``."""
    KernelSHAP.register(register)
