"""One training process of `tiny`: its towers, its optimiser, its two stages."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.tiny.batches import (
    Mix,
    audio_batch,
    draw_specs,
    image_batch,
    multi_hot,
    text_batch,
)
from examples.tiny.losses import PrototypeLoss, class_prototypes, contrastive_loss
from mmattrib.backbones.tiny.model import TOWERS, TinyConfig, Tower, TowerName
from mmattrib.backbones.tiny.tokenizer import WordTokenizer
from mmattrib.datasets.scenes.bank import Bank
from mmattrib.datasets.scenes.captions import vocabulary
from mmattrib.datasets.scenes.specs import SceneOptions, SceneSpec, draw_spec


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run but the speed of the machine.

    Minutes are wall time; learning rates are peaks; `average` is the decay of the averaged
    weights, which are the ones evaluated and shipped; `text_share` is text's part of stage 1.
    """

    seed: int = 0
    stage1_minutes: float = 40.0
    stage2_minutes: float = 32.0
    text_share: float = 0.06
    stage1_batch: int = 64
    stage2_batch: int = 96
    stage1_lr: float = 1.2e-3
    stage2_lr: float = 5e-4
    weight_decay: float = 0.05
    clip: float = 1.0
    average: float = 0.998
    prototype_weight: float = 0.5
    checkpoint_seconds: float = 120.0


def fast_precision() -> torch.autocast:
    """bfloat16 where the processor multiplies it; elsewhere it would be emulated, so float32."""
    can = torch.cpu.get_capabilities()
    fast = can.get("amx_bf16", False) or can.get("avx512_bf16", False)
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(fast))


