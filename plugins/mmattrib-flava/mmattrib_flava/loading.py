"""From a checkpoint to a backbone."""

from __future__ import annotations

from mmattrib.models import Backbone, Pretrained
from mmattrib_flava.towers import FlavaImageEncoder, FlavaTextEncoder


def load_checkpoint(checkpoint: str, device: str, dtype: str, revision: str | None) -> Backbone:
    """Load FLAVA; see :func:`mmattrib_flava.load`."""
    found = Pretrained(checkpoint, revision)
    found.config(["flava"], "Name a FLAVA checkpoint, such as facebook/flava-full")
    # Published checkpoints hold pretraining heads too: weights that are left over are no fault.
    model = found.model("FlavaModel", device, dtype, spare=lambda _name: True)
    encoders = {
        "image": FlavaImageEncoder(model, found.part("AutoImageProcessor", "its image processor")),
        "text": FlavaTextEncoder(model, found.part("AutoTokenizer", "its tokenizer")),
    }
    provenance = {"checkpoint": checkpoint, "commit": found.commit, "dtype": dtype}
    return Backbone(encoders, "flava", provenance)
