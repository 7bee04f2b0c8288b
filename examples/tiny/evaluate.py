"""Measures a checkpoint of `tiny`: ``python -m examples.tiny.evaluate [FILE] [--bank FOLDER]``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from examples.tiny.retrieval import (
    multi_object,
    multi_object_ceiling,
    occlusion_oracle,
    single_object,
)
from mmattrib.backbones.tiny.checkpoint import WEIGHTS, load_tiny
from mmattrib.backbones.tiny.tokenizer import WordTokenizer
from mmattrib.datasets.scenes import SPLITS, Bank, Split
from mmattrib.errors import MmattribError, WeightsError


def evaluate(
    path: Path = WEIGHTS,
    split: Split = "heldout",
    draws: int = 5,
    pools: int = 10,
    n: int = 300,
    bank: Bank | None = None,
) -> dict[str, dict[str, float]]:
    """Retrieval accuracies and the occlusion oracle of one checkpoint, each from 0 to 1.

    `draws` sets of renderings for single objects, `pools` pools of 64 for several, `n` scenes for
    the oracle; `bank` is what they are made of, the shipped one if None. Raises WeightsError for a
    checkpoint that cannot be read, or that was trained on other classes than the bank has.
    """
    bank = bank or Bank.shipped()
    model, info = load_tiny(path)
    if info.class_names != bank.class_names:
        raise WeightsError(
            f"{path} was trained on {len(info.class_names)} classes ({info.class_names[0]}, ...), "
            f"the bank has {len(bank.class_names)} ({bank.class_names[0]}, ...): "
            "name the one that it was trained on with --bank (bank= in Python)"
        )
    tokenizer = WordTokenizer(info.vocabulary, info.config.max_tokens)
    return {
        "single": single_object(model, tokenizer, bank, split, draws),
        "multi": multi_object(model, tokenizer, bank, split, pools),
        "multi, ambiguous pools": multi_object(
            model, tokenizer, bank, split, pools, unambiguous=False
        ),
        "multi, ambiguous pools, ideal recogniser": multi_object_ceiling(
            bank, split, pools, unambiguous=False
        ),
        "oracle": occlusion_oracle(model, tokenizer, bank, split, n),
    }


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.tiny.evaluate", description="Measure a checkpoint of tiny."
    )
    parser.add_argument(
        "weights",
        type=Path,
        nargs="?",
        default=WEIGHTS,
        metavar="FILE",
        help="checkpoint, the shipped one if left out",
    )
    parser.add_argument("--bank", type=Path, help="folder of the bank that it was trained on")
    parser.add_argument("--split", choices=SPLITS, action="append", help="default: both")
    parser.add_argument("--draws", type=int, default=5, help="single-object sets of renderings")
    parser.add_argument("--pools", type=int, default=10, help="multi-object pools of 64 scenes")
    parser.add_argument("--n", type=int, default=300, help="scenes for the occlusion oracle")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {}
    for split in args.split or SPLITS:
        try:
            bank = Bank.load(args.bank) if args.bank else Bank.shipped()
            figures = evaluate(args.weights, split, args.draws, args.pools, args.n, bank)
        except (MmattribError, OSError) as error:
            parser.error(str(error))
        result[split] = {
            key: {name: round(value, 4) for name, value in group.items()}
            for key, group in figures.items()
        }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
