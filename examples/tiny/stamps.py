"""A second world to measure on: ``python -m examples.tiny.stamps --out DIR [--deb FILE]``.

Fetches the Debian package ``tuxpaint-stamps-default``, photographs and sounds that Tux Paint's
users gave it, and makes a bank of them for ``Bank.load``. Nothing of it ships with this
package: its own copyright file, copied into DIR, says what may be done with it. The same package
and seed give the same bytes. Needs ``dpkg-deb``, and nothing that mmattrib does not install.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import soundfile
from PIL import Image

from examples.tiny.asset_synth import (
    BAND_HZ,
    FRAME,
    HELDOUT_RATES,
    RATE,
    SECONDS,
    TRAIN_RATES,
    Rendering,
    Samples64,
    condition,
    encode,
    frame_rms,
)
from examples.tiny.build_assets import CLASS_TAKES, BuildError, slug, to_sprite, write_catalog
from examples.tiny.stamp_list import CLASSES, IMAGE_DISTRACTORS, SOUND_DISTRACTORS, Stamp
from mmattrib.datasets.scenes.bank import Sound, Sprite

PACKAGE: Final = "tuxpaint-stamps-default_2022.06.04-1_all.deb"
URL: Final = f"https://deb.debian.org/debian/pool/main/t/tuxpaint-stamps/{PACKAGE}"
SHA256: Final = "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
BYTES: Final = 160_880_444
STAMPS: Final = "usr/share/tuxpaint/stamps/"
COPYRIGHT: Final = "usr/share/doc/tuxpaint-stamps-default/copyright"
LICENCE: Final = "GPL-2"
AUTHOR: Final = "Bill Kendrick and the contributors of Tux Paint"

#: No member that is read is larger.
MEMBER_BYTES: Final = 16 << 20
#: Longest side of a photograph, in pixels.
MAX_SIDE: Final = 4096
DISTRACTOR_TAKES: Final = 4
#: A recording this long, in seconds without silence at its ends, is cut: training gets the part
#: before the cut, which holds this share of the 20 ms frames where it sounds.
CUT_SECONDS: Final = 2.0
CUT_SHARE: Final = 0.6
_BLOCK: Final = 1 << 20
_TIMEOUT: Final = 60.0


def fetch(target: Path, url: str = URL, sha256: str = SHA256, most: int = BYTES) -> Path:
    """Download a file of at most ``most`` bytes to ``target``, which appears when it is right.

    Raises:
        BuildError: if it cannot be reached, is larger, or has another hash.
    """
    part = target.with_name(target.name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, part.open("wb") as stream:
            left = most + 1
            while left and (block := answer.read(min(_BLOCK, left))):
                stream.write(block)
                left -= len(block)
        if not left:
            raise BuildError(f"{url} is larger than {most:,} bytes: it is not {target.name}")
        check_hash(part, sha256, url)
        part.replace(target)
    except OSError as error:
        raise BuildError(
            f"{url} cannot be downloaded ({error}); download it elsewhere and use --deb FILE"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def check_hash(path: Path, sha256: str, source: str) -> None:
    """Raise BuildError where a file has another SHA-256."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise BuildError(f"{source} has SHA-256 {found}, expected {sha256}: it is another file")


