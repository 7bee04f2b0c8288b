"""A backbone in one file: its encoder of pictures, here a small tower with random weights."""

from functools import partial
from typing import Any

from mmattrib import hookimpl


def load(width=64):
    """Make it; called when it is asked for, so that listing it imports no torch."""
    import einops
    import torch
    from torch import nn

    import mmattrib as mm
    from mmattrib.models import EncoderInputs, pixels_to_tensor
    from mmattrib.models.grids import ImageGrid, Layout

    class Pictures(mm.BlockEncoder):
        modality, default_layer = "image", 0

        def __init__(self):  # build your own tower here, and load its weights
            like: Any = {"device": "cpu", "dtype": torch.float32}  # whatever torch's defaults are
            with torch.random.fork_rng(devices=[]):  # the same weights whenever it is loaded
                torch.default_generator.manual_seed(0)
                block = partial(nn.TransformerEncoderLayer, width, 4, batch_first=True, **like)
                self.blocks = [block() for _ in range(3)]
                self.head = nn.Linear(width, 32, **like)
                first = nn.Linear(192, width, **like)
            self.module = nn.Sequential(first, *self.blocks, self.head)

        def preprocess(self, raws):  # 64 x 64 pixels in 8 x 8 patches
            pixels = [pixels_to_tensor(raw, (64, 64), fit="stretch")[0] for raw in raws]
            pattern = "b c (h p) (w q) -> b (h w) (c p q)"
            patches = einops.rearrange(torch.stack(pixels), pattern, p=8, q=8)
            return EncoderInputs({"x": patches.to(self.device)}, tuple(raws))

        def forward(self, inputs):
            return self.module(inputs["x"]).mean(dim=1)

        def project(self, tokens, inputs):
            return self.head(tokens)

        def grid(self, inputs, layer):  # tokens run along rows from the top left
            sizes = [raw.pixels.shape[:2] for raw in inputs.raw]
            return ImageGrid(Layout("h w", "h w", {"h": 8, "w": 8}), sizes)

    return mm.Backbone({"image": Pictures()}, "patches")


@hookimpl
def register_backbones(register):
    """Register it with what it embeds."""
    register("patches", load, summary="8 x 8 patches, random weights", modalities=["image"])
