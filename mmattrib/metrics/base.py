"""The base class of metrics: one number for one case, and what it needs to know.

A case is a sample with the attribution of one of its inputs. A metric that compares the map with a
known truth reads nothing else; one that asks the model, or wants the map explained again, does so
through the case, which fetches what it needs when it is first asked for and keeps it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from mmattrib.errors import InputError, MetricError, OptionError, check_whole
from mmattrib.lazy import np, npt
from mmattrib.perturb import keep_many
from mmattrib.plugins.strangers import described, hold_to, shown
from mmattrib.samples import Sample, TruthMasks
from mmattrib.types import Attribution, BoolArray, Explanation, FloatArray, RawInput

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.models.backbone import Backbone
    from mmattrib.models.encoder import Encoder, EncoderInputs

TRUTH, MODEL, REEXPLAIN = "truth", "model", "re-explaining"
NEEDS = (TRUTH, MODEL, REEXPLAIN)
"""What a metric may need: a known truth; the model; maps made anew (the most costly)."""

BATCH = 32
"""Inputs that go through a tower together where a metric asks for many."""

_T = TypeVar("_T")


class CaseModel(Protocol):
    """The model behind a case, as an evaluation gives it."""

    @property
    def backbone(self) -> Backbone:
        """The model that made the map."""

    @property
    def seed(self) -> int | None:
        """Of the method's noise; None where it draws none."""

    @property
    def inputs(self) -> EncoderInputs:
        """The preprocessed explained input, as it went through the tower; a batch of one."""

    def guide_embedding(self, guide: Any | None = None) -> Tensor:
        """``(D,)``, of the other input of the pair, or of another guide in its place."""

    def reexplain(
        self, *, seed: int | None, guide: Any | None, backbone: Backbone | None
    ) -> Attribution:
        """The explained side's attribution with one thing changed."""

    def unrelated(self) -> Any | None:
        """A guide that has nothing to do with the explained input, or None."""


