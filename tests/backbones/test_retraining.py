"""A copy of every registered backbone trains, and the model that was loaded stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_backbones import NAMES, Small

from mmattrib.evaluation.retraining import contrastive_loss
from mmattrib.models.parameters import TrainableCopy, logit_scale
from mmattrib.preparing import prepare

SCALED = ("clip", "cxr-repair", "open_clip")


@pytest.mark.parametrize("name", NAMES)
def test_a_step_on_a_copy_lowers_its_loss(
    name: str, small_backbone: Callable[[str], Small]
) -> None:
    made = small_backbone(name)
    model = made.load()
    before = model.weights_hash()
    pair = prepare(model, made.pair)
    of = made.modalities(model)
    modalities = tuple(dict.fromkeys(of.values()))
    copied = TrainableCopy(model, modalities)
    scale = logit_scale({modality: model[modality] for modality in modalities})
    assert (scale is not None) == (name in SCALED)
    if scale is not None:
        assert 1.0 < scale <= 110.0
    with copied.active():
        losses = []
        for _ in range(2):
            first, second = (copied.embed(of[side], [pair.inputs[side]]) for side in of)
            away = torch.cat([first.detach().roll(1, dims=-1), second.detach()])
            losses.append(contrastive_loss(torch.cat([first, away[:1]]),
                                           torch.cat([second, away[:1]]), 5.0))  # fmt: skip
            gradients = copied.gradients(losses[-1])
            with torch.no_grad():
                for key, gradient in gradients.items():
                    length = gradient.norm().clamp(min=1e-6)
                    copied.parameters[key] -= 1e-3 * gradient / length
        assert float(losses[1].detach()) < float(losses[0].detach())
    assert model.weights_hash() == before
