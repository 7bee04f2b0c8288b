"""The demonstration: three scenes, their maps, the truth drawn beside them, one index page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mmattrib.datasets.scenes import Scene, part_names, scenes
from mmattrib.errors import OptionError
from mmattrib.explain import attribute
from mmattrib.files import write_atomic
from mmattrib.loading import load_backbone
from mmattrib.render import index_html, report_html, thumbnail
from mmattrib.render.figures import png_bytes
from mmattrib.samples import Truth
from mmattrib.types import BoolArray, Explanation

SCENES: Final = (("image", "text"), ("audio", "image"), ("audio", "text"))
"""What each scene pairs."""

INTRO: Final = (
    "Each scene below is two inputs that share exactly one thing; everything else is in one of "
    "them only. A small model that ships with mmattrib says how well the two match, and the maps "
    "show which pixels, which moments and frequencies, and which words raised that match. The "
    "scenes are made of "
    "drawings and sounds that the model never saw in training, so the right answer is known: it is "
    "outlined in every picture, spectrogram and caption."
)


def write_demo(out: str | Path, seed: int = 0) -> Path:
    """Write pages that explain three held-out scenes, with their truth outlined.

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
        inputs = {side: scene.input(side) for side in pair}
        explanation = attribute(tiny, inputs=inputs, seed=seed)
        name = f"{number + 1}-{'-'.join(pair)}"
        title = f"{pair[0].capitalize()} and {pair[1]}: both hold {_listed(scene.shared)}"
        truth = truth_masks(scene, explanation)
        page = report_html(explanation, title=title, truth=truth)
        write_atomic(folder / f"{name}.html", page.encode("utf-8"))
        write_atomic(folder / f"{name}.png", png_bytes(explanation, truth))
        explanation.save(folder / f"{name}.npz")
        picture = thumbnail(explanation, truth)
        entries.append((title, describe(scene, pair), f"{name}.html", picture))
    index = index_html(entries, intro=INTRO)
    return write_atomic(folder / "index.html", index.encode("utf-8"))


def truth_masks(scene: Scene, explanation: Explanation) -> Mapping[str, BoolArray]:
    """Side -> bool mask of what the scene's modalities share, in the shape of the side's map."""
    return {side: Truth(scene.parts(side)).on(found).mask for side, found in explanation.items()}


def describe(scene: Scene, pair: tuple[str, str]) -> str:
    """One sentence on what each side of a pair holds."""
    unnamed = "something unnamed"
    sides = [
        f"the {side} holds {_listed([name or unnamed for name in part_names(scene, side)])}"
        for side in pair
    ]
    sentence = "; ".join(sides)
    return sentence[0].upper() + sentence[1:] + "."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