class Case:
    """What a metric scores: a sample, one side's attribution, and the model on demand.

    Attributes:
        sample: the pair of inputs, with what is known of it.
        explanation: of the pair.
        side: which side's map is scored.
        guide: the other side.
    """

    def __init__(
        self,
        sample: Sample,
        explanation: Explanation,
        side: str,
        guide: str,
        model: CaseModel | None = None,
    ) -> None:
        """Put a case together; without ``model`` it can be scored against a truth alone."""
        self.sample, self.explanation = sample, explanation
        self.side, self.guide = side, guide
        self._model = model
        self._kept: dict[Hashable, Any] = {}

    @property
    def attribution(self) -> Attribution:
        """The map that is scored."""
        return self.explanation[self.side]

    @cached_property
    def scores(self) -> FloatArray:
        """The map where the model saw the input: on its own axes, or flat if a part was unseen."""
        map_, seen = self.attribution.scores, self.attribution.seen
        return map_ if seen.all() else map_[seen]

    @property
    def raw(self) -> RawInput:
        """The explained input, decoded."""
        return self.explanation.inputs[self.side]

    @property
    def clean(self) -> float:
        """Cosine of the pair."""
        return self.explanation.similarity

    @cached_property
    def truth(self) -> TruthMasks | None:
        """The truth at the places of :attr:`scores`; None where there is nothing to find.

        That is where nothing is known, nothing is shared, or the model saw nothing of it: what a
        crop cut off cannot be in any map, and counts neither for nor against one.
        """
        known = self.sample.truth.get(self.side)
        if known is None:
            return None
        laid, seen = known.on(self.attribution), self.attribution.seen
        if not seen.all():
            laid = laid.within(seen)
        return laid if laid.mask.any() else None

    @property
    def model(self) -> CaseModel:
        """The model behind the case.

        Raises:
            OptionError: the case was made without one.
        """
        if self._model is None:
            raise OptionError(
                "this case was made without its model; mm.evaluate gives cases theirs, and "
                "Case(..., model=...) takes one"
            )
        return self._model

    @property
    def seed(self) -> int:
        """Seed of the method's noise, 0 where it draws none."""
        return self.model.seed or 0

    @property
    def encoder(self) -> Encoder:
        """Of the explained side."""
        return self.encoder_of(self.side)

    def encoder_of(self, side: str) -> Encoder:
        """Of the explained side or of the guide, with its contract checked at each call."""
        from mmattrib.models.guard import guarded

        return guarded(self.model.backbone[self.modality_of(side)])

    def modality_of(self, side: str) -> str:
        """Under which name the backbone has the encoder of a side."""
        return side if side in self.model.backbone else self.explanation[side].modality

    @property
    def content(self) -> BoolArray:
        """``(N,)`` which tokens of the explained layer stand for a part of the input."""
        return self.attribution.content

    def content_scores(self, attribution: Attribution | None = None) -> FloatArray:
        """``(n,)`` token scores of the content tokens, of this map or another of this input."""
        return (attribution or self.attribution).token_scores[self.content]

    def embeddings(
        self, raws: Iterable[RawInput], *, side: str | None = None, batch_size: int = BATCH
    ) -> Tensor:
        """``(n, D)`` float32 embeddings of inputs of the explained side, or of another, on the CPU.

        Each goes through the encoder's own preprocessing by itself, so that nothing is padded to
        fit a neighbour; those that follow each other with equal shapes go through the tower
        together. A sum rounds differently in a batch of another size: in float32 an embedding
        differs by less than 1e-5 of length 1 from the one that it has alone.

        Args:
            raws: decoded inputs; made as they are asked for, a batch at a time.
            side: whose encoder; the explained side's if None.
            batch_size: how many go through the tower together at most; fewer where memory does not
                suffice.

        Raises:
            InputError: one of them cannot be embedded.
            OptionError: a batch size below 1.
        """
        import torch

        from mmattrib.engine.together import Together
        from mmattrib.models.encoder import EncoderInputs

        check_whole(batch_size, "batch_size", 1)
        encoder = self.encoder_of(self.side if side is None else side)
        found: list[Tensor] = []
        waiting: list[EncoderInputs] = []
        together = Together(batch_size)

        def some(rows: Tensor, _most: int) -> Tensor:
            inputs = EncoderInputs.cat([waiting[row] for row in rows.tolist()])
            return encoder.embed(inputs).float().cpu()

        def embed() -> None:
            if waiting:
                found.extend(together.over(len(waiting), some, kind=waiting[0].shapes))
                waiting.clear()

        with torch.no_grad(), encoder.frozen():
            for raw in raws:
                one = encoder.preprocess([raw])
                if waiting and (len(waiting) >= batch_size or one.shapes != waiting[0].shapes):
                    embed()
                waiting.append(one)
            embed()
        if not found:
            size = len(self.model.guide_embedding())
            return torch.empty((0, size), dtype=torch.float32, device="cpu")
        return torch.cat(found)

    def cosines(self, raws: Iterable[RawInput], *, batch_size: int = BATCH) -> FloatArray:
        """``(n,)`` cosines with the guide of other inputs in the explained one's place.

        Args:
            raws: decoded inputs, as for :meth:`embeddings`.
            batch_size: as for :meth:`embeddings`; it changes a cosine by less than 1e-5.
        """
        target = self.model.guide_embedding().float().cpu()
        found = self.embeddings(raws, batch_size=batch_size)
        cosines: FloatArray = (found * target).sum(-1).numpy().astype(np.float32)
        return cosines

    def kept_cosines(
        self,
        weights: Iterable[npt.NDArray[Any]],
        *,
        fill: str | None = None,
        seed: int = 0,
        batch_size: int = BATCH,
    ) -> FloatArray:
        """``(R,)`` cosines with the guide of the explained input, kept by many weights.

        Args:
            weights: R arrays in the shape of the map, as for :func:`mmattrib.perturb.keep`; made as
                they are asked for, so that they need not fit in memory together.
            fill: what stands in for the rest; the first of the modality if None.
            seed: of fills that draw at random.
            batch_size: as for :meth:`embeddings`.
        """
        attribution = self.attribution
        kept = keep_many(
            self.raw,
            iter(weights),
            axes=attribution.axes,
            words=attribution.words,
            fill=fill,
            seed=seed,
        )
        return self.cosines(kept, batch_size=batch_size)

    def reexplain(
        self,
        *,
        seed: int | None = None,
        guide: Any | None = None,
        backbone: Backbone | None = None,
    ) -> Attribution:
        """The attribution of the same input with one thing changed.

        Kept for other metrics where the guide is the pair's own or :attr:`unrelated`.

        Args:
            seed: of the method's noise; the case's own if None.
            guide: another guide, as :func:`mmattrib.attribute` takes it.
            backbone: another model, such as one with other weights.
        """
        if backbone is not None or (guide is not None and guide is not self.unrelated):
            return self.model.reexplain(seed=seed, guide=guide, backbone=backbone)
        key = ("reexplain", seed, guide is not None)
        return self.keep(key, lambda: self.model.reexplain(seed=seed, guide=guide, backbone=None))

    @cached_property
    def unrelated(self) -> Any | None:
        """A guide that has nothing to do with the explained input, or None where none is known."""
        return self.model.unrelated()

    def keep(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What ``make`` gives, made once for every metric that asks under the same key."""
        if key not in self._kept:
            self._kept[key] = make()
        found: _T = self._kept[key]
        return found


class Metric(ABC):
    """One number for one case. A subclass gives ``name``, ``summary`` and :meth:`score`.

    Attributes:
        name: as registered; unique among the metrics of an evaluation.
        summary: one line: what it measures and in which range.
        needs: of :data:`NEEDS`, what it asks the case for in addition to the map.
        higher_is_better: False where small values are good, None where neither is.
        percent: whether tables show it times 100.
        by_default: whether ``mm.evaluate`` takes it where no metric is named; of those alone that
            need a truth and nothing else.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({TRUTH})
    higher_is_better: ClassVar[bool | None] = True
    percent: ClassVar[bool] = True
    by_default: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Hold a class of others to the contract."""
        super().__init_subclass__(**kwargs)
        hold_to(cls, MetricError, "metric", {"score": _no_number, "describe": described})

    def __call__(self, case: Case) -> float:
        """Score one case; NaN where the metric does not apply, as without a truth that it needs.

        Raises:
            InputError: a score of the map is not finite.
            MetricError: a metric of others raises something else, or gives no number.
        """
        if not np.isfinite(case.content_scores()).all():
            raise InputError(f"metric {self.name!r} was given a map that is not finite")
        if TRUTH in self.needs and case.truth is None:
            return float("nan")
        return float(self.score(case))

    @abstractmethod
    def score(self, case: Case) -> float:
        """The number; the case has a truth if the metric needs one."""

    def describe(self) -> dict[str, Any]:
        """Options and their values, for provenance; JSON values."""
        return {}


def _no_number(found: object) -> str | None:
    """What is wrong with what ``score`` gave."""
    try:
        if not isinstance(found, str | bytes):
            float(found)  # type: ignore[arg-type]
            return None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass
    return f"{shown(found)}; accepted: a number, NaN where the metric does not apply"


def check_metric(made: object) -> Metric:
    """A metric whose attributes are what an evaluation reads.

    Raises:
        OptionError: it is no metric.
        MetricError: an attribute is missing, or of a wrong type.
    """
    if not isinstance(made, Metric):
        kind = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
        raise OptionError(f"a metric is an instance of mmattrib.metrics.Metric, got {kind}")
    what, name, needs = f"metric {type(made).__name__}", getattr(made, "name", None), made.needs
    if not isinstance(name, str) or not name:
        raise MetricError(f"{what} has name = {shown(name)}; accepted: text")
    if not isinstance(needs, set | frozenset) or not needs <= set(NEEDS):
        accepted = f"a frozenset of {', '.join(map(repr, NEEDS))}"
        raise MetricError(f"{what} has needs = {shown(needs)}; accepted: {accepted}")
    return made


class CostlyMetric(Metric):
    """A metric that runs the model many times: the case keeps its number.

    A subclass gives ``name``, ``summary`` and :meth:`measure`.
    """

    def score(self, case: Case) -> float:
        key = (type(self).__qualname__, self.name, repr(self.describe()))
        return case.keep(key, lambda: self.measure(case))

    @abstractmethod
    def measure(self, case: Case) -> float:
        """The number, found anew."""
