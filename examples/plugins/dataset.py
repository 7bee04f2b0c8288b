"""A data set in one file: a folder of pictures whose file names are their captions."""

from hashlib import sha256
from pathlib import Path

from mmattrib import Dataset, Sample, hookimpl


class Captioned(Dataset):
    """Pictures with their captions, in the order of their names."""

    name, summary = "captioned", "a folder of JPEG pictures whose file names are their captions"

    def __init__(self, folder):
        self.files = sorted(Path(folder).glob("*.jpg"))

    def __iter__(self):
        return (Sample(file.name, {"image": file, "text": file.stem}) for file in self.files)

    def size(self):
        return len(self.files)

    def describe(self):  # whatever the samples depend on: their fingerprint follows from it
        return {file.name: sha256(file.read_bytes()).hexdigest() for file in self.files}


@hookimpl
def register_datasets(register):
    """Register it with what its samples hold."""
    register("captioned", Captioned, summary=Captioned.summary, modalities=["image", "text"])
