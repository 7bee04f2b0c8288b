"""What is measured: CLIP ViT-B/32 with random weights, made in memory, and pairs for any model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmattrib.errors import MissingExtraError, OptionError
from mmattrib.models.backbone import Backbone

CAPTION = "a small red bird on the roof of an old stone house"
"""14 tokens of CLIP, its two marks included."""

_HEIGHT, _WIDTH, _RATE, _SECONDS = 480, 640, 16_000, 4.0
_MARKS = ("<|startoftext|>", "<|endoftext|>", "<unk>")


@dataclass(frozen=True)
class _Processor:
    """What :func:`mmattrib.backbones.clip.wrap` asks of a processor."""

    tokenizer: Any
    image_processor: Any


def random_clip(seed: int = 0, device: str = "cpu", **config: Any) -> Backbone:
    """CLIP ViT-B/32 at full size with random weights: no file is read and nothing downloaded.

    Its tokenizer knows the words of :data:`CAPTION`, one token each, as CLIP's own has them.

    Args:
        seed: of the weights.
        device: where to put it.
        **config: of ``transformers.CLIPConfig``, for another size.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            "CLIP ViT-B/32 with random weights is made by transformers, which is not installed: "
            "pip install 'mmattrib[clip]', or give a --backbone of your own"
        ) from error
    import torch

    from mmattrib.backbones.clip import wrap

    made = transformers.CLIPConfig(**config)
    side = made.vision_config.image_size
    image = transformers.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.CLIPModel(made).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero as made; a trained model embeds zero tokens somewhere
                torch.nn.init.normal_(parameter, std=0.02)
        model.to(device)
    tokenizer = _tokenizer(made.text_config.bos_token_id, made.text_config.eos_token_id)
    return wrap(model, _Processor(tokenizer, image), "CLIP ViT-B/32, random weights")


def _tokenizer(start: int, end: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(sorted(set(CAPTION.split())), start=1)}
    inner = Tokenizer(
        models.WordLevel(
            {_MARKS[2]: 0, **words, _MARKS[0]: start, _MARKS[1]: end}, unk_token=_MARKS[2]
        )
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{_MARKS[0]} $A {_MARKS[1]}",
        special_tokens=[(_MARKS[0], start), (_MARKS[1], end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=_MARKS[0],
        eos_token=_MARKS[1],
        pad_token=_MARKS[1],
        unk_token=_MARKS[2],
    )


def caption(words: int, number: int = 0) -> str:
    """A caption of so many words; another one for each number, of the same words."""
    known = CAPTION.split()
    turned = number % len(known)
    known = known[turned:] + known[:turned]
    return " ".join(known[word % len(known)] for word in range(words))


def pair(backbone: Backbone, number: int = 0) -> dict[str, Any]:
    """A pair that the model embeds: a picture or a recording of noise, and a caption.

    Args:
        backbone: whose modalities are looked at: two of image, text and audio.
        number: pairs of other numbers hold other inputs of the same shapes.

    Raises:
        OptionError: it embeds fewer than two of these.
    """
    draw = np.random.default_rng(number)
    makers: dict[str, Callable[[], Any]] = {
        "image": lambda: draw.integers(0, 256, (_HEIGHT, _WIDTH, 3), dtype=np.uint8),
        "text": lambda: caption(len(CAPTION.split()), number),
        "audio": lambda: (
            0.1 * draw.standard_normal(int(_RATE * _SECONDS), dtype=np.float32),
            _RATE,
        ),
    }
    sides = [side for side in makers if side in backbone][:2]
    if len(sides) < 2:
        raise OptionError(
            f"the benchmark makes pictures, captions and recordings; {backbone.name!r} embeds "
            f"{', '.join(backbone.modalities)}, and two of them are needed"
        )
    return {side: makers[side]() for side in sides}