class Learner:
    """A tower, its class loss, its optimiser and its averaged weights."""

    def __init__(self, name: TowerName, recipe: Recipe, bank: Bank) -> None:
        self.recipe = recipe
        self.name = name
        config = TinyConfig(vocabulary=len(vocabulary(bank)))
        torch.manual_seed(recipe.seed * len(TOWERS) + TOWERS.index(name))
        self.tower = Tower(config, name)
        classes = len(bank.class_names)
        self.loss = PrototypeLoss(class_prototypes(classes, config.embed_dim))
        self.average = Tower(config, name)
        self.average.load_state_dict(self.tower.state_dict())
        self.optimiser = self._optimiser()
        self.steps = 0

    def _optimiser(self) -> torch.optim.AdamW:
        parameters = [*self.tower.parameters(), *self.loss.parameters()]
        matrices = [p for p in parameters if p.dim() > 1]
        others = [p for p in parameters if p.dim() <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98), fused=True)

    def embed(self, inputs: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) float32, computed in :func:`fast_precision`."""
        with fast_precision():
            pooled = self.tower(inputs)
        return F.normalize(pooled.float(), dim=-1)

    def apply(self, lr: float) -> None:
        """One step of the optimiser and of the averaged weights; gradients are cleared."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        nn.utils.clip_grad_norm_(self.tower.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.steps += 1
        decay = min(self.recipe.average, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.tower.parameters()), 1 - decay
            )

    @torch.no_grad()
    def recognised(self, inputs: Tensor, present: Tensor) -> tuple[float, float]:
        """Of the averaged tower: share of classes found, and of scenes found whole."""
        with fast_precision():
            embedding = F.normalize(self.average(inputs).float(), dim=-1)
        cosine = embedding @ self.loss.prototypes.T
        found, whole = 0.0, 0.0
        for row, truth in zip(cosine, present, strict=True):
            best = row.topk(int(truth.sum())).indices
            found += float(truth[best].mean())
            whole += float(truth[best].min())
        return found / len(cosine), whole / len(cosine)

    def state(self) -> dict[str, Any]:
        """All that resuming needs."""
        return {
            "tower": self.tower.state_dict(),
            "loss": self.loss.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any], average: dict[str, Tensor]) -> None:
        """Goes back to a saved state."""
        self.tower.load_state_dict(state["tower"])
        self.loss.load_state_dict(state["loss"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.load_state_dict(average)
        self.steps = state["steps"]


def learning_rate(peak: float, fraction: float, step: int, warmup: int, floor: float) -> float:
    """Linear warm-up over steps, then a cosine over the fraction of the time down to `floor`."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))
    return peak * min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * cosine)


def curriculum(fraction: float) -> Mix:
    """Lone objects first, the full mix from three tenths of stage 1 on."""
    return Mix(single=min(1.0, max(0.1, 1.0 - 0.9 * (fraction - 0.04) / 0.26)))


class Worker:
    """The towers of one process and their progress through both stages."""

    def __init__(
        self, group: str, names: Sequence[TowerName], out: Path, recipe: Recipe, bank: Bank
    ) -> None:
        self.group, self.out, self.recipe, self.bank = group, out, recipe, bank
        self.tokenizer = WordTokenizer(vocabulary(bank))
        self.learners = {name: Learner(name, recipe, bank) for name in names}
        self.log_scales = nn.Parameter(torch.full((3,), 2.6))
        self.scale_optimiser = torch.optim.Adam([self.log_scales], lr=1e-3)
        self.seconds: dict[str, float] = {}
        self.steps2 = 0
        self._saved_at = time.monotonic()
        self._running: dict[str, float] = {}
        self._probe = {name: self._held_out(name) for name in names}

    # -- data -------------------------------------------------------------------------------

    def _batch(
        self, name: TowerName, specs: Sequence[SceneSpec], vary: bool = True
    ) -> tuple[Tensor, Tensor]:
        if name == "text":
            return text_batch(specs, self.tokenizer)
        if name == "audio":
            return audio_batch(specs, vary), self._present([s.audio for s in specs])
        return image_batch(specs), self._present([s.image for s in specs])

    def _present(self, members: Sequence[Sequence[str | None]]) -> Tensor:
        return multi_hot(self.bank.class_names, members)

    def _held_out(self, name: TowerName) -> dict[str, tuple[Tensor, Tensor]]:
        """Held-out scenes to watch: lone objects, and several."""
        lone = SceneOptions(1, (0, 0), (0, 0), (0, 0), unnamed=0.0)
        probes = {"one": lone, "many": SceneOptions()}
        drawn = {
            key: [draw_spec(self.bank, 9, i, "heldout", options) for i in range(128)]
            for key, options in probes.items()
        }
        return {key: self._batch(name, specs, False) for key, specs in drawn.items()}

    # -- stages -----------------------------------------------------------------------------

    def stage1(self) -> None:
        """Each tower of this process alone, one after the other."""
        minutes = self.recipe.stage1_minutes
        if "text" in self.learners:
            self._alone("text", 60 * minutes * self.recipe.text_share)
            self._alone("audio", 60 * minutes * (1 - self.recipe.text_share))
        else:
            self._alone("image", 60 * minutes)
        if not self.steps2:
            self.save("1 end")

    def _alone(self, name: TowerName, budget: float) -> None:
        learner, recipe = self.learners[name], self.recipe
        before, started = self.seconds.get(name, 0.0), time.monotonic()
        while (elapsed := before + time.monotonic() - started) < budget:
            fraction = elapsed / budget
            mix = curriculum(fraction)
            specs = draw_specs(self.bank, recipe.seed, learner.steps, recipe.stage1_batch, mix)
            inputs, present = self._batch(name, specs)
            loss = learner.loss(learner.embed(inputs), present)
            lr = learning_rate(recipe.stage1_lr, fraction, learner.steps, 200, 0.1)
            loss.backward()
            learner.apply(lr)
            self.seconds[name] = before + time.monotonic() - started
            self._track(name, loss.item())
            self._checkpoint(f"1 {name}", fraction)

    def stage2(self, peer: Connection, leads: bool) -> None:
        """All towers, this process's with gradients, the peer's embeddings as they come.

        The leading process decides time, and both see the same embeddings: the losses, and the
        temperatures trained here, are the same in both.
        """
        recipe, budget = self.recipe, 60 * self.recipe.stage2_minutes
        before, started = self.seconds.get("joint", 0.0), time.monotonic()
        if leads:
            self.steps2 = max(self.steps2, int(peer.recv()))
            peer.send(self.steps2)
        else:
            peer.send(self.steps2)
            self.steps2 = int(peer.recv())
        fraction = before / budget
        while fraction < 1:
            specs = draw_specs(self.bank, recipe.seed + 1, self.steps2, recipe.stage2_batch, Mix())
            data = {name: self._batch(name, specs) for name in self.learners}
            own = {n: (self.learners[n].embed(data[n][0]), data[n][1]) for n in self.learners}
            mine = {n: (e.detach().numpy(), y.numpy()) for n, (e, y) in own.items()}
            elapsed = before + time.monotonic() - started
            if leads:
                peer.send((elapsed, mine))
                _, theirs = peer.recv()
            else:
                elapsed, theirs = peer.recv()
                peer.send((elapsed, mine))
            fraction, self.seconds["joint"] = elapsed / budget, elapsed
            everything = {n: (torch.from_numpy(e), torch.from_numpy(y)) for n, (e, y) in
                          theirs.items()} | own  # fmt: skip
            self._joint_step(everything, fraction)
            self._checkpoint("2", fraction)
        self.save("2 end")

    def _joint_step(self, batch: dict[Any, tuple[Tensor, Tensor]], fraction: float) -> None:
        recipe = self.recipe
        matching = torch.zeros(())
        for scale, (a, b) in zip(
            self.log_scales, (("image", "text"), ("audio", "text"), ("image", "audio")), strict=True
        ):
            overlap = batch[a][1] @ batch[b][1].T
            part = contrastive_loss(batch[a][0], batch[b][0], scale, overlap)
            matching = matching + part / 3
            self._track(f"{a}-{b}", part.item())
        classes = torch.zeros(())
        for name, learner in self.learners.items():
            part = learner.loss(*batch[name])
            classes = classes + part
            self._track(name, part.item())
        loss = matching + recipe.prototype_weight / 3 * classes
        self.scale_optimiser.zero_grad()
        lr = learning_rate(recipe.stage2_lr, fraction, self.steps2, 100, 0.01)
        loss.backward()  # type: ignore[no-untyped-call]
        for learner in self.learners.values():
            learner.apply(lr)
        self.scale_optimiser.step()
        self.steps2 += 1

    # -- keeping ----------------------------------------------------------------------------

    def _track(self, name: str, value: float) -> None:
        self._running[name] = 0.98 * self._running.get(name, value) + 0.02 * value

    def _checkpoint(self, stage: str, fraction: float) -> None:
        if time.monotonic() - self._saved_at >= self.recipe.checkpoint_seconds:
            self.save(stage, fraction)

    def save(self, stage: str, fraction: float = 1.0) -> None:
        """Writes OUT/GROUP.pt atomically, and a line to OUT/GROUP.jsonl."""
        state = {
            "learners": {name: learner.state() for name, learner in self.learners.items()},
            "average": {name: lr.average.state_dict() for name, lr in self.learners.items()},
            "log_scales": self.log_scales.detach(),
            "scale_optimiser": self.scale_optimiser.state_dict(),
            "progress": {
                "seconds": self.seconds,
                "steps": {name: learner.steps for name, learner in self.learners.items()},
                "joint_steps": self.steps2,
            },
        }
        partial = self.out / f"{self.group}.partial"
        torch.save(state, partial)
        partial.replace(self.out / f"{self.group}.pt")
        line: dict[str, Any] = {"stage": stage, "fraction": round(fraction, 3)}
        line["steps"] = {name: learner.steps for name, learner in self.learners.items()}
        line["joint_steps"] = self.steps2
        line["loss"] = {name: round(value, 4) for name, value in self._running.items()}
        for name, learner in self.learners.items():
            for key, probe in self._probe[name].items():
                found, whole = learner.recognised(*probe)
                line[f"{name} {key}"] = [round(found, 3), round(whole, 3)]
        with (self.out / f"{self.group}.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Goes back to OUT/GROUP.pt where there is one."""
        path = self.out / f"{self.group}.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        for name, learner in self.learners.items():
            learner.restore(state["learners"][name], state["average"][name])
        self.log_scales.data.copy_(state["log_scales"])
        self.scale_optimiser.load_state_dict(state["scale_optimiser"])
        self.seconds = dict(state["progress"]["seconds"])
        self.steps2 = state["progress"]["joint_steps"]
