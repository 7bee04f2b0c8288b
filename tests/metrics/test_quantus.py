"""Our cores agree with Quantus', where both ask the same question of the same small model.

Quantus takes classifiers in torch and batches of arrays, so that pairs of inputs do not fit its
seam; its formulas are compared on a classifier instead. It is no dependency: it brings OpenCV,
scikit-image and scikit-learn, and is under the LGPL. Install it (``pip install quantus``) to have
this test run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmattrib.metrics import auc, correlation, curve_area
from mmattrib.metrics.curves import ladder, orders, trapezoid

SIDE = 5


@pytest.fixture(scope="module")
def quantus() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus", reason="quantus is not installed")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A small classifier of 5 x 5 pictures of one channel, not linear."""
    generator = torch.Generator().manual_seed(1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 8), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return module.eval()


def picture_and_map() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    shape = (SIDE, SIDE)
    picture = random.random(shape).astype(np.float32) + 0.5
    picture[0, 0] = 0.0  # to Quantus "black" is the least value of the picture
    return picture, random.normal(size=shape)


def called(metric: Any, model: nn.Module | None, **given: Any) -> Any:
    x, a = picture_and_map()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metric(
            model=model, x_batch=x[None, None], y_batch=np.array([1]), a_batch=a[None, None],
            softmax=False, device="cpu", **given,
        )  # fmt: skip


def scores(model: nn.Module, masks: Iterable[np.ndarray]) -> np.ndarray:
    """The score of class 1 with all but the masks black."""
    x, _ = picture_and_map()
    rows = np.stack([x * mask for mask in masks])[:, None].astype(np.float32)
    with torch.no_grad():
        return model(torch.from_numpy(rows))[:, 1].numpy()


def test_the_deletion_curve_is_that_of_pixel_flipping(quantus: Any, model: nn.Module) -> None:
    metric = quantus.PixelFlipping(
        features_in_step=1, normalise=False, perturb_baseline="black", disable_warnings=True
    )
    (theirs,) = called(metric, model)
    _, a = picture_and_map()
    (order,) = orders(a, a.size)
    ours = scores(model, [~mask for mask in ladder(a.shape, order, a.size)])
    np.testing.assert_allclose(ours[1:], theirs, atol=1e-6)
    area = curve_area(a, lambda masks: scores(model, masks), steps=a.size, insert=False)
    assert area == pytest.approx(trapezoid([ours[0], *theirs]), abs=1e-6)


def test_faithfulness_correlation_is_theirs_on_the_same_subsets(
    quantus: Any, model: nn.Module
) -> None:
    drawn: list[np.ndarray] = []

    def blackened(arr: np.ndarray, indices: np.ndarray, **_: Any) -> np.ndarray:
        drawn.append(indices[0])
        made = arr.copy()
        made[:, indices[0]] = 0.0
        return made

    metric = quantus.FaithfulnessCorrelation(
        nr_runs=40, subset_size=6, normalise=False, abs=False, perturb_func=blackened,
        return_aggregate=False, disable_warnings=True,
    )  # fmt: skip
    x, a = picture_and_map()
    state = np.random.get_state()
    try:
        np.random.seed(3)
        (theirs,) = called(metric, model)
    finally:
        np.random.set_state(state)
    removed = np.zeros((40, x.size), dtype=bool)
    np.put_along_axis(removed, np.array(drawn), True, axis=1)
    (clean,) = scores(model, [np.ones_like(x, dtype=bool)])
    drops = clean - scores(model, (~removed).reshape(40, SIDE, SIDE))
    assert correlation(removed @ a.ravel(), drops) == pytest.approx(theirs, abs=1e-5)
    assert abs(theirs) < 0.999, "on a linear model any two implementations agree"


def test_the_area_under_the_roc_curve_is_theirs(quantus: Any) -> None:
    _, a = picture_and_map()
    a = np.round(a, 1)  # with ties
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[1:3, 1:4] = True
    metric = quantus.AUC(abs=False, normalise=False, return_aggregate=False, disable_warnings=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (theirs,) = metric(
            model=None, x_batch=np.ones((1, 1, SIDE, SIDE)), y_batch=np.array([1]),
            a_batch=a[None, None], s_batch=mask[None, None],
        )  # fmt: skip
    assert auc(a.astype(np.float32), mask) == pytest.approx(theirs)
