"""BlockEncoder: an encoder derived from a tower's list of blocks, by hooks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import EncoderError
from mmattrib.models.attention import AttentionPass, pass_of, recording
from mmattrib.models.capabilities import ATTENTION, INPUT_LAYER, require
from mmattrib.models.encoder import Encoder, EncoderInputs, TokenEmbeddings
from mmattrib.models.gradients import watching
from mmattrib.models.passes import Pass, captured_at, held
from mmattrib.models.rounding import agrees
from mmattrib.models.turns import in_this_thread, turn, uncompiled


class _ReachedError(Exception):
    """Ends a forward pass once the layer asked for has been captured."""


class BlockEncoder(Encoder):
    """An encoder derived from a tower's list of blocks, by hooks.

    A subclass gives ``modality``, ``module``, ``blocks``, ``default_layer``, :meth:`preprocess`,
    :meth:`forward`, :meth:`project` and :meth:`grid`. Blocks may return a tensor or a tuple whose
    first element is the tensor. ``suffix`` is then a replay: the whole tower runs again and the
    tokens are put in on the way; override it with a true suffix where speed matters.

    A subclass may name both capabilities of :mod:`mmattrib.models.capabilities`. ``ATTENTION`` then
    needs no code, as long as its blocks attend through torch's own functions or a softmax;
    ``INPUT_GRADIENT`` needs ``input_name``, and a :meth:`grid` that takes layer -2.

    Hooks are added on entry, act in the thread that added them, and only these are removed on
    leaving, after an exception too.
    """

    blocks: Sequence[nn.Module]
    _in_row: tuple[int, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("module", "blocks") and {"module", "blocks"} <= vars(self).keys():
            super().__setattr__("_in_row", _in_row(self.module, self.blocks))

    @abstractmethod
    def forward(self, inputs: EncoderInputs) -> Tensor:
        """``(B, D)`` embeddings from the whole tower; they need not be normalised."""

    @abstractmethod
    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        """``(B, N, D)``: final norm and embedding head on every token of the last block."""

    @property
    def num_layers(self) -> int:
        return len(self.blocks)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self._check_blocks()
        with super().frozen():
            yield

    def _check_blocks(self) -> None:
        """Refuse blocks that the tower no longer has, and others that now stand among them.

        Layers would no longer be what they are called, and the last block no longer the last.
        """
        who = f"the {self.modality} encoder ({type(self).__name__})"
        there = {id(part) for part in self.module.modules()}
        gone = [number for number, block in enumerate(self.blocks) if id(block) not in there]
        if gone:
            raise EncoderError(
                f"block {gone[0]} of {who} is no part of its module any more ({len(gone)} of "
                f"{len(self.blocks)} are not): blocks have been replaced or taken out since it was "
                "wrapped; wrap the model again, and let `module` hold every module of `blocks`"
            )
        now = _in_row(self.module, self.blocks)
        if len(now) != len(self._in_row):  # `blocks` is the tower's own list, or a property
            return
        added = max((n - before for n, before in zip(now, self._in_row, strict=True)), default=0)
        if added > 0:
            raise EncoderError(
                f"{who} was wrapped with {len(self.blocks)} blocks, and {added} more stand among "
                "them now: blocks have been added to its module since; wrap the model again"
            )

    def embed(self, inputs: EncoderInputs) -> Tensor:
        return nnf.normalize(self.forward(inputs).float(), dim=-1)

    def prefix(self, inputs: EncoderInputs, layer: int) -> Tensor:
        if self.check_layer(layer) == INPUT_LAYER:
            return self.input_tokens(inputs)
        known = captured_at(self.module, inputs, layer)
        if known is not None:
            return known.clone()  # project() and other code of a subclass may work in place
        captured: list[Tensor] = []

        def capture(value: Any) -> Any:
            captured.append(self.tokens_from(value))
            raise _ReachedError

        try:
            with self._at(layer, capture):
                self.forward(inputs)
        except _ReachedError:
            pass
        return captured[0]

    def one_pass(self, inputs: EncoderInputs, layers: Sequence[int]) -> Pass:
        """One run of :meth:`embed`, in which hooks on the blocks take what :meth:`prefix` reads.

        What the last two blocks give is taken as well: token embeddings are made of it.
        """
        if _heeds_hooks(self.module):
            return super().one_pass(inputs, layers)
        last = self.num_layers - 1
        wanted = {max(-1, layer) for layer in (*layers, last - 1, last)}
        with self._capturing(wanted) as runs:
            embedding = self.embed(inputs)
        captured = {layer: found[0] for layer, found in runs.items() if len(found) == 1}
        with held(self.module, inputs, captured):
            tokens = {layer: self.prefix(inputs, layer) for layer in layers}
        return Pass(embedding, tokens, captured)

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        if self.check_layer(layer) == INPUT_LAYER:
            return self.embed_input(tokens, inputs)
        with self._at(layer, lambda value: self.with_tokens(value, tokens)):
            return self.embed(inputs)

    def replayed_suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        if layer == INPUT_LAYER and self.input_name is None:
            layer = -1  # where embed_input() puts the tokens, by way of suffix()
        return BlockEncoder.suffix(self, tokens, layer, inputs)

    def replayed_token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        return BlockEncoder.token_embeddings(self, inputs)

    def sure_token_embeddings(
        self, one: EncoderInputs, layer: int, embedding: Tensor | None = None
    ) -> TokenEmbeddings:
        """A quick way leads through the parts of the last block: its suffix is tried as well.

        Behind layers before the last block, that has been seen.
        """
        last = self.num_layers - 1
        quick = type(self).token_embeddings is not BlockEncoder.token_embeddings
        if quick and not -1 <= layer < last:
            (difference,) = self.changed(one, last - 1, embedding=embedding)
            if difference:
                return self.replaying(difference, last - 1).token_embeddings(one)
        return self.token_embeddings(one)

    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        last = self.num_layers - 1
        values = self.project(self.prefix(inputs, last), inputs)
        content = self.grid(inputs, last).content.to(values.device)
        return TokenEmbeddings(nnf.normalize(values.float(), dim=-1), content)

    def embed_with_attention(self, inputs: EncoderInputs) -> AttentionPass:
        require(self, [ATTENTION], "embed_with_attention")
        who = f"the {self.modality} encoder ({type(self).__name__})"

        def tokens_of(given: Any) -> Tensor:
            return self.tokens_from(
                given if not isinstance(given, dict) else given[_tokens_name(given)]
            )

        with turn(), uncompiled(self.module):
            with torch.inference_mode(False), torch.enable_grad():
                with (
                    recording(self.blocks, tokens_of, self.tokens_from) as runs,
                    watching(self.module, who) as ends,
                ):
                    embedding = self.embed(inputs)
                    ends.append(embedding)
                found = pass_of(embedding, runs, len(self.blocks), who)
            with torch.no_grad():
                whole = self.embed(inputs)
        if not agrees(embedding, whole, found.weights[0].dtype):
            difference = float((embedding.detach() - whole).norm(dim=-1).max())
            raise EncoderError(
                f"the pass that keeps attention gives {who} another embedding than embed() "
                f"(they differ by {difference:.3g} of length 1), so its weights are not those of "
                "the model; look for a part that behaves differently from call to call"
            )
        return found

    def tokens_from(self, output: Any) -> Tensor:
        """``(B, N, C)`` tokens of what a block is given or gives.

        Override it, together with :meth:`with_tokens`, for another order of axes.

        Args:
            output: the tensor itself, at every layer; what stands first where a block gives a
                tuple or a list.
        """
        tokens = first_of(output)
        if not isinstance(tokens, Tensor) or tokens.dim() != 3:
            shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            raise EncoderError(
                f"a block of the {self.modality} encoder gave {shape}; accepted: a tensor of shape "
                "(batch, tokens, channels), or a tuple that starts with one"
            )
        return tokens

    def with_tokens(self, output: Any, tokens: Tensor) -> Any:
        """What :meth:`tokens_from` got, with other tokens in it; its inverse."""
        return with_first(output, tokens)

    @contextmanager
    def _capturing(self, layers: Iterable[int]) -> Iterator[dict[int, list[Tensor]]]:
        """Note the tokens at some layers, in this thread, for a while; once for each run.

        Nothing is put in: a block that runs more than once, or not at all, is no error here.
        """
        found: dict[int, list[Tensor]] = {layer: [] for layer in layers}

        def note(layer: int, value: Any) -> None:
            # A copy: blocks may work in place.
            found[layer].append(self.tokens_from(first_of(value)).detach().clone())

        @in_this_thread
        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            note(-1, args[0] if args else kwargs.get(_tokens_name(kwargs)))

        def behind(layer: int) -> Callable[..., None]:
            return in_this_thread(lambda _module, _args, output: note(layer, output))

        with turn(), uncompiled(self.module), ExitStack() as stack:
            for layer in found:
                block = self.blocks[max(0, layer)]
                if layer < 0:
                    handle = block.register_forward_pre_hook(before, with_kwargs=True)
                else:
                    handle = block.register_forward_hook(behind(layer))
                stack.callback(handle.remove)
            yield found

    @contextmanager
    def _at(self, layer: int, change: Callable[[Any], Any]) -> Iterator[None]:
        """Let ``change`` replace the tokens at a layer, in this thread, for a while.

        Raises:
            EncoderError: the block did not run.
        """
        ran = False

        @in_this_thread
        def after(_module: nn.Module, _args: Any, output: Any) -> Any:
            nonlocal ran
            ran = True
            return with_first(output, change(first_of(output)))

        @in_this_thread
        def before(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            nonlocal ran
            ran = True
            if args:
                return (change(args[0]), *args[1:]), kwargs
            name = _tokens_name(kwargs)
            return args, {**kwargs, name: change(kwargs.get(name))}

        with turn(), uncompiled(self.module):
            if layer < 0:
                handle = self.blocks[0].register_forward_pre_hook(before, with_kwargs=True)
            else:
                handle = self.blocks[layer].register_forward_hook(after)
            try:
                yield
            finally:
                handle.remove()
        if not ran:
            raise EncoderError(
                f"block {max(layer, 0)} of the {self.modality} encoder did not run during "
                "forward(); blocks must be the modules that the tower really calls, in order: if "
                "they have been replaced since it was wrapped, wrap the model again"
            )


def _heeds_hooks(module: nn.Module) -> bool:
    """Whether the tower computes otherwise where hooks are: torch's layers leave a quick way."""
    return any(isinstance(part, nn.TransformerEncoderLayer) for part in module.modules())