def read_deb(path: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """Read members of a Debian package; nothing is written to disk.

    Raises:
        BuildError: if ``dpkg-deb`` is missing or refuses the file, or a member is missing.
    """
    tool = shutil.which("dpkg-deb")
    if tool is None:
        raise BuildError(
            "dpkg-deb is not installed: apt install dpkg, dnf install dpkg or brew install dpkg"
        )
    command = [tool, "--fsys-tarfile", str(path.resolve())]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        stream = process.stdout or io.BytesIO()
        try:
            return read_tar(stream, wanted)
        except tarfile.TarError as error:
            stream.close()  # so that the process does not wait for a reader
            process.wait()
            errors.seek(0)
            said = errors.read(500).decode(errors="replace").strip()
            raise BuildError(f"{path} cannot be unpacked: {said or error}") from error
        finally:
            process.kill()  # what follows the last wanted member is not needed


def read_tar(stream: IO[bytes], wanted: Iterable[str]) -> dict[str, bytes]:
    """Read regular members of a tar stream by their names, without a leading ``./``.

    Raises:
        BuildError: if one is missing, too large, or not a regular file.
        tarfile.TarError: if the stream is not a tar archive.
    """
    left = set(wanted)
    out: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name not in left:
                continue
            file = archive.extractfile(member) if member.isreg() else None
            if file is None or member.size > MEMBER_BYTES:
                raise BuildError(
                    f"{name}: a regular file of at most {MEMBER_BYTES:,} bytes is accepted"
                )
            out[name] = file.read()
            left.discard(name)
            if not left:
                return out
    raise BuildError(f"the package lacks {', '.join(sorted(left)[:5])}")


def members_of(stamps: Iterable[Stamp]) -> set[str]:
    """Return the names of all members that some stamps are made from."""
    files = {COPYRIGHT}
    for stamp in stamps:
        files |= {f"{STAMPS}{p}.png" for p in (*stamp.photographs, *stamp.heldout_photographs)}
        files |= {f"{STAMPS}{p}.ogg" for p in (*stamp.recordings, *stamp.heldout_recordings)}
    return files


def convert(
    members: Mapping[str, bytes],
    out: Path,
    classes: Sequence[Stamp] = CLASSES,
    distractors: Sequence[Stamp] = (*IMAGE_DISTRACTORS, *SOUND_DISTRACTORS),
    seed: int = 0,
) -> tuple[list[Sprite], list[Sound]]:
    """Write a bank of the package's members below ``out``; what is there of one is replaced.

    Raises:
        BuildError: if a photograph is empty or too large, or a sound silent.
    """
    for folder in ("sprites", "sounds"):
        shutil.rmtree(out / folder, ignore_errors=True)
    sprites: list[Sprite] = []
    sounds: list[Sound] = []
    named = {stamp.name for stamp in classes}
    for stamp in (*classes, *distractors):
        class_name = stamp.name if stamp.name in named else None
        sprites += _write_sprites(members, stamp, class_name, out)
        sounds += _write_sounds(members, stamp, class_name, out, seed)
    phrases = {s.name: {"words": list(s.words)} for s in classes if s.words}
    write_catalog(out, [stamp.name for stamp in classes], sprites, sounds, phrases)
    (out / "NOTICE").write_bytes(members[COPYRIGHT])
    return sprites, sounds


def _entry(stamp: Stamp, class_name: str | None, source_file: str, split: str) -> dict[str, Any]:
    return {
        "class_name": class_name,
        "name": stamp.name,
        "split": split,
        "source": PACKAGE.partition("_")[0],
        "source_file": source_file,
        "author": AUTHOR,
        "licence": LICENCE,
    }


def _folder(stamp: Stamp, class_name: str | None) -> str:
    return ("" if class_name else "distractor-") + slug(stamp.name)


def _write_sprites(
    members: Mapping[str, bytes], stamp: Stamp, class_name: str | None, out: Path
) -> list[Sprite]:
    rows = []
    alone = class_name is not None and not stamp.heldout_photographs
    splits = [(path, "both" if alone else "train") for path in stamp.photographs]
    splits += [(path, "heldout") for path in stamp.heldout_photographs]
    for path, split in splits:
        member = f"{STAMPS}{path}.png"
        file = f"sprites/{_folder(stamp, class_name)}/{Path(path).name}.png"
        try:
            with Image.open(io.BytesIO(members[member]), formats=["PNG"]) as image:
                if max(image.size) > MAX_SIDE:
                    raise BuildError(f"{image.size} pixels, at most {MAX_SIDE} a side are accepted")
                sprite = to_sprite(image)
        except (BuildError, OSError) as error:
            raise BuildError(f"{member}: {error}") from error
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        sprite.save(out / file, optimize=True)
        rows.append(Sprite(file=file, **_entry(stamp, class_name, member, split)))
    return rows


def _write_sounds(
    members: Mapping[str, bytes], stamp: Stamp, class_name: str | None, out: Path, seed: int
) -> list[Sound]:
    rows: list[Sound] = []
    train, heldout = CLASS_TAKES if class_name else (DISTRACTOR_TAKES, DISTRACTOR_TAKES)
    for split, paths, takes in (
        ("train", stamp.recordings, train),
        ("heldout", stamp.heldout_recordings, heldout),
    ):
        for index in range(takes if paths else 0):
            number = index if split == "train" else train + index
            file = f"sounds/{_folder(stamp, class_name)}/{number:02d}.ogg"
            key = zlib.crc32(file.encode())
            rng = np.random.default_rng([seed, key])
            member = f"{STAMPS}{paths[index % len(paths)]}.ogg"
            rates = TRAIN_RATES if split == "train" else HELDOUT_RATES
            # In turn, so that all rates occur; the turn differs from recording to recording.
            rate = round(rates[(index // len(paths) * 3 + index) % len(rates)], 2)
            shared = set(stamp.recordings) & set(stamp.heldout_recordings)
            part = split if shared and not stamp.whole else None
            raw = _rendering(members[member], member, rate, part)
            try:
                samples = condition(raw, float(rng.uniform(*SECONDS)), rng)
            except ValueError as error:
                raise BuildError(str(error)) from error
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_bytes(encode(samples, key))
            entry = _entry(stamp, class_name, member, split)
            seconds = round(len(samples) / RATE, 3)
            rows.append(
                Sound(file=file, seconds=seconds, keys=(), velocity=None, rate=rate, **entry)
            )
    return rows


def _rendering(data: bytes, member: str, rate: float, part: str | None) -> Rendering:
    """A recording played ``rate`` times as fast, at 16 kHz; ``part`` is a split, or None for all.

    Raises:
        BuildError: if it is no sound file, or silent.
    """
    try:
        samples, file_rate = soundfile.read(io.BytesIO(data), always_2d=True)
    except soundfile.LibsndfileError as error:
        raise BuildError(f"{member} is not a sound file: {error}") from error
    sound = sounding(to_bank_rate(samples.mean(1), file_rate * rate), member)
    if part is not None and len(sound) >= CUT_SECONDS * RATE:
        train, heldout = cut(sound)
        sound = train if part == "train" else heldout
    source = PACKAGE.partition("_")[0]
    return Rendering(sound, source, member, rate=rate, texture=True)


def to_bank_rate(samples: Samples64, rate: float) -> Samples64:
    """Resample ``(T,)`` from ``rate`` Hz to 16 kHz and limit it to the bank's band, by FFT."""
    count = round(len(samples) * RATE / rate)
    spectrum = np.fft.rfft(samples)
    hz = np.arange(count // 2 + 1) * RATE / max(count, 1)
    kept = np.zeros(len(hz), dtype=np.complex128)
    shared = min(len(spectrum), len(hz))
    kept[:shared] = spectrum[:shared]
    kept[(hz < BAND_HZ[0]) | (hz > BAND_HZ[1])] = 0
    out = np.fft.irfft(kept, count) * (count / len(samples))
    return np.asarray(out, dtype=np.float64)


def sounding(samples: Samples64, source: str) -> Samples64:
    """Return ``(T,)`` without the silence before and after what sounds, in whole 20 ms frames.

    Raises:
        BuildError: if nothing sounds.
    """
    levels = frame_rms(samples)
    if len(levels) == 0 or levels.max() < 1e-4:
        raise BuildError(f"{source}: the recording is silent")
    loud = np.flatnonzero(levels > 0.03 * levels.max())
    return samples[int(loud[0]) * FRAME : (int(loud[-1]) + 1) * FRAME]


def cut(samples: Samples64) -> tuple[Samples64, Samples64]:
    """Cut ``(T,)`` in two, after CUT_SHARE of the frames that sound."""
    levels = frame_rms(samples)
    sounds = np.cumsum(levels > 0.1 * levels.max())
    at = (int(np.searchsorted(sounds, CUT_SHARE * sounds[-1])) + 1) * FRAME
    return samples[:at], samples[at:]


def build(out: Path, deb: Path | None, seed: int = 0) -> tuple[list[Sprite], list[Sound]]:
    """Make the bank in ``out``; without ``deb``, the package is fetched and not kept.

    Raises:
        BuildError: if the package is another one, or cannot be fetched or read.
    """
    wanted = members_of((*CLASSES, *IMAGE_DISTRACTORS, *SOUND_DISTRACTORS))
    with tempfile.TemporaryDirectory() as folder:
        if deb is None:
            deb = fetch(Path(folder) / PACKAGE)
        else:
            check_hash(deb, SHA256, str(deb))
        members = read_deb(deb, wanted)
    out.mkdir(parents=True, exist_ok=True)
    return convert(members, out, seed=seed)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and build the bank; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.tiny.stamps",
        description=f"Make a bank of the photographs and sounds of {PACKAGE}.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the bank to")
    parser.add_argument("--deb", type=Path, help="the package; fetched from Debian if left out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        sprites, sounds = build(args.out, args.deb, args.seed)
    except (BuildError, OSError) as error:
        parser.exit(2, f"stamps: {error}\n")
    alone = sum(sprite.class_name is None for sprite in sprites)
    heldout = len({s.class_name for s in sprites if s.class_name and s.split == "heldout"})
    sys.stdout.write(
        f"{args.out}: {len(CLASSES)} classes, {len(sprites)} photographs ({alone} without class), "
        f"{len(sounds)} sounds ({sum(s.class_name is None for s in sounds)} without class); "
        f"{heldout} classes hold out a photograph of their own\n"
        f"use it with --bank {args.out}, or Bank.load({str(args.out)!r}) in Python\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
