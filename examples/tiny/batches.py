"""Training batches: a function of (seed, step) alone, one modality at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmattrib.backbones.tiny.model import normalise_image, normalise_log_mel
from mmattrib.backbones.tiny.tokenizer import UNK_ID, WordTokenizer
from mmattrib.datasets.scenes import captions
from mmattrib.datasets.scenes import drawing as draw
from mmattrib.datasets.scenes.bank import Bank
from mmattrib.datasets.scenes.generator import MEL
from mmattrib.datasets.scenes.specs import SceneSpec, draw_training_spec

_BLANKED: Final = 0.1  # chance that a caption's distractor is replaced by <unk>


@dataclass(frozen=True)
class Mix:
    """Shares of training scenes with one lone object, and with two shared classes."""

    single: float = 0.1
    shared2: float = 0.45


def draw_specs(bank: Bank, seed: int, step: int, size: int, mix: Mix) -> list[SceneSpec]:
    """The specs of one batch."""
    return [
        draw_training_spec(bank, seed, step, row, mix.single, mix.shared2) for row in range(size)
    ]


def multi_hot(classes: Sequence[str], members: Sequence[Sequence[str | None]]) -> Tensor:
    """What each row holds of some classes -> (B, classes) of 0 and 1."""
    index = {name: i for i, name in enumerate(classes)}
    out = torch.zeros(len(members), len(index))
    for row, names in zip(out, members, strict=True):
        for name in names:
            if name is not None:
                row[index[name]] = 1.0
    return out


def image_batch(specs: Sequence[SceneSpec]) -> Tensor:
    """Model inputs (B, 3, 96, 96)."""
    pixels = np.stack([draw.render_image(draw.draw_image(spec)) for spec in specs])
    return normalise_image(torch.from_numpy(pixels))


def audio_batch(specs: Sequence[SceneSpec], vary: bool = False) -> Tensor:
    """Model inputs (B, 64, 128); `vary` colours each recording as another microphone would."""
    wave = np.stack([draw.render_audio(draw.draw_audio(spec)) for spec in specs])
    power = MEL.power(torch.from_numpy(wave))
    if vary:
        power = power * torch.from_numpy(np.stack([_response(spec.rng("vary")) for spec in specs]))
    return normalise_log_mel(MEL.log_mel(power))


def _response(rng: random.Random) -> npt.NDArray[np.float32]:
    """(64, 1) gains in power over mel, smooth, a few dB up and down."""
    knots = [rng.gauss(0, 0.5) for _ in range(6)]
    at = np.linspace(0, len(knots) - 1, MEL.n_mels)
    return np.exp(np.interp(at, np.arange(len(knots)), knots)).astype(np.float32)[:, None]


def text_batch(specs: Sequence[SceneSpec], tokenizer: WordTokenizer) -> tuple[Tensor, Tensor]:
    """Model inputs (B, 24) and what they name (B, classes); at least one spec, all of one bank.

    Now and then one distractor's words are <unk>, so that an unknown word means nothing.
    """
    ids, named = [], []
    for spec in specs:
        rng = spec.rng("text")
        text, mentions = captions.write_caption(captions.draw_caption(spec.bank, spec.text, rng))
        tokens = tokenizer(text)
        row, names = list(tokens.ids), [m.class_name for m in mentions]
        blank = _blanked(names, spec, rng)
        if blank is not None:
            low, high = mentions[blank].span
            for k, (a, b) in enumerate(tokens.spans):
                if a >= low and b <= high:
                    row[k + 1] = UNK_ID
            del names[blank]
        ids.append(row)
        named.append(names)
    return torch.tensor(ids), multi_hot(specs[0].bank.class_names, named)


def _blanked(names: Sequence[str], spec: SceneSpec, rng: random.Random) -> int | None:
    own = [k for k, name in enumerate(names) if name not in spec.shared]
    return rng.choice(own) if own and rng.random() < _BLANKED else None
