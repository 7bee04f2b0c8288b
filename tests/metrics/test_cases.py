"""Metrics on cases: what each needs, what is left out, and what is asked for only once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from render_examples import audio_side, image_side, pair, text_side

import mmattrib as mm
from mmattrib.datasets.scenes import ScenesDataset
from mmattrib.errors import InputError, OptionError
from mmattrib.evaluation import Results
from mmattrib.metrics import MODEL, REEXPLAIN, TRUTH, Case, Metric
from mmattrib.metrics.faithfulness import ConfidenceDrop, Cosine, kept_cosine, reduced_input
from mmattrib.metrics.localisation import Auc, Energy
from mmattrib.metrics.sensitivity import rank_correlation, ranks
from mmattrib.plugins import default_plugins
from mmattrib.samples import MaskRegion, Part, Sample, Truth
from mmattrib.types import RawText


def case_of(explanation: mm.Explanation, truth: Truth | None, side: str = "image") -> Case:
    guide = next(other for other in explanation if other != side)
    known = {} if truth is None else {side: truth}
    return Case(Sample("s", dict(explanation.inputs), known), explanation, side, guide)


def picture(mask: np.ndarray) -> Truth:
    return Truth((Part(MaskRegion(mask)),))


def test_without_a_truth_a_metric_that_needs_one_is_nan() -> None:
    ex = pair(image_side(), text_side())
    assert np.isnan(Auc()(case_of(ex, None)))
    nothing = picture(np.zeros(ex["image"].shape, bool))
    assert np.isnan(Auc()(case_of(ex, nothing))), "with nothing shared there is nothing to find"
    assert Cosine()(case_of(ex, None)) == ex.similarity


def test_a_truth_of_another_shape_is_refused() -> None:
    ex = pair(image_side(), text_side())
    with pytest.raises(InputError, match="must agree"):
        Auc()(case_of(ex, picture(np.ones((2, 3), bool))))


def test_a_metric_that_asks_the_model_says_so_where_there_is_none() -> None:
    with pytest.raises(OptionError, match="without its model"):
        ConfidenceDrop()(case_of(pair(image_side(), text_side()), None))


def test_what_was_not_seen_counts_neither_for_nor_against() -> None:
    """A wide picture on a model that crops: the truth outside of the crop is not to be found."""
    from mmattrib.models.grids import Box, ImageGrid, Layout

    grid = ImageGrid(Layout("h w", "h w", {"h": 4, "w": 4}), [(8, 24)], [Box(0, 8, 8, 16)])
    scores = np.random.default_rng(0).random(16).astype(np.float32)
    attribution = mm.Attribution(
        "image", "bits", scores, np.ones(16, bool), grid.placement(0), layer=0
    )
    ex = mm.Explanation({"image": attribution}, {}, 0.5, {})

    def score(mask: np.ndarray) -> float:
        sample = Sample("s", {}, {"image": picture(mask)})
        return Energy()(Case(sample, ex, "image", "text"))

    inside = np.zeros((8, 24), bool)
    inside[2:4, 9:12] = True
    both = inside.copy()
    both[:, :8] = True
    outside = both & ~inside
    assert score(both) == score(inside)
    assert np.isnan(score(outside))
    assert 0 < score(inside) < 1


def test_what_a_case_keeps_is_made_once() -> None:
    case, calls = case_of(pair(image_side(), text_side()), None), []

    def make() -> int:
        calls.append(1)
        return 3

    assert [case.keep("a", make), case.keep("a", make)] == [3, 3]
    assert len(calls) == 1


def test_an_input_is_reduced_by_its_map() -> None:
    ex = pair(image_side(), text_side())
    reduced = reduced_input(ex.inputs["text"], ex["text"])
    assert isinstance(reduced, RawText)
    scores = ex["text"].scores
    kept = [w.text for w, s in zip(ex["text"].words, scores, strict=True) if s > np.median(scores)]
    for word in kept:
        assert word in reduced.text
    assert reduced.text.count("#") == len(scores) - len(kept)
    sound = pair(audio_side(), text_side())
    assert reduced_input(sound.inputs["audio"], sound["audio"]).samples.shape == sound.inputs[
        "audio"
    ].samples.shape  # fmt: skip


def measured(metrics: Any, methods: Any, n: int = 2) -> Results:
    tiny = mm.load_backbone("tiny")
    data = ScenesDataset(n, seed=7001)
    return mm.evaluate(
        tiny, data, methods=methods, metrics=metrics, pairs=[("image", "text")], progress=False
    )


def test_each_guide_gets_a_map_of_its_own(untrained: mm.Backbone) -> None:
    """Guides that are made and dropped may stand at one address, one after the other."""

    class Asking(Metric):
        name = "asking"
        summary = "whether maps under other guides are those of attribute()"
        needs = frozenset({REEXPLAIN})

        def score(self, case: Case) -> float:
            return float(
                all(
                    np.array_equal(
                        case.reexplain(guide=f"a dog {word}").token_scores,
                        mm.attribute(untrained, image=case.raw, text=f"a dog {word}", method="nib")[
                            "image"
                        ].token_scores,
                    )
                    for word in ("and a piano", "in the rain", "on a table", "at night", "near")
                )
            )

    data = ScenesDataset(1, seed=7001)
    found = mm.evaluate(
        untrained, data, methods=["nib"], metrics=[Asking()], pairs=[("image", "text")],
        progress=False,
    )  # fmt: skip
    assert found.values("nib", "image|text", "asking") == [1.0]


def test_probes_tell_the_seed_and_the_guide_apart() -> None:
    found = measured(["prompt_sensitivity", "stability"], ["nib", "random"])
    for direction in found.directions:
        values = found.values("nib", direction, "stability")
        assert values == pytest.approx(1.0), "nib draws nothing"
        assert (found.values("nib", direction, "prompt_sensitivity") > 0.05).all()
    assert (np.abs(found.values("random", "image|text", "stability")) < 0.5).all()


def test_a_map_that_never_changes_is_stable_and_deaf() -> None:
    from mmattrib.methods import Method, Side, SideScores

    class Fixed(Method):
        name = "fixed"
        unit = "bits"
        summary = "the same scores for every input and guide"
        flat = False

        def explain(self, side: Side) -> SideScores:
            import torch

            valid = side.grid().valid
            row = torch.linspace(-1, 1, valid.shape[1]) * (0 if self.flat else 1)
            return self.scored(row.expand(valid.shape))

    class Flat(Fixed):
        name = "flat"
        flat = True

    probes = ["prompt_sensitivity", "stability", "confidence_drop", "capacity_bits"]
    found = measured(probes, [Fixed(), Flat()])
    for direction in found.directions:
        one = {m: found.values("fixed", direction, m) for m in probes}
        assert one["prompt_sensitivity"] == pytest.approx(0.0, abs=1e-6)
        assert one["stability"] == pytest.approx(1.0)
        assert (one["capacity_bits"] > 0).all()
        flat = {m: found.values("flat", direction, m) for m in probes}
        for name in ("prompt_sensitivity", "stability", "confidence_drop"):
            assert np.isnan(flat[name]).all(), "a constant map has no ranks, and nothing to keep"
        assert (flat["capacity_bits"] == 0).all()


def test_ranks_and_their_correlation() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    rng = np.random.default_rng(0)
    a = rng.normal(size=30)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1.0)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
    assert np.isnan(rank_correlation(a, np.zeros(30)))


def test_a_case_asks_only_once_for_what_two_metrics_share() -> None:
    class Counting(Case):
        asked = 0

        def cosines(self, raws: Any) -> Any:
            Counting.asked += 1
            return np.array([0.1], dtype=np.float32)

    ex = pair(image_side(), text_side())
    case = Counting(Sample("s", dict(ex.inputs)), ex, "image", "text")
    assert kept_cosine(case) == kept_cosine(case) == pytest.approx(0.1)
    assert Counting.asked == 1


def test_needs_are_declared() -> None:
    needs = {
        n: default_plugins().registry.create("metric", n).needs
        for n in default_plugins().registry.names("metric")
    }
    assert needs["auc"] == {TRUTH}
    assert needs["confidence_drop"] == {MODEL}
    assert needs["stability"] == {REEXPLAIN}
