"""Small folders in the layouts in which data sets are published, with contents made here."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

WIDTH, HEIGHT = 32, 24


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> Path:
    """A picture of noise; width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), "uint8")
    Image.fromarray(noise).save(path)
    return path


def sound(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    """A recording of noise at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, round(16000 * seconds))
    soundfile.write(path, noise.astype(np.float32), 16000)
    return path


def text(path: Path, *lines: str) -> Path:
    """Lines of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def written(path: Path, value: Any) -> Path:
    """A value as JSON."""
    return text(path, json.dumps(value))


def pairs(folder: Path) -> dict[str, Any]:
    picture(folder / "one.png")
    picture(folder / "two.png", seed=1)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 8:20] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    text(folder / "pairs.csv", "image,text,id,mask,boxes,source", "one.png,a dog,x,mask.png,,mine",
         "two.png,a cat,y,,2 3 10 12; 4 4 8 20,")  # fmt: skip
    return {"folder": folder}


def manifest(folder: Path) -> dict[str, Any]:
    picture(folder / "one.png")
    sound(folder / "one.wav")
    rows = [
        {"image": "one.png", "text": "a dog barks", "boxes": [[1, 2, 9, 9]], "spans": [[2, 5]]},
        {"audio": "one.wav", "text": "a dog barks", "times": [[0.2, 0.6]], "id": 7,
         "tags": {"source": "mine"}},
    ]  # fmt: skip
    return {"path": text(folder / "rows.jsonl", *map(json.dumps, rows))}


CXR = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"
CXR_PATH = f"files/p10/p10000032/s50414267/{CXR}.jpg"


def ms_cxr_json() -> dict[str, Any]:
    said = ["left basal opacity", "left basal opacity", "small right effusion"]
    boxes = [[10, 20, 30, 40], [100, 20, 30.5, 40], [0, 0, 320, 120]]
    return {
        "info": {"version": "1.0.0"},
        "images": [
            {"id": 3, "file_name": f"{CXR}.jpg", "width": 320, "height": 240,
             "num_annotations": 3, "path": CXR_PATH},
        ],
        "categories": [{"id": 1, "name": "Lung Opacity"}, {"id": 2, "name": "Pleural Effusion"}],
        "annotations": [
            {"id": n, "image_id": 3, "category_id": 1 + (n == 2), "bbox": box, "label_text": text}
            for n, (box, text) in enumerate(zip(boxes, said, strict=True))
        ],
    }  # fmt: skip


def ms_cxr_csv() -> list[str]:
    head = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"
    start = f"{CXR},Lung Opacity,left basal opacity,{CXR_PATH}"
    other = f"{CXR},Pleural Effusion,small right effusion,{CXR_PATH}"
    return [head, f"{start},10,20,30,40,320,240,test", f"{other},0,0,320,120,320,240,val",
            f"{start},100,20,30,40,320,240,test"]  # fmt: skip


def ms_cxr(folder: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, Any]:
    """The picture is a tenth of the size on which the boxes were drawn."""
    written(folder / "MS_CXR_Local_Alignment_v1.0.0.json", ms_cxr_json())
    picture(folder / CXR_PATH, size)
    return {"folder": folder}


def conceptual_captions(folder: Path) -> dict[str, Any]:
    for number in range(2):
        key = folder / "00000" / f"{number:09d}"
        picture(key.with_suffix(".jpg"), seed=number)
        key.with_suffix(".txt").write_text(f"a dog number {number}", encoding="utf-8")
        told = {"caption": f"a dog number {number}", "url": f"http://web/{number}.jpg",
                "key": key.name, "status": "success", "error_message": None, "width": WIDTH,
                "height": HEIGHT, "exif": "{}"}  # fmt: skip
        written(key.with_suffix(".json"), told)
    return {"folder": folder}


SENTENCES = (
    "[/EN#40/people A man] pets [/EN#41/animals a dog] in [/EN#42/scene the park] .",
    "[/EN#41/animals A small dog] and [/EN#40/people its owner] look at [/EN#0/notvisual it] .",
    "The park is empty .",
)
ANNOTATION = f"""<annotation><filename>11.jpg</filename>
<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>
<object><name>40</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>20</ymax></bndbox>
</object>
<object><name>41</name><bndbox><xmin>11</xmin><ymin>9</ymin><xmax>20</xmax><ymax>24</ymax></bndbox>
</object>
<object><name>41</name><bndbox><xmin>21</xmin><ymin>9</ymin><xmax>32</xmax><ymax>12</ymax></bndbox>
</object>
<object><name>42</name><scene>1</scene><nobndbox>0</nobndbox></object>
</annotation>"""


def flickr30k_entities(folder: Path) -> dict[str, Any]:
    text(folder / "Sentences" / "11.txt", *SENTENCES)
    text(folder / "Annotations" / "11.xml", ANNOTATION)
    picture(folder / "flickr30k-images" / "11.jpg")
    return {"folder": folder}


