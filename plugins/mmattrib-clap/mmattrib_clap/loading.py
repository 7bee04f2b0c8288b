"""From a checkpoint to a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmattrib import Backbone
from mmattrib.errors import OptionError, WeightsError
from mmattrib_clap.audio import ClapAudioEncoder
from mmattrib_clap.text import ClapTextEncoder

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_checkpoint(
    checkpoint: str, device: str, dtype: str, revision: str | None, stage: int | None
) -> Backbone:
    """Load CLAP; see :func:`mmattrib_clap.load`."""
    from transformers import AutoConfig, ClapModel, ClapProcessor

    if dtype not in DTYPES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    options: dict[str, Any] = {"revision": revision} if revision else {}
    if Path(checkpoint).is_dir():
        options["local_files_only"] = True
    try:
        config = AutoConfig.from_pretrained(checkpoint, **options)
        if config.model_type != "clap":
            raise WeightsError(
                f"{checkpoint} is a {config.model_type!r} model; accepted: CLAP, such as "
                "laion/clap-htsat-unfused"
            )
        model, info = ClapModel.from_pretrained(
            checkpoint,
            dtype=DTYPES[dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
        processor = ClapProcessor.from_pretrained(checkpoint, **options)
    except WeightsError:
        raise
    except Exception as error:  # transformers, the hub and the readers each raise their own
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{checkpoint} cannot be loaded: {reason}. Check the spelling and the network, or "
            "give a folder that save_pretrained wrote, processor included; if it is one, it is "
            "damaged: download it again"
        ) from error
    wrong = [
        f"{kind} {name}"
        for kind in ("missing", "mismatched", "unexpected")
        for name in info.get(f"{kind}_keys") or ()
        if "position_ids" not in str(name)
    ]
    if wrong:
        raise WeightsError(
            f"{checkpoint} does not fit its own configuration: {', '.join(wrong[:4])}"
            f"{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}; weights would be left "
            "random. Download it again"
        )
    return wrap(model.to(_device(device)).eval(), processor, stage, {"checkpoint": checkpoint})


def wrap(
    model: Any, processor: Any, stage: int | None = None, provenance: dict[str, Any] | None = None
) -> Backbone:
    """A backbone around a ``ClapModel`` that is in memory already, with its processor.

    Raises:
        OptionError: no such stage.
        WeightsError: the processor does not fit the model.
    """
    audio = ClapAudioEncoder(model, processor.feature_extractor, stage)
    text = ClapTextEncoder(model, processor.tokenizer)
    details = {
        **(provenance or {}),
        "fusion": audio.fusion,
        "stage": audio.stage,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    return Backbone({"audio": audio, "text": text}, "clap", details)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # each backend raises its own kind
        raise OptionError(
            f"device {name!r} cannot be used here; accepted: 'cpu', and 'cuda' where torch finds "
            "a GPU"
        ) from error
    return device
