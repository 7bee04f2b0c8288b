"""Trains `tiny` end to end: ``python -m examples.tiny.train --out DIR [--bank FOLDER]``.

Two processes, one core each: the image tower in one, audio and text in the other. Alone at first
(stage 1), then together (stage 2), when they exchange nothing but embeddings: a tower needs the
others' embeddings for its loss, and none of their gradients. A run that stops resumes with
``--resume`` from checkpoints at most two minutes old.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import torch

from examples.tiny.trainer import Recipe, Worker
from mmattrib.backbones.tiny.checkpoint import TinyInfo, save_tiny
from mmattrib.backbones.tiny.model import TinyConfig, TinyModel, TowerName
from mmattrib.datasets.scenes.bank import Bank
from mmattrib.datasets.scenes.captions import vocabulary
from mmattrib.errors import MmattribError, WeightsError

RECIPE_VERSION: Final = 1
GROUPS: Final[dict[str, tuple[TowerName, ...]]] = {
    "image": ("image",),
    "sound": ("audio", "text"),
}


@dataclass(frozen=True)
class Job:
    """One process: which towers, what scenes are made of, where to write, how to go on."""

    group: str
    out: Path
    recipe: Recipe
    resume: bool
    bank: Bank


def run_worker(job: Job, peer: Connection) -> None:
    """Both stages of one process."""
    torch.set_num_threads(1)
    worker = Worker(job.group, GROUPS[job.group], job.out, job.recipe, job.bank)
    if job.resume:
        worker.resume()
    worker.stage1()
    worker.stage2(peer, leads=job.group == "image")


def train(out: Path, recipe: Recipe, resume: bool = False, bank: Bank | None = None) -> Path:
    """Runs both processes to their end and writes OUT/tiny.safetensors; its path is returned.

    `bank` is what scenes are made of, the shipped one if None.
    Raises RuntimeError where a process fails: its last checkpoint stays; WeightsError where
    checkpoints to resume from were trained on another bank.
    """
    bank = bank or Bank.shipped()
    if resume and (out / "recipe.json").is_file():
        read_recipe(out, bank)
    out.mkdir(parents=True, exist_ok=True)
    kept = {"bank": bank.fingerprint(), **asdict(recipe)}
    (out / "recipe.json").write_text(json.dumps(kept, indent=1))
    context = multiprocessing.get_context("spawn")
    ends = context.Pipe()
    processes = [
        context.Process(target=run_worker, args=(Job(g, out, recipe, resume, bank), end), name=g)
        for g, end in zip(GROUPS, ends, strict=True)
    ]
    for process in processes:
        process.start()
    for end in ends:
        end.close()  # so that a process whose peer died sees the end of the pipe
    for process in processes:
        process.join()
    failed = [p.name for p in processes if p.exitcode]
    if failed:
        raise RuntimeError(f"{' and '.join(failed)} stopped with an error: see above; --resume.")
    return assemble(out, bank)


def read_recipe(out: Path, bank: Bank) -> dict[str, object]:
    """What OUT/recipe.json holds: the recipe of a run and the fingerprint of its bank.

    Raises WeightsError where the run was on another bank than `bank`.
    """
    kept: dict[str, object] = json.loads((out / "recipe.json").read_text())
    if kept.get("bank", bank.fingerprint()) != bank.fingerprint():
        raise WeightsError(
            f"{out} holds weights that were trained on another bank than {bank!r}: name theirs "
            "with --bank, or another folder with --out"
        )
    return kept


def assemble(out: Path, bank: Bank | None = None) -> Path:
    """Puts the averaged weights of both processes' last checkpoints into OUT/tiny.safetensors.

    `bank` is the one that they were trained on, the shipped one if None.
    Raises WeightsError where a checkpoint is missing, or was trained on another bank.
    """
    bank = bank or Bank.shipped()
    checkpoints = {group: out / f"{group}.pt" for group in GROUPS}
    for path in checkpoints.values():
        if not path.is_file():
            raise WeightsError(f"{path} is missing: train first, or name another folder.")
    recipe = read_recipe(out, bank)
    words = vocabulary(bank)
    config = TinyConfig(vocabulary=len(words))
    model = TinyModel(config)
    progress: dict[str, object] = {}
    for group, names in GROUPS.items():
        saved = torch.load(checkpoints[group], weights_only=True)
        for name in names:
            model.tower(name).load_state_dict(saved["average"][name])
        progress[group] = saved["progress"]
    training = {"recipe_version": RECIPE_VERSION, **recipe, "progress": progress}
    training["torch"] = torch.__version__
    target = out / "tiny.safetensors"
    info = TinyInfo(config, words, bank.class_names, training)
    save_tiny(target, model, info)
    return target


def sized_recipe(seed: int, minutes: float, batch: int = 64, alone: float = 0.55) -> Recipe:
    """The recipe for a budget: batches of both stages in proportion, rates as their square root."""
    size = batch / Recipe.stage1_batch
    return Recipe(
        seed=seed,
        stage1_minutes=minutes * alone,
        stage2_minutes=minutes * (1 - alone),
        stage1_batch=batch,
        stage2_batch=round(size * Recipe.stage2_batch),
        stage1_lr=Recipe.stage1_lr * size**0.5,
        stage2_lr=Recipe.stage2_lr * size**0.5,
    )


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.tiny.train", description="Train a model of tiny's kind."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--bank", type=Path, help="folder of another bank than the shipped one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=72.0, help="wall time, both stages")
    parser.add_argument("--batch", type=int, default=64, help="scenes per step of stage 1")
    parser.add_argument("--alone", type=float, default=0.55, help="stage 1's share of the time")
    parser.add_argument("--resume", action="store_true", help="go on from OUT's checkpoints")
    parser.add_argument("--assemble-only", action="store_true", help="only write the weights")
    args = parser.parse_args(argv)
    if args.batch < 2 or not 0 < args.alone < 1:
        parser.error("--batch must be at least 2, and --alone between 0 and 1")
    recipe = sized_recipe(args.seed, args.minutes, args.batch, args.alone)
    started = time.monotonic()
    try:
        bank = Bank.load(args.bank) if args.bank else Bank.shipped()
        if args.assemble_only:
            sys.stdout.write(f"{assemble(args.out, bank)}\n")
            return 0
        path = train(args.out, recipe, args.resume, bank)
    except (MmattribError, OSError) as error:
        parser.error(str(error))
    minutes = (time.monotonic() - started) / 60
    sys.stdout.write(f"{path}: {path.stat().st_size} bytes after {minutes:.1f} minutes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