def _in_row(module: nn.Module, blocks: Sequence[nn.Module]) -> tuple[int, ...]:
    """For each block, how many modules stand in the list or sequence of modules that holds it."""
    if not isinstance(module, nn.Module) or not isinstance(blocks, Iterable):
        return ()  # for the checks of an encoder to say
    found: dict[int, int] = {}
    for part in module.modules():
        if isinstance(part, nn.ModuleList | nn.Sequential | nn.ModuleDict):
            found |= {id(each): len(part) for each in part._modules.values()}
    return tuple(found.get(id(block), 0) for block in blocks)


def first_of(output: Any) -> Any:
    """What stands first in a tuple or a list; anything else as it is."""
    return output[0] if isinstance(output, tuple | list) and output else output


def with_first(output: Any, value: Any) -> Any:
    """``output`` with another value in the place of :func:`first_of`."""
    if isinstance(output, tuple) and hasattr(output, "_make"):  # a named tuple
        return output._make([value, *output[1:]])
    if isinstance(output, tuple | list):
        return type(output)([value, *output[1:]])
    return value


def _tokens_name(kwargs: dict[str, Any]) -> str:
    """Under which name a block got its tokens: the first tensor of three axes, or the first."""
    named = (k for k, v in kwargs.items() if isinstance(v, Tensor) and v.dim() == 3)
    return next(named, next(iter(kwargs), ""))
