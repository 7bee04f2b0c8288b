"""`clip`: what a user's own model does is what is explained, its attention included."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from clip_folders import Written

import mmattrib as mm
from mmattrib.backbones.clip import load, wrap
from mmattrib.errors import (
    EncoderError,
    OptionError,
    TrustWarning,
    UnknownNameError,
    WeightsError,
)
from mmattrib.models import BlockEncoder, CaptionTokenizer
from mmattrib.plugins.loading import load_plugins, using_plugins

# Random weights need not give maps worth trusting; that is not what is tested here.
pytestmark = [
    pytest.mark.usefixtures("quiet_transformers"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
]


@pytest.mark.parametrize("kind", ["clip", "siglip", "altclip"])
def test_attention_is_what_the_library_shows(kind: str, written: Written) -> None:
    """With fused attention, against the same model that shows its weights."""
    from transformers import AutoModel

    folder, model, processor = written(kind)
    eager = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    assert model.config._attn_implementation == "sdpa"
    backbone = mm.wrap(model, processor)
    samples = {"image": checkpoints.pictures()[:2], "text": checkpoints.CAPTIONS[:2]}
    for modality, raws in samples.items():
        encoder: Any = backbone[modality]
        with encoder.frozen(), torch.no_grad():
            inputs = encoder.preprocess(raws)
            tower = eager.vision_model if modality == "image" else eager.text_model
            given = (
                {"pixel_values": inputs["pixels"]}
                if modality == "image"
                else {"input_ids": inputs["ids"]}
            )
            if kind == "altclip" and modality == "text":
                given["attention_mask"] = inputs["real"].long()
            theirs = tower(**given, output_attentions=True).attentions
            found = encoder.embed_with_attention(inputs)
        assert len(theirs) == len(found.weights) == encoder.num_layers
        for mine, other in zip(found.weights, theirs, strict=True):
            torch.testing.assert_close(mine.detach(), other, rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------- a user's own model


@pytest.mark.parametrize("side", ["image", "text"])
def test_a_hook_on_the_last_attention_counts(side: str, written: Written) -> None:
    """Its quick way does not call the attention; the map is that of the hooked model."""
    _, model, processor = written("clip")
    backbone = wrap(model, processor)
    picture, caption = checkpoints.pictures()[0], checkpoints.CAPTIONS[0]
    pair: dict[str, Any] = {"image": picture, "text": caption, "method": "nib", "steps": 2}
    plain = mm.attribute(backbone, **pair)
    encoder: Any = backbone[side]
    attention = encoder.blocks[-1].self_attn
    handle = attention.register_forward_hook(lambda _m, _a, out: (2 * out[0].flip(1), *out[1:]))
    with pytest.warns(TrustWarning, match=f"the {side} encoder"):
        hooked = mm.attribute(backbone, **pair)
    handle.remove()
    assert abs(hooked.similarity - plain.similarity) > 1e-3
    assert not np.allclose(hooked[side].token_scores, plain[side].token_scores, atol=1e-4)
    # The integral of the slopes, by hand, on the model as it is.
    handle = attention.register_forward_hook(lambda _m, _a, out: (2 * out[0].flip(1), *out[1:]))
    general = BlockEncoder.suffix
    inputs = encoder.preprocess([picture if side == "image" else caption])
    other = backbone["text" if side == "image" else "image"]
    guide = other.embed(other.preprocess([caption if side == "image" else picture])).detach()
    tokens = encoder.prefix(inputs, encoder.default_layer).detach()
    total = torch.zeros_like(tokens)
    for step in (1, 2):
        leaf = (step / 2 * tokens).requires_grad_(True)
        cosine = (general(encoder, leaf, encoder.default_layer, inputs) * guide).sum()
        total += torch.autograd.grad(cosine, leaf)[0] / 2
    handle.remove()
    expected = (tokens * total).sum(-1)[0]
    found = torch.from_numpy(hooked[side].token_scores.copy())
    known = ~found.isnan()
    torch.testing.assert_close(found[known], expected[known], rtol=1e-3, atol=1e-5)


def test_a_model_that_gives_tuples_says_why(written: Written, tmp_path: Path) -> None:
    _, _, processor = written("clip")
    model = type(written("clip")[1]).from_pretrained(written("clip")[0])
    model.config.return_dict = False
    for part in (model.config.text_config, model.config.vision_config):
        part.return_dict = False
    backbone = wrap(model, processor)
    with pytest.raises(EncoderError, match=r"return_dict=False\? Set model.config.return_dict"):
        backbone["image"].embed(backbone["image"].preprocess(checkpoints.pictures()[:1]))


def test_models_of_others_are_shown_their_way() -> None:
    from transformers import ClapModel, FlavaModel

    for kind, way in ((ClapModel, "mmattrib_clap.wrap"), (FlavaModel, "mmattrib-flava")):
        with torch.device("meta"):
            model = kind(kind.config_class())
        with pytest.raises(OptionError, match=f"cannot wrap {kind.__name__}.*{way}"):
            wrap(model)


def test_a_model_without_its_processor_is_told_what_it_needs(written: Written) -> None:
    with pytest.raises(OptionError, match=r"needs the processor .*AutoProcessor"):
        wrap(written("clip")[1])


def test_a_plugin_that_is_not_installed_is_named() -> None:
    with (
        using_plugins(load_plugins(entry_points=())),
        pytest.raises(UnknownNameError, match=r"a clone .* pip install \./plugins/mmattrib-clap"),
    ):
        mm.load_backbone("clap")


def test_a_doubled_vocabulary_is_refused() -> None:
    tokenizer: Any = checkpoints.clip_tokenizer()
    known = tokenizer.get_vocab()

    class Doubled(type(tokenizer)):  # type: ignore[misc]
        def get_vocab(self) -> dict[str, int]:
            return {**known, "again": known["cat</w>"]}

    tokenizer.__class__ = Doubled
    with pytest.raises(WeightsError, match=f"gives {len(known) + 1} tokens {len(known)} ids"):
        CaptionTokenizer(tokenizer, 20)


def test_threads_that_share_a_tokenizer_get_the_maps_of_one_alone(clip: mm.Backbone) -> None:
    pairs = [
        {"image": picture, "text": caption}
        for picture, caption in zip(checkpoints.pictures(), checkpoints.CAPTIONS, strict=True)
    ]

    def explain(pair: dict[str, Any]) -> list[Any]:
        found = mm.attribute(clip, **pair, method="nib", steps=2)
        return [side.token_scores for side in found.values()]

    alone = [explain(pair) for pair in pairs]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(explain, pairs * 2))
    for number, found in enumerate(together):
        for got, expected in zip(found, alone[number % len(pairs)], strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("part", ["v_proj", "self"])
def test_token_embeddings_see_a_hook_on_the_last_attention(clip: mm.Backbone, part: str) -> None:
    """On its value projection the value path runs through it; around it the whole tower is run."""
    encoder: Any = clip["image"]
    attention = encoder.blocks[-1].self_attn
    hooked = attention.v_proj if part == "v_proj" else attention

    def turn(_module: Any, _args: Any, out: Any) -> Any:
        changed = -(out[0] if isinstance(out, tuple) else out)
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    with encoder.frozen(), torch.no_grad():
        inputs = encoder.preprocess(checkpoints.pictures()[:1])
        before = encoder.token_embeddings(inputs).values
        handle = hooked.register_forward_hook(turn)
        try:
            after = encoder.checked(inputs, 0).token_embeddings(inputs).values
        finally:
            handle.remove()
    assert not torch.allclose(after, before, atol=1e-2)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_padding_id_is_the_tokenizers_even_where_padding_counts(
    kind: str, written: Written
) -> None:
    from mmattrib.perturb.tokens import keep_tokens

    text = load(str(written(kind)[0]))["text"]
    assert text.pad_id == written(kind)[2].tokenizer.pad_token_id
    with text.frozen(), torch.no_grad():
        inputs = text.preprocess(checkpoints.CAPTIONS[:1])
        content = text.grid(inputs, -1).content
        gone = keep_tokens(text, inputs, torch.zeros(content.shape), fill="pad")
        ids = inputs["ids"].masked_fill(content, text.pad_id)
        put_in = text.prefix(inputs.with_tensor("ids", ids), -1)
        torch.testing.assert_close(gone, text.suffix(put_in, -1, inputs))
