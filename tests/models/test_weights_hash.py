"""The hash of a backbone's weights: every change is seen, whoever made it and however."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_encoders import ToyImage

import mmattrib as mm
from mmattrib.models.fingerprint import SAMPLE


def of(module: nn.Module) -> mm.Backbone:
    encoder = ToyImage()
    encoder.module = module
    return mm.Backbone({"image": encoder})


def scale_uncounted(module: Any) -> None:
    module.weight.data.mul_(-3)


def one_number_uncounted(module: Any) -> None:
    module.bias.data[7] += 1


def one_number_in_numpy(module: Any) -> None:
    module.bias.detach().numpy()[3] += 1


def one_number_counted(module: Any) -> None:
    with torch.no_grad():
        module.weight[5, 6] += 1


def other_storage(module: Any) -> None:
    module.weight.data = module.weight.detach().clone() * 2


def lasting_buffer(module: Any) -> None:
    module.shift.add_(1)


def passing_buffer(module: Any) -> None:
    module.passing.add_(1)


def extra_state(module: Any) -> None:
    module.extra["note"] = 2


CHANGES = [
    *(scale_uncounted, one_number_uncounted, one_number_in_numpy, one_number_counted),
    *(other_storage, lasting_buffer, passing_buffer, extra_state),
]


class Layer(nn.Linear):
    """All that a module may compute with."""

    def __init__(self) -> None:
        super().__init__(80, 60)
        self.register_buffer("shift", torch.zeros(3))
        self.register_buffer("passing", torch.zeros(3), persistent=False)
        self.extra = {"note": 1}

    def get_extra_state(self) -> Any:
        return dict(self.extra)

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_any_kind_is_seen(change: Callable[[Any], None]) -> None:
    layer = Layer()
    assert layer.weight.numel() > SAMPLE > layer.bias.numel()
    backbone = of(layer)
    before = backbone.weights_hash()
    assert backbone.weights_hash() == before == of(layer).weights_hash()
    change(layer)
    after = backbone.weights_hash()
    assert after != before
    assert after == of(layer).weights_hash()  # as one that never saw the old weights


@pytest.mark.parametrize("shape", [(), (1,), (SAMPLE - 1,), (2 * SAMPLE,), (64, 512), (50, 333)])
def test_every_row_of_a_matrix_is_read(shape: tuple[int, ...]) -> None:
    """Rows and columns: one of them that is changed behind torch's back changes the hash."""
    module = nn.Module()
    module.register_buffer("w", torch.zeros(shape))
    backbone, value = of(module), module.w.data
    seen = {backbone.weights_hash()}
    lines: list[Tensor] = [value]
    if len(shape) == 2:
        lines = [*value.unbind(0), *value.unbind(1)[:: shape[1] // 8]]
    for line in lines:
        line.add_(1)
        seen.add(backbone.weights_hash())
    assert len(seen) == len(lines) + 1


def quantised(scale: float, kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = kind(8, 8)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(scale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces another package
        made: nn.Module = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(layer), {kind}, dtype=torch.qint8
        )
    return made


@pytest.mark.parametrize("kind", [nn.Linear, nn.LSTM])
def test_packed_weights_count(kind: type[nn.Module]) -> None:
    if not {"fbgemm", "x86", "onednn"} & set(torch.backends.quantized.supported_engines):
        pytest.skip("this torch quantises nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own state_dict uses a deprecated call
        one, other = of(quantised(1.0, kind)), of(quantised(1.3, kind))
        assert one.weights_hash() != other.weights_hash()
        assert one.weights_hash() == of(quantised(1.0, kind)).weights_hash()
