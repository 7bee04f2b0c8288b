"""Whether ``torch.compile`` would pay behind the explained layer, on a processor.

``python -m examples.compiled_suffix`` takes CLIP ViT-B/32 with random weights at its default layer,
on one thread: the embedding of some rows of tokens and the gradient of a cosine by them, as an
explanation runs them and compiled, with 10 rows, as ``m2ib`` puts into a call, and with 64.
It prints CPU seconds of a call (median of some), those of compiling it, compilers of C++ included
and nothing kept from before, and the largest difference of the gradient, as a share of its largest
number. Needs a compiler of C++; takes minutes.
"""

from __future__ import annotations

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
from mmattrib.models.blocks import first_of
from mmattrib.models.encoder import EncoderInputs
from mmattrib.preparing import prepare

ROWS, CALLS = (10, 64), 7


def spent() -> float:
    """CPU seconds of this process and of those that it waited for."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def gradient(suffix: Callable[[Tensor], Tensor], tokens: Tensor, goal: Tensor) -> Tensor:
    """Of the cosine with a goal by the tokens."""
    leaf = tokens.detach().requires_grad_()
    return torch.autograd.grad((suffix(leaf) @ goal).sum(), leaf)[0]


def seconds(call: Callable[[], object]) -> float:
    """Of a call, once one has run."""
    call()
    found = []
    for _ in range(CALLS):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return median(found)


def compiled(encoder: Any, rows: EncoderInputs) -> Callable[[Tensor], Tensor]:
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

    found: Callable[[Tensor], Tensor] = torch.compile(plain, fullgraph=True)
    return found


def row(encoder: Any, inputs: EncoderInputs, count: int) -> str:
    """A line of the table."""
    rows, layer = inputs.select([0] * count), encoder.default_layer
    generator = torch.Generator("cpu").manual_seed(0)
    with encoder.frozen(), torch.no_grad():
        tokens = encoder.prefix(inputs, layer).expand(count, -1, -1)
        noise = torch.randn(tokens.shape, generator=generator, dtype=torch.float32, device="cpu")
        goal = encoder.embed(inputs)[0].flip(0)
    tokens = tokens + 0.1 * noise
    with encoder.frozen():

        def eager() -> Tensor:
            return gradient(lambda x: encoder.suffix(x, layer, rows), tokens, goal)

        expected, usual = eager(), seconds(eager)
    encoder.module.eval().requires_grad_(False)
    torch.compiler.reset()  # else it makes code for any number of rows, when it sees another
    suffix = compiled(encoder, rows)
    before = spent()
    found = gradient(suffix, tokens, goal)
    one = spent() - before
    quick = seconds(lambda: gradient(suffix, tokens, goal))
    gap = float((found - expected).abs().max() / expected.abs().max())
    return f"| {encoder.modality} | {count} | {usual:.3f} | {quick:.3f} | {one:.0f} | {gap:.0e} |"


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    backbone = random_clip()
    inputs = prepare(backbone, pair(backbone)).inputs
    print("| side | rows | as it runs | compiled | compiling | difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for side, encoder in backbone.items():
        for count in ROWS:
            print(row(encoder, inputs[side], count), flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        torch._inductor.config.compile_threads = 1  # in this process, so that all is counted
        main()
