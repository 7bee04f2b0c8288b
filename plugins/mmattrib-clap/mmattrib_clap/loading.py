"""From a checkpoint to a backbone."""

from __future__ import annotations

from typing import Any

from mmattrib.models import Backbone, Pretrained
from mmattrib_clap.audio import ClapAudioEncoder
from mmattrib_clap.text import ClapTextEncoder


def load_checkpoint(
    checkpoint: str, device: str, dtype: str, revision: str | None, stage: int | None
) -> Backbone:
    """Load CLAP; see :func:`mmattrib_clap.load`."""
    found = Pretrained(checkpoint, revision)
    found.config(["clap"], "Name a CLAP checkpoint, such as laion/clap-htsat-unfused")
    model = found.model("ClapModel", device, dtype)
    processor = found.part("ClapProcessor", "its processor")
    return wrap(model, processor, stage, {"checkpoint": checkpoint, "commit": found.commit})


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
