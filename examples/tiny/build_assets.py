"""Build the asset bank: ``python -m examples.tiny.build_assets --packages DIR --out DIR``.

DIR holds the unpacked packages, each in a folder of its name. On Debian 12::

    for p in fonts-noto-color-emoji fluidr3mono-gm-soundfont fluid-soundfont-gs \\
             sonic-pi-samples openclipart-png openclipart-svg; do
        apt-get download $p && mkdir -p DIR/$p && dpkg -x ${p}_*.deb DIR/$p
    done
    for p in fluent-emoji-3d fluent-emoji-modern fluent-emoji-flat; do
        npm pack @lobehub/$p && mkdir -p DIR/$p && tar xzf lobehub-$p-*.tgz -C DIR/$p
    done
    p=emoji-datasource-google
    npm pack $p@16.0.0 && mkdir -p DIR/$p && tar xzf $p-*.tgz -C DIR/$p

Needs ``rsvg-convert`` (librsvg2-bin), scipy and tinysoundfont (``pip install --no-deps
tinysoundfont``). The same packages and seed give the same bytes. openclipart-svg is read for the
author and the licence that each drawing states: one that is not in the public domain is refused.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from examples.tiny.asset_recipes import (
    CLASSES,
    IMAGE_DISTRACTORS,
    SONIC_PI,
    SOUND_DISTRACTORS,
    ClassRecipe,
    Recipe,
)
from examples.tiny.asset_synth import SECONDS, SONIC_PI_DIR, SoundSource, condition, encode
from examples.tiny.own_drawings import OWN_DRAWINGS
from mmattrib.datasets.scenes.bank import Sound, Sprite
from mmattrib.errors import MmattribError

SIDE = 64
ALPHA_FLOOR = 20
CLASS_TAKES = (16, 6)
DISTRACTOR_TAKES = (8, 4)
NOTO_FILE = "fonts-noto-color-emoji/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
# The only size of this bitmap font.
NOTO_SIZE = 109
FLUENT = ("fluent-3d", "fluent-modern", "fluent-flat")
HELDOUT_STYLE = "fluent-flat"
LICENCES = {
    "noto": ("Apache-2.0", "Google Inc."),
    "openclipart": ("public domain", "unknown"),
    "sonic-pi": ("CC0-1.0", "unknown"),
    "own": ("Apache-2.0", "the mmattrib authors"),
    "fluent-3d": ("MIT", "Microsoft Corporation"),
    "fluent-modern": ("MIT", "Microsoft Corporation"),
    "fluent-flat": ("MIT", "Microsoft Corporation"),
    "fluidr3-gm": ("MIT", "Frank Wen; mono version Michael Cowgill"),
    "fluidr3-gs": ("MIT", "Frank Wen"),
}

MIT_TEXT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""

SECTIONS = (
    (
        ("noto",),
        "Noto Emoji (https://github.com/googlefonts/noto-emoji), Apache License 2.0 (the text is\n"
        "in this distribution's LICENSE). Copyright 2013-2017 Google Inc. and contributors.\n"
        "Changed: rendered, cropped to the drawing, scaled to at most 64 pixels.",
    ),
    (
        FLUENT,
        "Fluent Emoji (https://github.com/microsoft/fluentui-emoji), MIT License.\n"
        "Copyright (c) Microsoft Corporation. Packaged by LobeHub (npm @lobehub/fluent-emoji-*,\n"
        "MIT License, Copyright (c) 2023 LobeHub). Changed: rasterised, cropped, scaled.\n\n"
        + MIT_TEXT,
    ),
    (
        ("openclipart",),
        "Open Clip Art Library (Debian packages openclipart-png and -svg 0.18): each drawing\n"
        "below states in its own metadata that it is in the public domain\n"
        "(http://web.resource.org/cc/PublicDomain). Changed: cropped, scaled.",
    ),
    (
        ("fluidr3-gm", "fluidr3-gs"),
        "Fluid (R3) SoundFonts, MIT License. Original version Copyright (c) 2000-2002, 2008\n"
        "Frank Wen <getfrank@gmail.com>; mono version (FluidR3Mono_GM) Copyright (c) 2014-2017\n"
        "Michael Cowgill; Temple Blocks instrument Copyright (c) 2002 Ethan Winer; Drumline\n"
        "Percussion Copyright (c) 2016 Michael Schorsch; FluidR3_GS also Copyright (c) 2008\n"
        "Toby Smithe. Changed: the files below are short renderings (bank:program), not the\n"
        "soundfonts themselves.\n\n" + MIT_TEXT,
    ),
    (
        ("sonic-pi",),
        "Samples distributed with Sonic Pi (https://github.com/sonic-pi-net/sonic-pi), from\n"
        "https://freesound.org, dedicated to the public domain with CC0 1.0\n"
        "(https://creativecommons.org/publicdomain/zero/1.0/). Changed: resampled, cut, repeated.",
    ),
    (
        ("own",),
        "Drawn for this package by examples/tiny/own_drawings.py of its repository, Apache\n"
        "License 2.0 (the text is in this distribution's LICENSE).",
    ),
)


class BuildError(MmattribError):
    """The packages do not hold what the recipes ask for."""


def slug(name: str) -> str:
    """Return a class name as a folder name: ``"hand drum"`` gives ``"hand-drum"``."""
    return name.replace(" ", "-")


def to_sprite(image: Image.Image) -> Image.Image:
    """Crop to the alpha box and scale the longest side to 64 px; straight alpha.

    Raises:
        BuildError: if nothing is visible.
    """
    image = image.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 if a > ALPHA_FLOOR else 0).getbbox()
    if box is None:
        raise BuildError("the drawing is empty")
    image = image.crop(box)
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = np.array(image.resize(size, Image.Resampling.LANCZOS))
    pixels[pixels[..., 3] == 0] = 0
    return Image.fromarray(pixels, "RGBA")


class Drawings:
    """The unpacked emoji and clip art below one folder."""

    def __init__(self, packages: Path) -> None:
        """Open the emoji font.

        Raises:
            BuildError: if pillow cannot shape emoji sequences.
        """
        if not features.check("raqm"):
            raise BuildError("pillow lacks raqm, without which emoji sequences do not render")
        self._packages = packages
        self._font = ImageFont.truetype(str(packages / NOTO_FILE), NOTO_SIZE)

    def noto(self, emoji: str) -> Image.Image:
        """Render a sequence such as ``"1f426-200d-2b1b"`` from Noto Color Emoji."""
        canvas = Image.new("RGBA", (400, 150))
        text = "".join(chr(int(code, 16)) for code in emoji.split("-"))
        ImageDraw.Draw(canvas).text((5, 5), text, font=self._font, embedded_color=True)
        sprite = to_sprite(canvas)
        if sprite.width > 2 * sprite.height:
            raise BuildError(f"the font has no single glyph for {emoji}")
        return sprite

    def new_noto(self, emoji: str) -> Image.Image:
        """Read a Noto emoji that the font is too old for."""
        folder = self._packages / "emoji-datasource-google/package/img/google/64"
        return to_sprite(Image.open(folder / f"{emoji}.png"))

    def fluent(self, style: str, emoji: str) -> tuple[Image.Image, str]:
        """Read a Fluent emoji in a style of ``FLUENT``: the sprite and its file's name."""
        folder = self._packages / style.replace("fluent", "fluent-emoji") / "package" / "assets"
        for stem in (emoji, f"{emoji}-fe0f"):
            for path in (folder / f"{stem}.webp", folder / f"{stem}.svg"):
                if path.exists():
                    return to_sprite(Image.open(io.BytesIO(_raster(path)))), path.name
        raise BuildError(f"{folder} has no {emoji}")

    def clipart(self, path: str) -> tuple[Image.Image, str]:
        """Read a drawing of openclipart: the sprite and its author.

        Raises:
            BuildError: if its metadata do not say that it is in the public domain.
        """
        png = self._packages / "openclipart-png/usr/share/openclipart/png" / f"{path}.png"
        return to_sprite(Image.open(png)), self._clipart_author(path)

    def _clipart_author(self, path: str) -> str:
        base = self._packages / "openclipart-svg/usr/share/openclipart/svg"
        found = [p for p in (base / f"{path}.svg", base / f"{path}.svgz") if p.exists()]
        if not found:
            raise BuildError(f"no metadata for {path}")
        data = found[0].read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
        licence = re.search(r'<cc:license\s+rdf:resource="([^"]*)"', text)
        if licence is None or not licence[1].endswith("/PublicDomain"):
            raise BuildError(f"{path} does not state that it is in the public domain")
        author = re.search(r"<dc:creator>.*?<dc:title>(.*?)</dc:title>", text, re.DOTALL)
        return " ".join(author[1].split()) if author else "unknown"