def vgg_ss(folder: Path) -> dict[str, Any]:
    entries = [
        {"file": "-0ab_cdEfGh_000030", "class": "dog barking", "bbox": [[0.25, 0.5, 0.75, 1.01]]},
        {"file": "z0ab_cdEfGh_000140", "class": "playing flute",
         "bbox": [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]},
    ]  # fmt: skip
    for number, entry in enumerate(entries):
        picture(folder / "frames" / f"{entry['file']}.jpg", seed=number)
        sound(folder / "audio" / f"{entry['file']}.wav", seed=number)
    written(folder / "vggss.json", entries)
    return {"folder": folder}


DESED_ROWS = (
    "filename\tonset\toffset\tevent_label",
    "Y00a_10.000_20.000.wav\t0.10\t0.40\tDog",
    "Y00a_10.000_20.000.wav\t0.300\t0.900\tAlarm_bell_ringing",
    "Y00b_30.000_40.000.wav\t\t\t",
    "Y00a_10.000_20.000.wav\t0.6\t0.8\tDog",
)


def desed(folder: Path) -> dict[str, Any]:
    table = text(folder / "metadata" / "validation" / "validation.tsv", *DESED_ROWS)
    for name in ("Y00a_10.000_20.000.wav", "Y00b_30.000_40.000.wav"):
        sound(folder / "audio" / "validation" / name)
    return {"annotations": table}


def clotho(folder: Path) -> dict[str, Any]:
    said = [f'"A dog, number {number}, barks"' for number in range(1, 6)]
    text(folder / "clotho_captions_evaluation.csv",
         "file_name,caption_1,caption_2,caption_3,caption_4,caption_5",
         ",".join(["Dog near (the) road.wav", *said]))  # fmt: skip
    sound(folder / "evaluation" / "Dog near (the) road.wav")
    return {"folder": folder}


AUDIOCAPS_ROWS = (
    "audiocap_id,youtube_id,start_time,caption",
    "103549,-7fmOlUlwoNg,30,A dog barks",
    '103541,0yxEvdnimGg,20,"Wind blows, and water runs"',
    "103542,gone0000000,0,A clock ticks",
)


def audiocaps(folder: Path) -> dict[str, Any]:
    text(folder / "test.csv", *AUDIOCAPS_ROWS[:3])
    sound(folder / "audio" / "test" / "-7fmOlUlwoNg.wav")
    sound(folder / "audio" / "test" / "Y0yxEvdnimGg.flac", seed=1)
    return {"folder": folder}


CHEX = "patient64622_study1_view1_frontal"


def chexlocalize(folder: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, Any]:
    found = {
        CHEX: {
            "img_size": [48, 64],
            "Support Devices": [[[2.0, 2.5], [20.0, 2.5], [20.0, 20.0], [2.0, 20.0]]],
            "Lung Lesion": [[[30, 30], [40, 30], [40, 40]], [[50, 8], [60, 8], [60, 20], [50, 20]]],
        }
    }
    written(folder / "CheXlocalize" / "gt_annotations_val.json", found)
    picture(folder / "CheXpert" / "val" / "patient64622" / "study1" / "view1_frontal.jpg", size)
    return {"folder": folder}


def compressed(mask: np.ndarray) -> str:
    """COCO's compressed run lengths, as its documentation tells."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    counts = np.diff([0, *edges, len(flat)]).tolist()
    text = ""
    for at, count in enumerate(counts):
        value = count - counts[at - 2] if at > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 * more) + 48)
    return text


class Rows:
    """What a data set of the ``datasets`` package is to its users: rows by number, and features."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.features = dict.fromkeys(rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.rows[number]


def encoded_picture(seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), "uint8")
    Image.fromarray(noise).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def encoded_sound(seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 0.1, 16000).astype(np.float32)
    soundfile.write(buffer := io.BytesIO(), noise, 16000, format="FLAC")
    return buffer.getvalue()


def huggingface(_: Path) -> dict[str, Any]:
    rows = [
        {"image": {"bytes": encoded_picture(seed), "path": f"{seed}.png"}, "caption": "a dog",
         "objects": [[1, 2, 10, 8]], "source": "web"}
        for seed in range(2)
    ]  # fmt: skip
    return {"data": Rows(rows), "boxes": "objects", "box_form": "sizes"}


def shard(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            head = tarfile.TarInfo(name)
            head.size = len(data)
            tar.addfile(head, io.BytesIO(data))
    return path


def webdataset(folder: Path) -> dict[str, Any]:
    told = json.dumps({"boxes": [[1, 1, 9, 9]], "source": "web"}).encode()
    shard(folder / "000000.tar", ("a/0001.jpg", encoded_picture()), ("a/0001.txt", b"a dog"),
          ("a/0001.json", told), ("a/0002.flac", encoded_sound()),
          ("a/0002.json", b'{"caption": "a dog barks"}'))  # fmt: skip
    shard(folder / "000001.tar", ("b.png", encoded_picture(1)), ("b.txt", b"a cat"),
          ("b.wav", encoded_sound(1)), ("b.cls", b"3"))  # fmt: skip
    return {"path": folder}
