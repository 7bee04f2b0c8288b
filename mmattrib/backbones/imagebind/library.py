"""ImageBind's own modules, imported without running the package's ``__init__``.

That ``__init__`` imports the package's data loading, which needs ``pkg_resources`` (gone from
setuptools since 81) and pytorchvideo, which needs ``torchvision.transforms.functional_tensor``
(gone since torchvision 0.17). The model itself needs neither. So a bare package is put in place
while the model's modules are imported, and taken away again: what a later ``import imagebind`` of
the user does is what it always did.
"""

from __future__ import annotations

import copyreg
import importlib
import importlib.util
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mmattrib.errors import MissingExtraError

PACKAGE = "imagebind"
INSTALL = "pip install 'mmattrib[imagebind]'"
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Library:
    """What is used of the package.

    Attributes:
        model: the module with ``ImageBindModel``.
        preprocessors: the module with ``SimpleTokenizer``.
        vocabulary: the tokenizer's merges, ``bpe/bpe_simple_vocab_16e6.txt.gz``.
    """

    model: ModuleType
    preprocessors: ModuleType
    vocabulary: Path

    def tokenizer(self) -> Any:
        """A new ``SimpleTokenizer``: CLIP's lower-cased byte-pair encoding."""
        return self.preprocessors.SimpleTokenizer(bpe_path=str(self.vocabulary))


_library: Library | None = None


def library() -> Library:
    """The library; imported when first asked for.

    A package that the user has imported already is used as it is.

    Raises:
        MissingExtraError: it, or something that it imports, is not installed, or the package of
            this name is the empty one on PyPI.
    """
    global _library
    with _LOCK:
        if _library is None:
            _library = _import()
        return _library


def _import() -> Library:
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if spec is None:
        raise MissingExtraError(f"the library {PACKAGE!r} is not installed; {INSTALL}")
    vocabulary = next((path for path in map(_vocabulary, folders) if path.is_file()), None)
    if vocabulary is None:
        raise MissingExtraError(
            f"the installed {PACKAGE!r} in {', '.join(folders) or 'one file'} has no model in it; "
            f"PyPI's package of this name is empty: pip uninstall {PACKAGE}, then {INSTALL}"
        )
    own = PACKAGE not in sys.modules
    before = set(sys.modules)
    if own:
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    try:
        return Library(
            importlib.import_module(f"{PACKAGE}.models.imagebind_model"),
            importlib.import_module(f"{PACKAGE}.models.multimodal_preprocessors"),
            vocabulary,
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{PACKAGE!r} needs {error.name!r}, which is not installed; {INSTALL}"
        ) from error
    finally:
        if own:
            added = [name for name in sys.modules if name.split(".")[0] == PACKAGE]
            for name in added:
                if name not in before:
                    _set_aside(name, sys.modules.pop(name))


_aside: dict[str, ModuleType] = {}


def _set_aside(name: str, module: ModuleType) -> None:
    """Keep a module that no import finds again; what is of its classes can still be pickled."""
    _aside[name] = module
    for each in vars(module).values():
        if isinstance(each, type) and each.__module__ == name:
            copyreg.pickle(each, _reduced)


def _reduced(thing: Any) -> tuple[Any, tuple[str, str], dict[str, Any]]:
    return _blank, (type(thing).__module__, type(thing).__qualname__), vars(thing)


def _blank(module: str, name: str) -> Any:
    """A thing of one of the library's classes, to be filled; perhaps in another process."""
    library()
    kind = getattr(_aside.get(module) or importlib.import_module(module), name)
    return kind.__new__(kind)


def _vocabulary(folder: str) -> Path:
    return Path(folder) / "bpe" / "bpe_simple_vocab_16e6.txt.gz"
