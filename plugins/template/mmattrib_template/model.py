import einops
import torch
from torch import nn

import mmattrib as mm
from mmattrib.models import EncoderInputs, pixels_to_tensor
from mmattrib.models.grids import ImageGrid, Layout


class ImageEncoder(mm.BlockEncoder):
    modality, default_layer = "image", 0

    def __init__(self, width):  # a model of patches, as yours may be; load its weights here
        self.blocks = [nn.TransformerEncoderLayer(width, 4, batch_first=True) for _ in range(3)]
        self.module = nn.Sequential(nn.Linear(192, width), *self.blocks, nn.Linear(width, 32))

    def preprocess(self, raws):  # 64 x 64 pixels in 8 x 8 patches
        pixels = torch.stack([pixels_to_tensor(raw, (64, 64), fit="stretch")[0] for raw in raws])
        x = einops.rearrange(pixels, "b c (h p) (w q) -> b (h w) (c p q)", p=8, q=8)
        return EncoderInputs({"x": x.to(self.device)}, tuple(raws))

    def forward(self, inputs):
        return self.module(inputs["x"]).mean(dim=1)

    def project(self, tokens, inputs):
        return self.module[-1](tokens)

    def grid(self, inputs, layer):  # tokens run along rows from the top left
        sizes = [raw.pixels.shape[:2] for raw in inputs.raw]
        return ImageGrid(Layout("h w", "h w", {"h": 8, "w": 8}), sizes)
