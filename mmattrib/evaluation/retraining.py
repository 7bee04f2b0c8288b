"""Fine-tune a copy of a model on pairs with its contrastive loss, resumable at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.errors import OptionError, WeightsError, brief
from mmattrib.files import is_file, write_atomic
from mmattrib.methods.options import (
    MethodOptions,
    acting_options,
    limits_of,
    option,
    parse_options,
    unset,
)
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.parameters import TrainableCopy
from mmattrib.types import Modality

SCALE: Final = 1 / 0.07
"""The factor before cosines where a model tells none: the one that CLIP's training starts from
(Radford et al. 2021, section 2.5)."""
NEGATIVES: Final = ("all", "unlike")
_MASKED: Final = -1e4


@dataclass(frozen=True)
class Recipe(MethodOptions):
    """How a model is fine-tuned. The paper gives the loss and the split, and none of the rest.

    The optimiser is AdamW with the moments of CLIP's pretraining (0.9, 0.98; epsilon 1e-6) at a
    constant rate, and no schedule.

    Attributes:
        epochs: passes over the training pairs.
        steps: in place of epochs.
        lr: learning rate.
        weight_decay: of AdamW.
        batch: pairs in a step; what is left of an epoch beyond whole batches is passed over.
        held_out: share of the pairs that is kept for validation.
        scale: factor before the cosines; the model's own if None, else :data:`SCALE`.
        negatives: ``"all"`` other pairs of a batch, as CLIP; ``"unlike"`` leaves out those that
            share as much with an input as its own partner does, by the names of their truths.
        map_seed: of the noise of the maps, which are made once for all seeds of the training.
        checkpoint_seconds: how often a training saves its state; 0 for every step.
    """

    epochs: int = option(5, least=1, most=10_000, only={"steps": (None,)})
    steps: int | None = unset(int, least=1, most=10_000_000)
    lr: float = option(1e-4, above=0.0, most=1.0)
    weight_decay: float = option(0.0, least=0.0, most=1.0)
    batch: int = option(32, least=2, most=65_536)
    held_out: float = option(0.2, least=0.05, most=0.5)
    scale: float | None = unset(float, above=0.0, most=1000.0)
    negatives: str = option("all", choices=NEGATIVES)
    map_seed: int = option(0, least=0, most=2**63 - 1)
    checkpoint_seconds: float = option(60.0, least=0.0, most=86_400.0, resource=True)

    @classmethod
    def of(cls, **given: Any) -> Recipe:
        """Make it from keywords; text as from a command line is parsed.

        Raises:
            OptionError: an option that it has not, or one out of range.
        """
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                raise OptionError(
                    f"retraining has no option {brief(name)}; accepted: {', '.join(known)}"
                )
        made: Recipe = parse_options(cls, given, "roar")
        return made

    def describe(self) -> dict[str, Any]:
        """Every option that acts on the numbers, and its value."""
        acting = acting_options(self)
        return {name: acting[name] for name in acting if not limits_of(self, name).resource}

    def count(self, train: int) -> int:
        """Steps of one training on ``train`` pairs."""
        return self.epochs * (train // self.batch) if self.steps is None else self.steps


@dataclass(frozen=True)
class Pairs:
    """Preprocessed pairs, and what their inputs show.

    Attributes:
        first: one batch of one for each pair.
        second: the other sides.
        modalities: of both sides.
        shown: ``(n, K)`` each, what of K things each input of the two sides shows; None where that
            is not known or does not matter.
    """

    first: Sequence[EncoderInputs]
    second: Sequence[EncoderInputs]
    modalities: tuple[Modality, Modality]
    shown: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.first)

    def overlap(self, rows: Sequence[int]) -> Tensor | None:
        """``(R, R)`` how many things input i of the first side and j of the second share."""
        if self.shown is None:
            return None
        index = torch.as_tensor(rows, dtype=torch.long, device="cpu")
        return self.shown[0][index] @ self.shown[1][index].T


def contrastive_loss(
    first: Tensor, second: Tensor, scale: float | Tensor, overlap: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE of matching rows: the mean of the cross-entropies in both directions.

    Radford et al. 2021 (CLIP), figure 3.

    Args:
        first: ``(B, D)`` L2-normalised.
        second: ``(B, D)``, row i the match of row i.
        scale: factor before the cosines.
        overlap: ``(B, B)``: how much row i of ``first`` and row j of ``second`` share. A negative
            that shares as much as the match is none, and is left out. None counts every one.

    Returns:
        A scalar, in nats.
    """
    own = torch.arange(len(first), device=first.device)
    logits = first @ second.T * scale
    if overlap is None:
        return (nnf.cross_entropy(logits, own) + nnf.cross_entropy(logits.T, own)) / 2
    overlap = overlap.to(logits.device)
    matched = overlap.diagonal()
    rows, columns = overlap >= matched[:, None], overlap >= matched[None, :]
    rows[own, own] = columns[own, own] = False
    forward = nnf.cross_entropy(logits.masked_fill(rows, _MASKED), own)
    backward = nnf.cross_entropy(logits.masked_fill(columns, _MASKED).T, own)
    return (forward + backward) / 2


