"""Drawings of our own, for classes of which free collections hold too few.

Part of :mod:`examples.tiny.build_assets`; Apache-2.0 like the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from PIL import Image, ImageDraw

_SIZE: Final = 512
Colour = tuple[int, int, int]


def acoustic_guitar(
    wood: Colour, edge: Colour, neck: Colour, degrees: float, lean: float = 0.0
) -> Image.Image:
    """Draw a guitar from the front, RGBA: turned by `degrees`, foreshortened by `lean`."""
    image = Image.new("RGBA", (_SIZE, _SIZE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    for grow, colour in ((8, edge), (0, wood)):
        pen.ellipse((146 - grow, 286 - grow, 366 + grow, 486 + grow), fill=colour)
        pen.ellipse((174 - grow, 196 - grow, 338 + grow, 346 + grow), fill=colour)
        pen.rectangle((186 - grow, 270, 326 + grow, 360), fill=colour)
    # the waist: two bites out of the sides
    for left in (118 - 8, 338 + 8):
        pen.ellipse((left, 268, left + 56, 336), fill=(0, 0, 0, 0))
    pen.ellipse((214, 272, 298, 356), fill=edge)
    pen.ellipse((222, 280, 290, 348), fill=(40, 24, 16))
    pen.rectangle((242, 60, 270, 282), fill=neck)
    pen.polygon(((234, 66), (278, 66), (284, 8), (228, 8)), fill=edge)
    for y in (18, 34, 50):
        pen.ellipse((218, y - 5, 230, y + 7), fill=(210, 205, 190))
        pen.ellipse((282, y - 5, 294, y + 7), fill=(210, 205, 190))
    for y in range(84, 272, 24):
        pen.line((242, y, 270, y), fill=(200, 195, 180), width=3)
    pen.rectangle((216, 412, 296, 428), fill=neck)
    for x in (247, 252, 256, 260, 265):
        pen.line((x, 30, x, 420), fill=(235, 230, 215), width=2)
    if lean:
        matrix = (1 + lean, 0.0, -lean * _SIZE / 2, lean * 0.5, 1.0, -lean * _SIZE / 4)
        image = image.transform(
            image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
        )
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)


#: By class, then by the stem of the file.
OWN_DRAWINGS: Final[Mapping[str, Mapping[str, Callable[[], Image.Image]]]] = {
    "guitar": {
        "guitar-pine": partial(
            acoustic_guitar, (236, 190, 110), (120, 66, 28), (70, 42, 26), -45.0, 0.35
        ),
        "guitar-cherry": partial(acoustic_guitar, (196, 96, 48), (84, 34, 18), (48, 30, 22), -35.0),
        "guitar-honey": partial(
            acoustic_guitar, (222, 160, 62), (150, 92, 36), (96, 60, 34), 40.0, 0.6
        ),
    },
}