def _raster(path: Path) -> bytes:
    if path.suffix != ".svg":
        return path.read_bytes()
    done = subprocess.run(
        ["rsvg-convert", "--height", "256", str(path)], capture_output=True, check=True
    )
    return done.stdout


def write_sprites(packages: Path, out: Path) -> list[Sprite]:
    """Write every sprite below ``out`` and return their catalogue entries."""
    drawings = Drawings(packages)
    rows: list[Sprite] = []
    for recipe in CLASSES:
        rows += _class_sprites(drawings, recipe, out)
    for name, emoji in IMAGE_DISTRACTORS:
        for sprite, row in _emoji_sprites(drawings, f"distractor-{slug(name)}", emoji, True):
            rows.append(_write_sprite(sprite, row | {"class_name": None, "name": name}, out))
    return rows


def _class_sprites(drawings: Drawings, recipe: ClassRecipe, out: Path) -> list[Sprite]:
    folder = slug(recipe.name)
    rows: list[tuple[Image.Image, dict[str, Any]]] = []
    for index, emoji in enumerate(recipe.emoji):
        rows += _emoji_sprites(drawings, folder, emoji, index == 0)
    for emoji in recipe.new_emoji:
        source_file = f"emoji-datasource-google 16.0.0 {emoji}.png"
        rows.append((drawings.new_noto(emoji), _entry(folder, "noto", emoji, source_file)))
    for path in recipe.clipart:
        sprite, author = drawings.clipart(path)
        stem = Path(path).name.strip("._").replace("._", "_")
        row = _entry(folder, "openclipart", stem, f"{path}.png") | {"author": author}
        row["split"] = "heldout" if path == recipe.heldout_clipart else "train"
        rows.append((sprite, row))
    for stem, draw in OWN_DRAWINGS.get(recipe.name, {}).items():
        rows.append((to_sprite(draw()), _entry(folder, "own", stem, "own_drawings.py")))
    if len(rows) == 1:
        rows[0][1]["split"] = "both"
    named = {"class_name": recipe.name, "name": recipe.name}
    return [_write_sprite(sprite, row | named, out) for sprite, row in rows]


def _entry(folder: str, source: str, stem: str, source_file: str) -> dict[str, Any]:
    licence, author = LICENCES[source]
    return {
        "file": f"sprites/{folder}/{source}-{stem}.png",
        "split": "train",
        "source": source,
        "source_file": source_file,
        "author": author,
        "licence": licence,
    }


def _emoji_sprites(
    drawings: Drawings, folder: str, emoji: str, holds_out: bool
) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Yield an emoji's drawings; with ``holds_out`` the flat one is not for training."""
    for style in ("noto", *FLUENT):
        if style == "noto":
            sprite, source_file = drawings.noto(emoji), f"{Path(NOTO_FILE).name} {emoji}"
        else:
            sprite, source_file = drawings.fluent(style, emoji)
        row = _entry(folder, style, emoji, source_file)
        if holds_out and style == HELDOUT_STYLE:
            row["split"] = "heldout"
        yield sprite, row


def _write_sprite(sprite: Image.Image, row: dict[str, Any], out: Path) -> Sprite:
    path = out / row["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    sprite.save(path, optimize=True)
    return Sprite(**row)


def write_sounds(packages: Path, out: Path, seed: int) -> list[Sound]:
    """Write every sound below ``out`` and return their catalogue entries."""
    source = SoundSource(packages)
    authors = sonic_pi_authors(packages)
    rows: list[Sound] = []
    for recipe in CLASSES:
        folder = f"sounds/{slug(recipe.name)}"
        rows += _takes(source, authors, recipe.sounds, CLASS_TAKES, folder, recipe.name, out, seed)
    for name, phrase in SOUND_DISTRACTORS:
        folder = f"sounds/distractor-{slug(name)}"
        rows += _takes(source, authors, (phrase,), DISTRACTOR_TAKES, folder, name, out, seed)
    return rows


def _takes(
    source: SoundSource,
    authors: dict[str, str],
    recipes: tuple[Recipe, ...],
    takes: tuple[int, int],
    folder: str,
    name: str,
    out: Path,
    seed: int,
) -> list[Sound]:
    (out / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(sum(takes)):
        heldout = number >= takes[0]
        index = number - takes[0] if heldout else number
        file = f"{folder}/{number:02d}.ogg"
        key = zlib.crc32(file.encode())
        rng = np.random.default_rng([seed, key])
        seconds = float(rng.uniform(*SECONDS))
        recipe = recipes[index % len(recipes)]
        raw = source.render(recipe, index // len(recipes), heldout, seconds, rng)
        samples = condition(raw, seconds, rng)
        (out / file).write_bytes(encode(samples, key))
        licence, author = LICENCES[raw.source]
        if raw.source == SONIC_PI:
            holders = (authors[part] for part in raw.source_file.split())
            author = ", ".join(dict.fromkeys(holders))
        rows.append(
            Sound(
                file=file,
                class_name=None if "/distractor-" in file else name,
                name=name,
                split="heldout" if heldout else "train",
                source=raw.source,
                source_file=raw.source_file,
                author=author,
                licence=licence,
                seconds=round(len(samples) / 16_000, 3),
                keys=raw.keys,
                velocity=raw.velocity,
                rate=raw.rate,
            )
        )
    return rows


def sonic_pi_authors(packages: Path) -> dict[str, str]:
    """Return who recorded each CC0 sample of Sonic Pi, by file name.

    A sample that neither the package's copyright file nor its README puts under CC0 is left out,
    so that using it raises ``KeyError``.
    """
    base = packages / "sonic-pi-samples/usr/share/doc/sonic-pi-samples/copyright"
    found = {
        match[1]: match[2].strip()
        for match in re.finditer(
            r"Files: etc/samples/(\S+\.flac)\nCopyright: \d+ ([^\n]+)\nSource: [^\n]+\n"
            r"License: CC0\n",
            base.read_text(encoding="utf-8"),
        )
    }
    readme = (packages / SONIC_PI_DIR / "README.md").read_text(encoding="utf-8")
    for match in re.finditer(r"`:(\w+)`\s*-\s*https?://\S*/people/([^/\s]+)/", readme):
        found.setdefault(f"{match[1]}.flac", match[2])
        found.setdefault(f"{match[1].replace('_2', '2')}.flac", match[2])
    return found


def notice(sprites: list[Sprite], sounds: list[Sound]) -> str:
    """Return the text of NOTICE: each source's terms, then its files one by one."""
    parts = [
        "Drawings and sounds in this folder: sources, copyright holders and licences.\n"
        "Each line: file | made from | author | licence.\n"
    ]
    everything: list[Sprite | Sound] = [*sprites, *sounds]
    for names, terms in SECTIONS:
        parts.append("=" * 80 + f"\n{terms}\n")
        rows = [r for r in everything if r.source in names]
        parts.append(
            "\n".join(f"{r.file} | {r.source_file} | {r.author} | {r.licence}" for r in rows) + "\n"
        )
    return "\n".join(parts)


def build(packages: Path, out: Path, seed: int) -> None:
    """Replace the bank in ``out`` by a fresh one.

    Raises:
        BuildError: if a package lacks a drawing, or a drawing is not free.
    """
    for folder in ("sprites", "sounds"):
        shutil.rmtree(out / folder, ignore_errors=True)
    sprites = write_sprites(packages, out)
    sounds = write_sounds(packages, out, seed)
    write_catalog(out, [recipe.name for recipe in CLASSES], sprites, sounds)
    (out / "NOTICE").write_text(notice(sprites, sounds), encoding="utf-8")


def write_catalog(
    out: Path,
    classes: list[str],
    sprites: list[Sprite],
    sounds: list[Sound],
    phrases: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Write ``catalog.json`` below ``out``; ``phrases`` says how captions name some classes."""
    rows = {
        "version": 1,
        "classes": classes,
        "sprites": [_row(sprite) for sprite in sprites],
        "sounds": [_row(sound) for sound in sounds],
    }
    if phrases:
        rows["phrases"] = phrases
    (out / "catalog.json").write_text(_dump(rows), encoding="utf-8")


def _row(asset: Sprite | Sound) -> dict[str, Any]:
    return {("class" if k == "class_name" else k): v for k, v in asdict(asset).items()}


def _dump(catalog: dict[str, Any]) -> str:
    """JSON with one asset a line, so that a change shows as a change of lines."""
    parts = []
    for key, value in catalog.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value)
            parts.append(f" {json.dumps(key)}: [\n{lines}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and build the bank; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the asset bank from unpacked packages.")
    parser.add_argument("--packages", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the bank to")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        build(args.packages, args.out, args.seed)
    except (BuildError, OSError) as error:
        parser.exit(2, f"build_assets: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