def split(count: int, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Training and held-out numbers below ``count``, drawn by the seed, each in rising order."""
    order = np.random.default_rng([seed, 0]).permutation(count)
    kept = max(2, round(count * held_out))
    return sorted(order[kept:].tolist()), sorted(order[:kept].tolist())


def batches(train: Sequence[int], size: int, seed: int, start: int = 0) -> Iterator[list[int]]:
    """Batches without end, each epoch in an order of its own, from step ``start`` on.

    They follow from the seed and the number of the step alone.
    """
    each = len(train) // size
    step = start
    while True:
        epoch, place = divmod(step, each)
        order = np.random.default_rng([seed, 1, epoch]).permutation(len(train))
        for at in range(place, each):
            yield [train[k] for k in order[at * size : (at + 1) * size]]
            step += 1


def held_out_loss(
    copied: TrainableCopy, pairs: Pairs, rows: Sequence[int], scale: float, batch: int
) -> float:
    """The loss on some pairs, all of them in one batch: each input against every other of them."""
    with torch.no_grad():
        sides = []
        for modality, inputs in zip(pairs.modalities, (pairs.first, pairs.second), strict=True):
            parts = [
                copied.embed(modality, [inputs[k] for k in rows[at : at + batch]])
                for at in range(0, len(rows), batch)
            ]
            sides.append(torch.cat(parts).float())
        return float(contrastive_loss(sides[0], sides[1], scale, pairs.overlap(rows)))


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        loss: on the held-out pairs, in nats.
        before: the same before the first step.
        seconds: that its steps took, all runs together.
        steps: how many.
    """

    loss: float
    before: float
    seconds: float
    steps: int


def retrain(
    copied: TrainableCopy,
    train_on: Pairs,
    tested_on: Pairs,
    recipe: Recipe,
    scale: float,
    seed: int,
    checkpoint: Checkpoint,
) -> Trained:
    """Fine-tune a copy from its model's weights, and measure it on held-out pairs.

    Args:
        copied: to be trained; whatever it holds now is replaced.
        train_on: every pair, of which the training part is read.
        tested_on: every pair, of which the held-out part is read.
        recipe: how.
        scale: factor before the cosines.
        seed: of the split and of the order.
        checkpoint: where the state is kept meanwhile, and gone on from.

    Raises:
        OptionError: too few pairs for a batch, or a loss that is no longer finite.
        EncoderError: as :class:`TrainableCopy`.
    """
    train, kept = split(len(train_on), recipe.held_out, seed)
    if len(train) < recipe.batch:
        raise OptionError(
            f"a batch of {recipe.batch} pairs was asked for, and {len(train)} are there to train "
            f"on; give batch={len(train)} or less, or more pairs"
        )
    with copied.active():
        copied.reset()
        copied.check(tested_on.modalities[0], tested_on.first[0])
        copied.check(tested_on.modalities[1], tested_on.second[0])
        before = held_out_loss(copied, tested_on, kept, scale, recipe.batch)
        seconds = _train(copied, train_on, train, recipe, scale, seed, checkpoint)
        loss = held_out_loss(copied, tested_on, kept, scale, recipe.batch)
    return Trained(loss, before, seconds, recipe.count(len(train)))


def _train(
    copied: TrainableCopy,
    pairs: Pairs,
    train: Sequence[int],
    recipe: Recipe,
    scale: float,
    seed: int,
    checkpoint: Checkpoint,
) -> float:
    optimiser = _optimiser(copied, recipe)
    done, spent = checkpoint.restore(copied, optimiser)
    started, saved = time.perf_counter(), time.monotonic()
    steps = recipe.count(len(train))
    for step, rows in enumerate(batches(train, recipe.batch, seed, done), done):
        if step >= steps:
            break
        first, second = (
            copied.embed(modality, [inputs[k] for k in rows]).float()
            for modality, inputs in zip(pairs.modalities, (pairs.first, pairs.second), strict=True)
        )
        loss = contrastive_loss(first, second, scale, pairs.overlap(rows))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise OptionError(
                f"the loss is {value} at step {step} of {steps}: the training has diverged; "
                f"give a learning rate below lr={recipe.lr:g}"
            )
        gradients = copied.gradients(loss)
        for name, parameter in copied.parameters.items():
            parameter.grad = gradients.get(name)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if time.monotonic() - saved >= recipe.checkpoint_seconds and step + 1 < steps:
            checkpoint.save(copied, optimiser, step + 1, spent + time.perf_counter() - started)
            saved = time.monotonic()
    return spent + time.perf_counter() - started


def _optimiser(copied: TrainableCopy, recipe: Recipe) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        list(copied.parameters.values()),
        lr=recipe.lr,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=recipe.weight_decay,
        foreach=False,
    )


