"""Small checkpoints with random weights, written in the libraries' own formats."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmattrib.types import RawImage, RawText

SIDE, PATCH = 32, 8
ODD_SIDE = 35
"""Three pixels are left over behind the last patch, as in SigLIP's so400m-patch14-384."""

_WORDS = "a photo of the small cat dog bird near red green blue house tree and two"
WORDS = _WORDS.split()

CAPTIONS = [
    RawText("a small red cat"),
    RawText("Two DOGS, near the green house"),
    RawText("blue bird"),
]

GRID_CAPTION = RawText("cat near the red house, dog and blue bird")
"""Common words, so that the conformance suite finds others of the same length."""


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def pictures() -> list[RawImage]:
    """Three pictures: a square one, a wide one and a tall one."""
    generator = np.random.default_rng(5)
    shapes = [(64, 64), (64, 96), (112, 72)]
    return [
        RawImage(generator.integers(0, 256, (h, w, 3), dtype=np.uint8), f"{h}x{w}")
        for h, w in shapes
    ]


def _vision(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        **more,
    }


def _text(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        **more,
    }


def byte_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's byte-level BPE: all bytes, some merges, and the two marks at the end."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>")]
    vocabulary += [first + second for first, second in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(vocabulary)}, merges


def clip_tokenizer(longest: int = 40) -> Any:
    from transformers import CLIPTokenizer

    vocabulary, merges = byte_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=longest)


def _unigram_tokenizer(**more: Any) -> Any:
    """A word-piece-like fast tokenizer with Gemma's and XLM-R's marks of white space."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(97, 123)] + list(",.")
    pieces = [*letters, *("▁" + word for word in WORDS), "▁"]
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    vocabulary += [(piece, -2.0 - 1.0 / len(piece)) for piece in pieces]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=40, **marks, **more)


def bert_tokenizer() -> Any:
    from transformers import BertTokenizer

    letters = [chr(code) for code in range(97, 123)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, ",", "."]
    vocabulary += [f"##{letter}" for letter in letters] + WORDS
    numbered = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    return BertTokenizer(vocab=numbered, model_max_length=40)


def _siglip_tokenizer(folder: Path) -> Any:
    """SigLIP's slow sentencepiece tokenizer, trained on a few sentences."""
    import io

    import sentencepiece
    from transformers import SiglipTokenizer

    sentences = [" ".join(WORDS), *(raw.text.lower() for raw in CAPTIONS), "abcdefghijklmnopqrst"]
    sentences = [*sentences * 2, "uvwxyz"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=150,
        hard_vocab_limit=False,
        model_type="bpe",
        minloglevel=2,
        num_threads=1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    path = folder / "spiece.model"
    path.write_bytes(model.getvalue())
    # as published: no attention mask, since the model was trained without one
    return SiglipTokenizer(str(path), model_max_length=32, model_input_names=["input_ids"])


def _images(kind: str) -> Any:
    import transformers

    if kind.startswith("siglip"):
        size = {"height": ODD_SIDE, "width": ODD_SIDE}
        return transformers.SiglipImageProcessor(size=size, resample=2)
    crop = {"height": SIDE, "width": SIDE}
    return transformers.CLIPImageProcessor(size={"shortest_edge": SIDE + 8}, crop_size=crop)


def _clip(_folder: Path, longest: int = 40) -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPModel

    tokenizer = clip_tokenizer(longest)
    ids = {"vocab_size": len(tokenizer), "max_position_embeddings": longest, "pad_token_id": 1}
    text = _text(**ids, bos_token_id=0, eos_token_id=2)
    config = CLIPConfig(text_config=text, vision_config=_vision(), projection_dim=24)
    return CLIPModel(config), tokenizer


def _metaclip(_folder: Path) -> tuple[Any, Any]:
    from transformers import MetaClip2Config, MetaClip2Model

    tokenizer = _unigram_tokenizer()
    text = _text(vocab_size=len(tokenizer), max_position_embeddings=40, eos_token_id=2)
    config = MetaClip2Config(text_config=text, vision_config=_vision(), projection_dim=24)
    return MetaClip2Model(config), tokenizer


def _siglip(folder: Path) -> tuple[Any, Any]:
    from transformers import SiglipConfig, SiglipModel

    tokenizer = _siglip_tokenizer(folder)
    text = _text(vocab_size=len(tokenizer) + 8, max_position_embeddings=32, projection_size=32)
    config = SiglipConfig(text_config=text, vision_config=_vision(image_size=ODD_SIDE))
    return SiglipModel(config), tokenizer


def _siglip_2(_folder: Path) -> tuple[Any, Any]:
    """SigLIP 2 with a fixed resolution: the same model, a fast tokenizer."""
    from transformers import SiglipConfig, SiglipModel

    tokenizer = _unigram_tokenizer(model_input_names=["input_ids"])
    text = _text(vocab_size=len(tokenizer), max_position_embeddings=40, projection_size=32)
    config = SiglipConfig(text_config=text, vision_config=_vision(image_size=ODD_SIDE))
    return SiglipModel(config), tokenizer


def _altclip(_folder: Path) -> tuple[Any, Any]:
    from transformers import AltCLIPConfig, AltCLIPModel

    tokenizer = _unigram_tokenizer()
    text = _text(
        vocab_size=len(tokenizer), max_position_embeddings=42, pad_token_id=1, project_dim=28
    )
    config = AltCLIPConfig(text_config=text, vision_config=_vision(), projection_dim=24)
    return AltCLIPModel(config), tokenizer


def _chinese(_folder: Path) -> tuple[Any, Any]:
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    tokenizer = bert_tokenizer()
    text = _text(vocab_size=len(tokenizer), max_position_embeddings=40)
    config = ChineseCLIPConfig(text_config=text, vision_config=_vision(), projection_dim=24)
    return ChineseCLIPModel(config), tokenizer


FAMILIES: dict[str, Callable[..., tuple[Any, Any]]] = {
    "clip": _clip,
    "metaclip_2": _metaclip,
    "siglip": _siglip,
    "siglip_2": _siglip_2,
    "altclip": _altclip,
    "chinese_clip": _chinese,
}


def write(kind: str, folder: Path, **sizes: int) -> tuple[Path, Any, Any]:
    """Write a checkpoint with ``save_pretrained``; return folder, model and processor."""
    import transformers

    scratch = folder / "scratch"
    target = folder / kind
    scratch.mkdir(exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model, tokenizer = FAMILIES[kind](scratch, **sizes)
        model = model.eval()
        livelier(model)
    images = _images(kind)
    makers = {
        "clip": "CLIPProcessor",
        "metaclip_2": "CLIPProcessor",
        "siglip": "SiglipProcessor",
        "siglip_2": "SiglipProcessor",
        "altclip": "AltCLIPProcessor",
        "chinese_clip": "ChineseCLIPProcessor",
    }
    processor = getattr(transformers, makers[kind])(image_processor=images, tokenizer=tokenizer)
    model.save_pretrained(target)
    processor.save_pretrained(target)
    return target, model, processor


def livelier(model: torch.nn.Module) -> None:
    """Random weights everywhere, norms and biases too, so that a forgotten part shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or "bias" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.dim() >= 2:
                fan = parameter[0].numel() if parameter.dim() > 1 else 1
                scale = 0.5 if "embedding" in name else fan**-0.5
                parameter.copy_(scale * torch.randn_like(parameter))


def read_json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded
