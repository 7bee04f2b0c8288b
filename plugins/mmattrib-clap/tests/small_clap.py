"""Small CLAPs with random weights, saved as transformers saves them."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmattrib.types import RawAudio

RATE = 8000
CORPUS = ["a dog barks at the red car", "rain on the roof of a house", "two birds sing near a drum"]


@functools.cache
def checkpoint(fusion: bool, published_size: bool = False) -> str:
    """A folder with a model and its processor.

    Args:
        fusion: HTSAT with or without.
        published_size: the published input: 10 s at 48 kHz, 64 mel bins, 4096 tokens; otherwise
            2 s at 8 kHz, 16 mel bins, 256 tokens.
    """
    from transformers import ClapConfig, ClapFeatureExtractor, ClapProcessor, ClapTextConfig

    depths = (1, 1, 2, 1) if published_size else (1, 3, 2)
    size: dict[str, Any] = {"spec_size": 256, "num_mel_bins": 64, "window_size": 8}
    sound: dict[str, Any] = {}
    if not published_size:
        size = {"spec_size": 64, "num_mel_bins": 16, "window_size": 4}
        sound = {
            "feature_size": 16,
            "sampling_rate": RATE,
            "hop_length": 80,
            "max_length_s": 2,
            "fft_window_size": 512,
            "frequency_max": 4000,
        }
    audio = {
        **size,
        "patch_embeds_hidden_size": 8,
        "depths": depths,
        "num_attention_heads": (2,) * len(depths),
        "hidden_size": 8 * 2 ** (len(depths) - 1),
        "enable_fusion": fusion,
        "aff_block_r": 2,
    }
    tokenizer = _tokenizer()
    text = ClapTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=42,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio, projection_dim=16)
    truncation = "fusion" if fusion else "rand_trunc"
    extractor = ClapFeatureExtractor(**sound, truncation=truncation)
    folder = Path(tempfile.mkdtemp(prefix="clap-test-"))
    _model(config).save_pretrained(folder)
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return str(folder)


def _model(config: Any) -> Any:
    """Random weights, as far from nothing as training leaves them."""
    from transformers import ClapModel

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = ClapModel(config).eval()
        for name, value in model.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point():
                value += 0.15 * torch.randn_like(value)
    return model


def _tokenizer() -> Any:
    """RoBERTa's byte-level encoding, trained on three captions."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(CORPUS * 20, vocab_size=400, special_tokens=special)
    folder = tempfile.mkdtemp(prefix="clap-test-tokens-")
    trained.save_model(folder)
    return RobertaTokenizer.from_pretrained(folder, model_max_length=40)


def sound(seconds: float = 2.0, seed: int = 0, rate: int = RATE) -> RawAudio:
    random = np.random.default_rng(seed)
    times = np.arange(int(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * times * (300 + 200 * seed + 100 * times))
    samples = 0.2 * tone + 0.05 * random.normal(size=len(times))
    return RawAudio(samples.astype(np.float32), rate, f"sound {seed}")