class Checkpoint:
    """The state of one training in a file: weights, moments of the optimiser, number of the step.

    It appears whole or not at all, and a training that goes on from it is the one that was stopped,
    bit for bit.
    """

    def __init__(self, path: Path | None, identity: str) -> None:
        """Name the file, or None to keep nothing, and the training that it belongs to."""
        self.path, self.identity = path, identity

    def save(
        self, copied: TrainableCopy, optimiser: torch.optim.Optimizer, step: int, seconds: float
    ) -> None:
        """Write the state after ``step`` steps that took ``seconds``.

        Raises:
            OptionError: it cannot be written, e.g. the disk is full.
        """
        if self.path is None:
            return
        tensors = {
            key: value.detach().cpu().contiguous()
            for key, value in _state(copied, optimiser).items()
        }
        told = {"training": self.identity, "step": str(step), "seconds": repr(seconds)}
        write_atomic(self.path, save(tensors, told))

    def restore(self, copied: TrainableCopy, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
        """Put the saved state back, if there is one: its steps and seconds, else zeros.

        Raises:
            WeightsError: the file is of another training, or not whole.
        """
        if self.path is None or not is_file(self.path):
            return 0, 0.0
        try:
            with safe_open(self.path, framework="pt") as file:
                told = file.metadata() or {}
                if told.get("training") != self.identity:
                    raise WeightsError(
                        f"{self.path} is of another training; delete it to train this one afresh"
                    )
                return self._take(file, copied, optimiser), float(told["seconds"])
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise WeightsError(
                f"{self.path} is no whole checkpoint ({error}); delete it to train this one afresh"
            ) from error

    def _take(self, file: Any, copied: TrainableCopy, optimiser: torch.optim.Optimizer) -> int:
        for key in file.keys():  # noqa: SIM118
            kind, _, name = key.partition(":")
            parameter = copied.parameters[name]
            shape = () if kind == "step" else tuple(parameter.shape)
            if tuple(file.get_slice(key).get_shape()) != shape:
                raise ValueError(f"{key} has another shape")
            value = file.get_tensor(key)
            if kind == "weight":
                with torch.no_grad():
                    parameter.copy_(value)
            else:
                place = value if kind == "step" else value.to(parameter.device)
                optimiser.state[parameter][kind] = place
        return int((file.metadata() or {})["step"])

    def remove(self) -> None:
        """Delete the file, once what it was for is finished."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _state(copied: TrainableCopy, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, parameter in copied.parameters.items():
        found[f"weight:{name}"] = parameter
        for kind, value in optimiser.state.get(parameter, {}).items():
            found[f"{kind}:{name}"] = value
    return found
