"""Whether ``torch.compile`` would pay behind the explained layer.

``python -m examples.compiled_suffix [--device cuda]`` takes CLIP ViT-B/32 with random weights at
its default layer, on one thread: the embedding of some rows of tokens and the gradient of a cosine
by them, as an explanation runs them and compiled, with 10 rows, as ``m2ib`` puts into a call, and
with 64. It prints CPU seconds of a call (median of some), those of compiling it, compilers of C++
included and nothing kept from before, and the largest difference of the gradient, as a share of its
largest number. On a card a call's seconds are by the clock, and it is compiled with CUDA graphs
too, with 640 rows as well. Needs a compiler of C++; takes minutes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.benchmark.subjects import pair, random_clip
from mmattrib.benchmark.watch import synchronise
from mmattrib.models.blocks import first_of
from mmattrib.models.encoder import EncoderInputs
from mmattrib.preparing import prepare

ROWS, CALLS = (10, 64), 7
ON_A_CARD = (*ROWS, 640)
WAYS = {"plainly": "default", "with CUDA graphs": "reduce-overhead"}


def spent() -> float:
    """CPU seconds of this process and of those that it waited for."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def gradient(suffix: Callable[[Tensor], Tensor], tokens: Tensor, goal: Tensor) -> Tensor:
    """Of the cosine with a goal by the tokens."""
    leaf = tokens.detach().requires_grad_()
    return torch.autograd.grad((suffix(leaf) @ goal).sum(), leaf)[0]


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of a call, once some have run: CUDA graphs are made at the second."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    found = []
    for _ in range(3):
        call()
    for _ in range(CALLS):
        synchronise(device)
        start = clock()
        call()
        synchronise(device)
        found.append(clock() - start)
    return median(found)


def compiled(encoder: Any, rows: EncoderInputs, mode: str) -> Callable[[Tensor], Tensor]:
    """The suffix behind the default layer as a function of tokens alone, for these rows."""
    args, kwargs = encoder.block_call(rows)
    index = encoder.pooled_index(rows)
    whole = encoder.blocks[encoder.default_layer + 1 : -1]

    def plain(tokens: Tensor) -> Tensor:
        readable = encoder.readable(rows, index, tokens.shape[1])
        for block in whole:
            tokens = first_of(block(tokens, *args, **kwargs))
        pooled = encoder.to_joint(encoder.last.at(tokens, index, readable))
        return nnf.normalize(pooled.float(), dim=-1)

    found: Callable[[Tensor], Tensor] = torch.compile(plain, fullgraph=True, mode=mode)
    return found


def row(encoder: Any, inputs: EncoderInputs, count: int, way: str) -> str:
    """A line of the table."""
    rows, layer = inputs.select([0] * count), encoder.default_layer
    generator = torch.Generator("cpu").manual_seed(0)
    with encoder.frozen(), torch.no_grad():
        tokens = encoder.prefix(inputs, layer).expand(count, -1, -1)
        noise = torch.randn(tokens.shape, generator=generator, dtype=torch.float32, device="cpu")
        goal = encoder.embed(inputs)[0].flip(0)
    tokens = tokens + 0.1 * noise.to(tokens.device)
    with encoder.frozen():

        def eager() -> Tensor:
            return gradient(lambda x: encoder.suffix(x, layer, rows), tokens, goal)

        expected, usual = eager(), seconds(eager, tokens.device)
    encoder.module.eval().requires_grad_(False)
    torch.compiler.reset()  # else it makes code for any number of rows, when it sees another
    suffix = compiled(encoder, rows, WAYS[way])
    before = spent()
    found = gradient(suffix, tokens, goal).clone()  # a graph writes its next result over it
    one = spent() - before
    quick = seconds(lambda: gradient(suffix, tokens, goal), tokens.device)
    gap = float((found - expected).abs().max() / expected.abs().max())
    told = f"{encoder.modality} | {count} | {way} | {usual:.4f} | {quick:.4f}"
    return f"| {told} | {one:.0f} | {gap:.0e} |"


def main(device: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    backbone = random_clip(device=device)
    inputs = prepare(backbone, pair(backbone)).inputs
    card = device != "cpu"
    print("| side | rows | how | as it runs | compiled | compiling | difference |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for side, encoder in backbone.items():
        for count in ON_A_CARD if card else ROWS:
            for way in list(WAYS)[: 1 + card]:
                print(row(encoder, inputs[side], count, way), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        torch._inductor.config.compile_threads = 1  # in this process, so that all is counted
        main(parser.parse_args().device)
