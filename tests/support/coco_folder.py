"""A small folder in COCO's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 44, "name": "bottle"}]


def square(left: int, top: int, side: int) -> list[list[float]]:
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number: int, image: int, category: int, segmentation: Any) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": category, "iscrowd": 0,
        "segmentation": segmentation, "bbox": [0, 0, 1, 1], "area": 1.0,
    }  # fmt: skip


def instances() -> dict[str, Any]:
    runs = [0] + [10, 30] * 60  # the upper ten of forty rows, column by column
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "height": 40, "width": 60},
            {"id": 3, "file_name": "a.png", "height": 40, "width": 60},
        ],
        "categories": CATEGORIES,
        "annotations": [
            annotation(1, 3, 18, square(0, 0, 20)),
            annotation(2, 3, 18, square(30, 10, 9)),
            annotation(3, 3, 1, square(45, 20, 15)),
            annotation(4, 3, 44, square(58, 38, 1)),
            annotation(5, 7, 1, {"counts": runs, "size": [40, 60]}),
        ],
    }


def captions() -> dict[str, Any]:
    said = [(3, "Two dogs look at a man"), (3, "An empty  street"), (7, "PEOPLE by the sea")]
    return {
        "images": instances()["images"],
        "annotations": [
            {"id": number, "image_id": image, "caption": caption}
            for number, (image, caption) in enumerate(said)
        ],
    }


def write_coco(folder: Path, index: Any = None, split: str | None = None) -> Path:
    rng = np.random.default_rng(0)
    photos = folder / (split or "photos")
    texts = folder / "annotations" if split else folder
    tail = f"_{split}" if split else ""
    photos.mkdir(parents=True)
    texts.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(photos / name)
    given = instances() if index is None else index
    (texts / f"instances{tail}.json").write_text(json.dumps(given))
    (texts / f"captions{tail}.json").write_text(json.dumps(captions()))
    return folder
