"""From a checkpoint to a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmattrib import Backbone
from mmattrib.errors import OptionError, WeightsError
from mmattrib_flava.towers import FlavaImageEncoder, FlavaTextEncoder

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_checkpoint(checkpoint: str, device: str, dtype: str, revision: str | None) -> Backbone:
    """Load FLAVA; see :func:`mmattrib_flava.load`."""
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, FlavaModel

    if dtype not in DTYPES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    options: dict[str, Any] = {"revision": revision} if revision else {}
    if Path(checkpoint).is_dir():
        options["local_files_only"] = True
    try:
        config = AutoConfig.from_pretrained(checkpoint, **options)
        if config.model_type != "flava":
            raise WeightsError(
                f"{checkpoint} is a {config.model_type!r} model; accepted: FLAVA, such as "
                "facebook/flava-full"
            )
        model, info = FlavaModel.from_pretrained(
            checkpoint,
            dtype=DTYPES[dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
        processor = AutoImageProcessor.from_pretrained(checkpoint, **options)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, **options)
    except WeightsError:
        raise
    except Exception as error:  # transformers, the hub and the readers each raise their own
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{checkpoint} cannot be loaded: {reason}. Check the spelling and the network, or "
            "give a folder that save_pretrained wrote, processor included; if it is one, it is "
            "damaged: download it again"
        ) from error
    # Published checkpoints hold pretraining heads too: unexpected weights are no fault.
    wrong = [f"{kind} {k}" for kind in ("missing", "mismatched") for k in info[f"{kind}_keys"]]
    if wrong:
        raise WeightsError(
            f"{checkpoint} does not fit its own configuration: {', '.join(wrong[:4])}"
            f"{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}; weights would be left "
            "random. Download it again"
        )
    model = model.to(_device(device)).eval()
    encoders = {
        "image": FlavaImageEncoder(model, processor),
        "text": FlavaTextEncoder(model, tokenizer),
    }
    return Backbone(encoders, "flava", {"checkpoint": checkpoint, "dtype": dtype})


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
