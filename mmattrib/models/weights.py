"""Read checkpoints without running code in them, with errors that say what is wrong."""

from __future__ import annotations

import pickle
import socket
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from mmattrib.errors import OptionError, WeightsError, brief
from mmattrib.files import is_file

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


_DAMAGED = (
    "PytorchStreamReader",
    "central directory",
    "invalid header",
    "HeaderTooLarge",
    "Ran out of input",
    "unexpected EOF",
    "MetadataIncomplete",
    "IncompleteMetadata",
    "SafetensorError",
    "deserializ",
    "InvalidHeader",
    "truncated",
    "corrupt",
)
"""What torch, pickle and safetensors say, or call their errors, when a file is not whole."""


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype of this name.

    Raises:
        OptionError: it is none of :data:`DTYPES`.
    """
    found = DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, got {brief(dtype)}")
    return found


def parse_device(device: str | torch.device) -> torch.device:
    """The device of this name, if it is there.

    Raises:
        OptionError: no such device here.
    """
    try:
        found = torch.device(device)
        torch.empty(0, dtype=torch.float32, device=found)
    except Exception as error:  # each backend raises its own kind for a device that is not there
        reason = " ".join(str(error).split())[:160]
        raise OptionError(
            f"device {str(device)!r} cannot be used here ({reason}); accepted: 'cpu', and 'cuda' "
            "or 'cuda:0' where torch finds a GPU"
        ) from error
    return found


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint file; no code in it is run.

    Takes safetensors and ``torch.save`` files, the latter with ``weights_only=True``. A dictionary
    under ``state_dict`` is opened, and a common prefix ``module.`` is dropped.

    Args:
        path: the file.

    Raises:
        WeightsError: missing, truncated, of another format, or with code in it.
    """
    path = Path(path)
    if not is_file(path):
        raise WeightsError(f"{path} is not a file; give the path of a checkpoint on this machine")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = load_mapped(path)
    except Exception as error:  # readers raise errors of many kinds for broken files
        raise explain(error, path) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(
            f"{path} holds {type(loaded).__name__}; accepted: a state dict, that is, tensors by "
            "name"
        )
    state = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def load_mapped(path: Path) -> Any:
    """What ``torch.save`` wrote, with tensors that are read from the file as they are needed.

    No code in it is run. A file of torch's old format is read whole.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)


def explain(error: BaseException, source: object) -> WeightsError:
    """What a library's error on loading a checkpoint means, and what to do.

    Args:
        error: as raised; its causes are looked at too.
        source: the checkpoint.
    """
    chain = _chain(error)
    text = " ".join(" ".join(str(each) for each in chain).split())
    reason = text[:300]
    if any(isinstance(each, WeightsError) for each in chain):
        return next(each for each in chain if isinstance(each, WeightsError))
    if "TorchScript" in text:
        return WeightsError(
            f"{source} is a TorchScript archive, which runs code when it is loaded; accepted: a "
            "state dict. Convert it where you trust it: "
            "torch.save(torch.jit.load(path).state_dict(), new_path)"
        )
    if any(isinstance(each, pickle.UnpicklingError) for each in chain) and (
        "weights_only" in text.lower() or "Weights only" in text
    ):
        if _looks_like_pickle(source):
            return WeightsError(
                f"{source} holds more than tensors: loading it would run code, so it was refused. "
                "Save it again where you trust it, as safetensors or as "
                "torch.save(model.state_dict(), path)"
            )
        return WeightsError(f"{source} is damaged or not a checkpoint; download it again")
    if any(isinstance(each, EOFError | zipfile.BadZipFile) for each in chain) or any(
        sign in text or sign in " ".join(type(each).__name__ for each in chain) for sign in _DAMAGED
    ):
        return WeightsError(
            f"{source} is cut short or damaged ({reason[:120]}); download or copy it again"
        )
    if any(isinstance(each, pickle.UnpicklingError) for each in chain):
        return WeightsError(f"{source} is damaged or not a checkpoint; download it again")
    return WeightsError(f"{source} cannot be loaded: {reason}")


def _looks_like_pickle(source: object) -> bool:
    """Whether a file begins as torch.save's files do; True where there is no such file."""
    path = Path(str(source))
    if not is_file(path):
        return True
    with path.open("rb") as stream:
        start = stream.read(4)
    return start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def check_keys(
    source: object,
    model: str,
    missing: Collection[str] = (),
    unexpected: Collection[str] = (),
    mismatched: Collection[str] = (),
) -> None:
    """Refuse a checkpoint that does not fit its model exactly.

    Args:
        source: the checkpoint.
        model: what it was loaded into, for the message.
        missing: names that the model needs and the checkpoint lacks; they would be random.
        unexpected: names that the checkpoint has and the model lacks.
        mismatched: names whose shapes differ.

    Raises:
        WeightsError: any of them.
    """
    if mismatched:
        raise WeightsError(
            f"{source} does not have the architecture of {model}: {_listed(mismatched)} of other "
            "shapes. Name the architecture that it was trained with"
        )
    if missing:
        raise WeightsError(
            f"{source} lacks {_listed(missing)}, which {model} needs and which would be left "
            "random. Give the whole checkpoint, of this architecture"
        )
    if unexpected:
        raise WeightsError(
            f"{source} has {_listed(unexpected)}, which {model} has no place for; it belongs to "
            "another architecture. Name that one"
        )


def check_state(
    source: object, model: str, wanted: Mapping[str, Any], state: Mapping[str, Any]
) -> None:
    """:func:`check_keys` for two state dicts."""
    common = wanted.keys() & state.keys()
    check_keys(
        source,
        model,
        mismatched=[
            f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in sorted(common)
            if tuple(state[name].shape) != tuple(wanted[name].shape)
        ],
        missing=sorted(wanted.keys() - state.keys()),
        unexpected=sorted(state.keys() - wanted.keys()),
    )


def check_finite(source: object, state: Mapping[str, Any]) -> None:
    """Refuse weights that are no numbers: one of them makes every map NaN.

    Args:
        source: the checkpoint.
        state: parameters by name; those without floats are passed over. Buffers may be masks,
            with infinite values on purpose.

    Raises:
        WeightsError: some are NaN or infinite.
    """
    wrong = [
        name
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and not bool(torch.isfinite(value).all())
    ]
    if wrong:
        raise WeightsError(
            f"{source} has NaN or infinite values in {_listed(wrong)}; its training diverged, or "
            "the file is damaged. Download or copy it again"
        )


def _listed(names: Collection[str], most: int = 4) -> str:
    shown = ", ".join(sorted(str(name) for name in names)[:most])
    more = len(names) - most
    count = f"{len(names)} weight{'s' if len(names) != 1 else ''}"
    return f"{count} ({shown}{f', and {more} more' if more > 0 else ''})"


def hub_reachable(seconds: float = 3.0) -> bool:
    """Whether the model hub answers, so that a machine without a network need not wait for retries.

    True where a proxy is set, since only it knows.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "huggingface.co", port), seconds):
            return True
    except OSError:
        return False


def unreachable(source: object) -> WeightsError:
    """The error for a checkpoint that is neither here nor to be had."""
    return WeightsError(
        f"{source!r} is no folder or file on this machine, is not in the local cache, and the "
        "model hub cannot be reached. Connect to the network, set HF_ENDPOINT to a mirror, or "
        "download it elsewhere and give the path"
    )
