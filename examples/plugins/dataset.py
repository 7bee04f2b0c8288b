"""A data set in one file: a folder of pictures whose file names are their captions."""

from mmattrib import Dataset, Sample, hookimpl
from mmattrib.datasets.base import input_hash
from mmattrib.datasets.reading import as_folder


class Captioned(Dataset):
    """Pictures with their captions, in the order of their names."""

    name, summary = "captioned", "a folder of JPEG pictures whose file names are their captions"

    def __init__(self, folder):
        self.files = sorted(as_folder(folder).glob("*.jpg"))

    def __iter__(self):
        return (Sample(file.name, {"image": file, "text": file.stem}) for file in self.files)

    def size(self):
        return len(self.files)

    def describe(self):  # whatever the samples depend on: their fingerprint follows from it
        return {file.name: input_hash("image", file) for file in self.files}


@hookimpl
def register_datasets(register):
    """Register it with what its samples hold."""
    register("captioned", Captioned, summary=Captioned.summary, modalities=["image", "text"])
