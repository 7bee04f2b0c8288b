"""The demonstration: three scenes, their maps, the truth drawn beside them, one index page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from mmattrib.api import attribute, load_backbone
from mmattrib.benchmark import raw_input, scene_truth
from mmattrib.data.scenes import Scene, scenes
from mmattrib.errors import OptionError
from mmattrib.render import IndexEntry, index_html, report_html, thumbnail, write_text
from mmattrib.types import Explanation

SCENES: Final = (("image", "text"), ("audio", "image"), ("audio", "text"))
"""What each scene pairs."""


def write_demo(out: str | Path, seed: int = 0) -> Path:
    """Write three scenes that training never saw, explained and beside their truth.

    The scenes are the first of their seed, whatever their maps look like.

    Args:
        out: a folder; made if it does not exist. Pages of an earlier run are written over.
        seed: of the scenes and of the method's noise.

    Returns:
        The index page.

    Raises:
        OptionError: ``out`` is a file.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is a file; give a folder for the demo's pages")
    folder.mkdir(parents=True, exist_ok=True)
    tiny = load_backbone("tiny")
    entries = []
    for number, (scene, pair) in enumerate(zip(scenes(len(SCENES), seed), SCENES, strict=True)):
        inputs = {side: raw_input(scene, side) for side in pair}
        explanation = attribute(tiny, inputs=inputs, seed=seed)
        name = f"{number + 1}-{'-'.join(pair)}"
        title = f"{pair[0].capitalize()} and {pair[1]}: both hold {_listed(scene.shared)}"
        page = report_html(explanation, title=title, truth=truth_masks(scene, explanation))
        write_text(folder / f"{name}.html", page)
        explanation.save(folder / f"{name}.png")
        explanation.save(folder / f"{name}.npz")
        entries.append(
            IndexEntry(title, describe(scene, pair), f"{name}.html", thumbnail(explanation))
        )
    return write_text(folder / "index.html", index_html(entries))


def truth_masks(scene: Scene, explanation: Explanation) -> Mapping[str, np.ndarray]:
    """Side -> bool mask of what the scene's modalities share, in the shape of the side's map."""
    return {side: scene_truth(scene, found).mask for side, found in explanation.items()}


def describe(scene: Scene, pair: tuple[str, str]) -> str:
    """One sentence on what each side of a pair holds."""
    held = {
        "image": [part.class_name for part in scene.objects],
        "audio": [part.class_name for part in scene.events],
        "text": [part.class_name for part in scene.mentions],
    }
    sides = [
        f"the {side} holds {_listed([name or 'an unnamed thing' for name in held[side]])}"
        for side in pair
    ]
    sentence = "; ".join(sides)
    return sentence[0].upper() + sentence[1:] + "."


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
