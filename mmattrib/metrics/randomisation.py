"""Sanity: a map must change when the model's weights do.

Adebayo et al. 2018 ("Sanity checks for saliency maps"), the model parameter randomisation test. The
explained encoder is copied, and the weights of its blocks are drawn anew in the copy: from the last
block down, each on top of those before (cascading), or one block at a time (independent). The
number is Spearman's rank correlation of the map with the original, averaged over the stages: 1 for
a map that does not care what the model learned, around 0 for one that does. The user's model is
never touched.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mmattrib.errors import InputError, TrustWarning, check_whole
from mmattrib.lazy import np, npt
from mmattrib.metrics.base import REEXPLAIN, Case, CostlyMetric
from mmattrib.metrics.sensitivity import rank_correlation
from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from torch import Generator, nn

    from mmattrib.models.encoder import Encoder, EncoderInputs

MOST_STAGES = 10_000


def resemblance(original: npt.NDArray[Any], randomised: npt.NDArray[Any]) -> float:
    """Rank correlation with the original; 0 where only the other map is constant.

    A map that is constant under random weights has nothing left of the original. NaN where the
    original is constant: there was nothing to lose.
    """
    if np.ptp(original) == 0:
        return float("nan")
    return 0.0 if np.ptp(randomised) == 0 else rank_correlation(original, randomised)


def redraw(module: nn.Module, generator: Generator) -> None:
    """Draw every parameter of a module anew, in place: Gaussian, with its own mean and spread.

    The scale of each parameter stays, so that activations neither vanish nor overflow; what is
    constant, such as a norm that was never trained, stays as it is.
    """
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            values = parameter.detach().float().cpu()
            spread = float(values.std()) if values.numel() > 1 else 0.0
            if spread > 0:
                noise = torch.randn(
                    values.shape, generator=generator, dtype=torch.float32, device="cpu"
                )
                parameter.copy_(float(values.mean()) + spread * noise)


def randomised_copy(encoder: Encoder, inputs: EncoderInputs) -> Encoder:
    """A copy of an encoder whose blocks may be changed without changing the encoder.

    Args:
        encoder: one with ``blocks``.
        inputs: by which to see that the copy is one.

    Raises:
        InputError: it cannot be copied, or its copy runs parts of the original.
    """
    import torch

    from mmattrib.models.rounding import agrees

    who = f"the {encoder.modality} encoder ({type(encoder).__name__})"
    try:
        made = copy.deepcopy(encoder)
    except Exception as error:
        raise InputError(
            f"{who} cannot be copied ({type(error).__name__}: {error}), so its weights cannot be "
            "drawn anew without changing your model; give it a __deepcopy__"
        ) from error
    with torch.no_grad(), encoder.frozen(), made.frozen():
        known, same = encoder.embed(inputs), made.embed(inputs)
        with redrawn(blocks_of(made), torch.Generator().manual_seed(0)):
            other = made.embed(inputs)
    if not agrees(same, known, known.dtype) or torch.equal(other, known):
        raise InputError(
            f"a copy of {who} is none of its own: with other weights it embeds an input as the "
            "original does, or with the same weights otherwise. Its forward() must use its own "
            "modules, not those of another object"
        )
    return made


def blocks_of(encoder: Encoder) -> list[nn.Module]:
    """The blocks of an encoder from the first to the last; none where it has no list of them."""
    return list(getattr(encoder, "blocks", ()))


@contextmanager
def redrawn(blocks: Sequence[nn.Module], generator: Generator) -> Iterator[None]:
    """:func:`redraw` some blocks, and put their weights back on leaving."""
    kept = [copy.deepcopy(block.state_dict()) for block in blocks]
    for block in blocks:
        redraw(block, generator)
    try:
        yield
    finally:
        for block, state in zip(blocks, kept, strict=True):
            block.load_state_dict(state)


class _Randomisation(CostlyMetric):
    """What both share.

    Attributes:
        cascading: whether what was drawn stays while the next stage is.
    """

    needs = frozenset({REEXPLAIN})
    higher_is_better = False
    percent = False
    cascading: bool

    def __init__(self, stages: int | None = None, seed: int = 0) -> None:
        """Options.

        Args:
            stages: how many blocks, or groups of blocks, are drawn anew one after another; each
                block by itself if None.
            seed: of the weights.

        Raises:
            OptionError: a number out of range.
        """
        self.stages = None if stages is None else check_whole(stages, "stages", 1, MOST_STAGES)
        self.seed = check_whole(seed, "seed", 0, 2**63 - 1)

    def describe(self) -> dict[str, Any]:
        return {"stages": self.stages, "seed": self.seed}

    def measure(self, case: Case) -> float:
        from mmattrib.models.backbone import Backbone

        backbone = case.model.backbone
        name, own = case.modality_of(case.side), case.content_scores()
        if not blocks_of(backbone[name]) or np.ptp(own) == 0:
            return float("nan")
        made = randomised_copy(backbone[name], case.model.inputs)
        changed = Backbone({**backbone.encoders, name: made}, backbone.name)
        found = []
        with warnings.catch_warnings():
            # Adapters' quick ways behind a layer may hold parts of the original: the whole copy is
            # run then, which is right and says so.
            warnings.simplefilter("ignore", TrustWarning)
            for _ in self.draws(blocks_of(made)):
                other = case.reexplain(backbone=changed)
                found.append(resemblance(own, case.content_scores(other)))
        return float(np.mean(found))

    def draws(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Change blocks stage by stage, last one first; put back behind each stage, or not."""
        import torch

        count = len(blocks) if self.stages is None else min(self.stages, len(blocks))
        generator = torch.Generator().manual_seed(self.seed)
        for group in np.array_split(np.arange(len(blocks))[::-1], count):
            chosen = [blocks[number] for number in group]
            if self.cascading:
                for block in chosen:
                    redraw(block, generator)
                yield
            else:
                with redrawn(chosen, generator):
                    yield


class CascadingRandomisation(_Randomisation):
    """Mean rank correlation while blocks are drawn anew from the last one down.

    Adebayo et al. 2018, cascading randomisation. NaN for an encoder without a list of blocks, and
    for a constant map.
    """

    name = "randomisation_cascading"
    summary = (
        "rank correlation with the map of ever more random weights, last block first; 0 is sane"
    )
    cascading = True


class IndependentRandomisation(_Randomisation):
    """Mean rank correlation while one block at a time is drawn anew.

    Adebayo et al. 2018, independent randomisation. NaN as for :class:`CascadingRandomisation`.
    """

    name = "randomisation_independent"
    summary = "rank correlation with the map when one block at a time has random weights; 0 is sane"
    cascading = False


@hookimpl
def register_metrics(register: Register) -> None:
    """Register both tests by random weights."""
    for metric in (CascadingRandomisation, IndependentRandomisation):
        register(metric.name, metric, summary=metric.summary)
