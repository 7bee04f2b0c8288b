"""From the packages to a backbone."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from mmattrib.errors import OptionError, WeightsError
from mmattrib.models import Backbone, Pretrained, check_state, parse_device, read_state_dict
from mmattrib_conse.classes import class_embeddings
from mmattrib_conse.packages import (
    IMAGE_SHA256,
    INSTALL,
    TEXT_SHA256,
    check_published,
    image_weights,
    text_folder,
)
from mmattrib_conse.towers import SIZES, ClassNames, ImageEncoder, ImageTower, TextEncoder


def load_towers(variant: str, image: str | None, text: str | None, device: str) -> Backbone:
    """Load the two towers and join them; see :func:`mmattrib_conse.load`."""
    if variant not in SIZES:
        raise OptionError(f"variant must be one of {', '.join(SIZES)}, got {variant!r}")
    place = parse_device(device)
    captions, text_hash = text_encoder(text)
    net, image_hash = _network(variant, image)
    names = ClassNames(class_embeddings())
    captions.centre(names.mean)
    encoder = ImageEncoder(ImageTower(net, names).eval(), SIZES[variant])
    encoder.module.to(place)
    captions.module.to(place)
    provenance = {"variant": variant, "image_sha256": image_hash, "text_sha256": text_hash}
    return Backbone({"image": encoder, "text": captions}, "conse", provenance)


def text_encoder(source: str | None) -> tuple[TextEncoder, str]:
    """The text tower, its space not yet centred, and the SHA-256 of its weights."""
    with text_folder(source) as folder:
        published = check_published(folder / "model.safetensors", TEXT_SHA256)
        found = Pretrained(folder)
        found.config(["bert"], "Give all-MiniLM-L6-v2")
        model = found.model("BertModel", spare=lambda name: "position_ids" in name)
        encoder = TextEncoder(model, found.part("AutoTokenizer", "its tokenizer"))
    return encoder, published


def _network(variant: str, source: str | None) -> tuple[Any, str]:
    """EfficientNet-Lite, and the SHA-256 of its weights."""
    try:
        library = importlib.import_module("efficientnet_lite_pytorch")
    except ImportError as error:
        raise WeightsError(
            "the code of the image tower, efficientnet-lite-pytorch, is not installed; run "
            f"`{INSTALL.format(variant=variant)}`"
        ) from error
    path = image_weights(variant) if source is None else Path(source).expanduser()
    published = check_published(path, IMAGE_SHA256[variant])
    state = read_state_dict(path)
    net = library.EfficientNet.from_name(f"efficientnet-{variant}")
    check_state(path, f"EfficientNet-{variant}", net.state_dict(), state)
    net.load_state_dict(state)
    return net.eval(), published
