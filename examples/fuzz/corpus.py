"""What is mutated: one small, sound file of every form that the package reads, as bytes."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image

import mmattrib as mm
from mmattrib.backbones.tiny.checkpoint import TinyInfo, load_tiny, save_tiny
from mmattrib.backbones.tiny.model import TinyConfig, TinyModel

RATE = 16000
PICTURES = ("png", "jpg", "tiff", "gif", "webp", "bmp", "palette.png", "grey16.png", "alpha.png")
SOUNDS = ("wav", "flac", "ogg", "mp3", "aiff")
PLAN = """\
[defaults]
method = "ca-m2ib"
options = { pooling = 2 }

[variant.plain]
method = "random"

[grid.cheap]
options = { points = [4, 6] }
layer = { image = 1, text = 0 }
"""
CAPTION = "a dog near the ocean wave"


def build() -> dict[str, bytes]:
    """Name -> bytes; the last part of the name is the suffix that a file of it has."""
    made = {f"picture.{form}": _picture(form) for form in PICTURES}
    made |= {f"sound.{form}": data for form in SOUNDS if (data := _sound(form))}
    made["array.npy"] = _saved(lambda file: np.save(file, np.ones((8, 9), np.float32)))
    made["caption.txt"] = CAPTION.encode()
    made["plan.toml"] = PLAN.encode()
    made["pairs.csv"] = (
        b'id,image,text,boxes,kind\na,a.png,"a dog, loud",1 1 9 9,x\nb,a.png,cat,,\n'
    )
    made |= _indices()
    made |= _explanations()
    made["weights.safetensors"] = _checkpoint()
    made["store.jsonl"] = _store()
    made |= _dicom()
    return made


def _indices() -> dict[str, bytes]:
    """Indices of data sets in their layouts, each of a picture or a sound that is called ``a``."""
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9], "label_text": "a dog"}
    image = {"id": 1, "file_name": "a.png", "path": "a.png", "width": 40, "height": 40}
    coco = {"images": [image], "categories": [{"id": 1, "name": "dog"}], "annotations": [box]}
    runs = {"size": [40, 40], "counts": [100, 50, 1450]}
    found = {"a": {"img_size": [40, 40], "Edema": [[[1, 1], [9, 1], [9, 9]]], "Mass": runs}}
    row = {"image": "a.png", "text": "a dog", "boxes": [[1, 1, 9, 9]], "spans": "2 5"}
    xml = (
        "<annotation><size><width>40</width><height>40</height></size><object><name>4</name>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
        "</annotation>"
    )
    return {
        "rows.jsonl": f"{json.dumps(row)}\n".encode() * 2,
        "radiographs.json": json.dumps(coco).encode(),
        "frames.json": json.dumps(
            [{"file": "a", "class": "dog", "bbox": [[0, 0, 0.5, 1]]}]
        ).encode(),
        "findings.json": json.dumps(found).encode(),
        "events.tsv": b"filename\tonset\toffset\tevent_label\na.wav\t0.1\t0.3\tDog\n",
        "phrases.xml": xml.encode(),
        "sentences.txt": b"[/EN#4/animals A dog] runs in [/EN#5/scene the park] .\n",
        "shard.tar": _saved(_shard),
    }


def _shard(file: io.BytesIO) -> None:
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (("a.png", _picture("png")), ("a.txt", b"a dog"), ("a.json", b"{}")):
            head = tarfile.TarInfo(name)
            head.size = len(data)
            tar.addfile(head, io.BytesIO(data))


def _saved(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def pixels(height: int = 40, width: int = 40) -> np.ndarray:
    """A picture of noise, (height, width, 3) uint8."""
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def tone(seconds: float = 0.6) -> np.ndarray:
    """A rising tone, (T,) float32."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * (400 + 600 * time) * time)).astype(np.float32)


def _picture(form: str) -> bytes:
    picture = Image.fromarray(pixels())
    if form == "palette.png":
        picture = picture.quantize(16)
    elif form == "grey16.png":
        picture = Image.fromarray(pixels()[..., 0].astype(np.uint16) * 200)
    elif form == "alpha.png":
        picture = picture.convert("RGBA")
    kind = {"jpg": "JPEG"}.get(form, form.rpartition(".")[2].upper())
    return _saved(lambda file: picture.save(file, kind))


def _sound(form: str) -> bytes:
    if form.upper() not in soundfile.available_formats():
        return b""
    return _saved(lambda file: soundfile.write(file, tone(), RATE, format=form.upper()))


def _explanations() -> dict[str, bytes]:
    tiny = mm.load_backbone("tiny")
    made = mm.attribute(tiny, image=pixels(), text=CAPTION, method="random")
    heard = mm.attribute(tiny, audio=(tone(), RATE), text=CAPTION, method="random")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, explanation in (("seen", made), ("heard", heard)):
            for suffix in ("npz", "json"):
                path = explanation.save(Path(folder) / f"{name}.{suffix}")
                found[f"{name}.{suffix}"] = path.read_bytes()
    return found


def _checkpoint() -> bytes:
    _, shipped = load_tiny()
    config = TinyConfig(depth=1, vocabulary=len(shipped.vocabulary))
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        path = Path(folder) / "weights.safetensors"
        info = TinyInfo(config, shipped.vocabulary, shipped.class_names, {"steps": 0})
        save_tiny(path, TinyModel(config), info)
        return path.read_bytes()


def _store() -> bytes:
    data = mm.load_dataset("scenes", n=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.jsonl"
        mm.evaluate(mm.load_backbone("tiny"), data, methods=["random"], metrics=["auc"],
                    pairs=[("image", "text")], resume=path, progress=False)  # fmt: skip
        return path.read_bytes()


def _dicom() -> dict[str, bytes]:
    try:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    except ImportError:
        return {}
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", generate_uid(None, ["a"])
    made.Rows, made.Columns, made.SamplesPerPixel = 24, 20, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.RescaleSlope, made.RescaleIntercept = "1.5", "-10"
    made.WindowCenter, made.WindowWidth, made.PixelPaddingValue = "900", "1600", 0
    made.PixelData = (np.arange(480, dtype=np.uint16) * 8).tobytes()
    return {"scan.dcm": _saved(lambda file: made.save_as(file, enforce_file_format=True))}
