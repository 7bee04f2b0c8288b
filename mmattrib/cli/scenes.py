"""``mmattrib scenes``: scenes whose truth is known, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmattrib.cli.arguments import Seed
from mmattrib.cli.outputs import HomePath, check_folder
from mmattrib.cli.speech import say

if TYPE_CHECKING:
    from mmattrib.datasets.scenes import Split


@click.command()
@click.option(
    "--out",
    type=HomePath(path_type=Path),
    required=True,
    help="Folder to make; if it exists it must be empty.",
)
@click.option("--n", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Which ones.")
@click.option(
    "--split",
    type=click.Choice(["train", "heldout"]),
    default="heldout",
    show_default=True,
    help="Drawings and sounds that `tiny` was trained on, or that it never saw.",
)
@click.option(
    "--bank",
    type=HomePath(path_type=Path),
    help="Folder of other drawings and sounds than the package's; its catalog.json lists them.",
)
def scenes(out: Path, n: int, seed: int, split: Split, bank: Path | None) -> None:
    """Write generated scenes, with their truth, as files.

    A scene is a picture, a recording and a caption; the truth says what they share and where. Each
    scene is a folder with image.png, audio.flac, caption.txt, truth.json and masks.npz.
    """
    check_folder(out, "--out", empty=True)
    from mmattrib.datasets.scenes import Bank
    from mmattrib.datasets.scenes.export import write_scenes

    used = Bank.shipped() if bank is None else Bank.load(bank)
    folders = write_scenes(out, n, seed, split, used)
    say(f"Wrote {len(folders)} scene{'s' if len(folders) != 1 else ''} to {out}")
