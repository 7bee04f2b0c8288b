"""One pass of an input through its tower, and what is kept of it for everybody who asks."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmattrib.errors import check_whole, repr_of
from mmattrib.io.hashing import content_hash
from mmattrib.models.capabilities import INPUT_LAYER
from mmattrib.models.fingerprint import tower_state

if TYPE_CHECKING:
    from mmattrib.engine.together import Together
    from mmattrib.models.encoder import Encoder, EncoderInputs, TokenEmbeddings

KEPT_BYTES, KEPT_PASSES = 128 * 2**20, 256
"""What a :class:`PassKeep` holds at most, unless told: some chunks of an evaluation's samples."""


@dataclass
class Pass:
    """What a pass through a tower gave.

    Attributes:
        embedding: ``(B, D)``, as :meth:`Encoder.embed` gives it; None until it was asked for.
        tokens: layer -> ``(B, N, C)``, as :meth:`Encoder.prefix` gives them.
        captured: layer -> what :meth:`BlockEncoder.prefix` takes, while it is :func:`held`, in
            place of a pass; more layers than ``tokens``.
        joint: as :meth:`Encoder.token_embeddings` gives them; None until they were asked for.
    """

    embedding: Tensor | None = None
    tokens: dict[int, Tensor] = field(default_factory=dict)
    captured: dict[int, Tensor] = field(default_factory=dict)
    joint: TokenEmbeddings | None = None

    __repr__ = repr_of()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors behind it; what two of them share counts once."""
        every = [*self.tokens.values(), *self.captured.values()]
        every += [] if self.embedding is None else [self.embedding]
        every += [] if self.joint is None else [self.joint.values, self.joint.valid]
        storages = ((t.device, t.untyped_storage()) for t in every)
        sizes = {(device, s.data_ptr()): s.nbytes() for device, s in storages}
        return sum(sizes.values())


class _Held(threading.local):
    """In each thread: (tower, inputs) -> layer -> captured."""

    def __init__(self) -> None:
        self.captured: dict[tuple[int, int], Mapping[int, Tensor]] = {}


_held = _Held()


@contextmanager
def held(
    module: nn.Module, inputs: EncoderInputs, captured: Mapping[int, Tensor]
) -> Iterator[None]:
    """Let prefixes of these very inputs take what was captured, in this thread, for a while.

    Args:
        module: the tower.
        inputs: the object itself: prefixes of another one run, equal tensors or not.
        captured: layer -> what a block gave.
    """
    key = (id(module), id(inputs))
    before = _held.captured.get(key, {})
    _held.captured[key] = captured
    try:
        yield
    finally:
        _held.captured[key] = before
        if not before:
            del _held.captured[key]


def captured_at(module: nn.Module, inputs: EncoderInputs, layer: int) -> Tensor | None:
    """What is held of these inputs at a layer."""
    return _held.captured.get((id(module), id(inputs)), {}).get(layer)


class Passes:
    """What is known of each input of a batch.

    Each runs by itself, unless the caller lets them go together: a tower's sums round differently
    in another batch size, and a map must not depend on the batch. One pass gives the embedding and
    the tokens of the explained layer, and, where the encoder is a :class:`BlockEncoder`, what token
    embeddings are made of. Nothing runs before somebody asks; tokens that are asked for without the
    embedding end at their layer. The caller is within ``encoder.frozen()``; no result is to be
    changed in place.
    """

    def __init__(
        self,
        encoder: Encoder,
        inputs: EncoderInputs,
        layer: int,
        keep: PassKeep | None = None,
        *,
        together: Together | None = None,
    ) -> None:
        """Take a batch.

        Args:
            encoder: of its modality.
            inputs: B preprocessed inputs.
            layer: the explained one.
            keep: where passes are looked for, and put.
            together: how many inputs go into one call; each by itself if None.
        """
        self.encoder, self.inputs, self.layer = encoder, inputs, layer
        rows = range(len(inputs))
        self._ones = [inputs if len(rows) == 1 else inputs.select([row]) for row in rows]
        self._keep, self._together = keep, together
        self._runs: list[tuple[list[int], EncoderInputs, Mapping[int, Tensor]]] = []
        self._keys = [None] * len(rows) if keep is None else keep.keys(encoder, self._ones)
        self._found: list[Pass | None] = [None] * len(rows)
        self._batched: dict[Hashable, tuple[Tensor, ...]] = {}

    def by(self, encoder: Encoder) -> Passes:
        """The same passes for :meth:`Encoder.replaying`: its tokens in the joint space are others.

        Nothing more is kept of them.
        """
        made = Passes(encoder, self.inputs, self.layer, together=self._together)
        made._ones = self._ones
        made._found = [
            None if one is None else Pass(one.embedding, dict(one.tokens), dict(one.captured))
            for one in self._found
        ]
        return made

    def embeddings(self) -> Tensor:
        """``(B, D)``, L2-normalised."""
        self._run_together()
        return self._each("embedding", lambda row: (self._embedding(row),))[0]

    def tokens(self, layer: int) -> Tensor:
        """``(B, N, C)`` of a layer."""
        return self._each(layer, lambda row: (self._tokens(row, layer),))[0]

    def behind(self) -> Tensor:
        """``(B, D)``: what the suffix gives for the tokens of the explained layer, untouched."""
        if self._together is None or self.layer == INPUT_LAYER:
            return self._each("behind", lambda row: (self._behind(row),))[0]
        if "behind" not in self._batched:
            tokens, layer = self.tokens(self.layer), self.layer

            def some(pairs: Tensor, _rows: int) -> Tensor:
                return self.encoder.suffix(tokens[pairs], layer, self.inputs.select(pairs))

            kind = ("behind", tokens.shape[1:])
            with torch.no_grad():
                parts = list(self._together.over(len(tokens), some, kind=kind))
            self._batched["behind"] = (torch.cat(parts),)
        return self._batched["behind"][0]

    def token_embeddings(self) -> tuple[Tensor, Tensor]:
        """Tokens in the joint space, ``(B, N, D)``, and which may be attended to, ``(B, N)``.

        Warns:
            TrustWarning: as :meth:`Encoder.sure_token_embeddings`.
        """
        self._join_together()
        values, valid = self._each("joint", self._joint)
        return values, valid

    def _each(
        self, what: Hashable, make: Callable[[int], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        if what not in self._batched:
            with torch.no_grad():
                rows = [make(row) for row in range(len(self._ones))]
            self._batched[what] = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
        return self._batched[what]

    def _run_together(self) -> None:
        """Passes of the inputs that have none, several in one call where they may."""
        if self._together is None or self._together.most == 1 or "embedding" in self._batched:
            return
        rows = [row for row in range(len(self._ones)) if self._pass(row).embedding is None]
        layers = self._layers() or (() if self.layer == INPUT_LAYER else (self.layer,))

        def some(pairs: Tensor, _rows: int) -> tuple[list[int], EncoderInputs, Pass]:
            own = [rows[pair] for pair in pairs.tolist()]
            inputs = self.inputs.select(own)
            return own, inputs, self.encoder.one_pass(inputs, layers)

        kind = ("pass", self.encoder.modality, self.inputs.shapes)
        with torch.no_grad():
            for own, inputs, made in self._together.over(len(rows), some, kind=kind):
                self._runs.append((own, inputs, made.captured))
                assert made.embedding is not None
                for at, row in enumerate(own):
                    known, one = self._pass(row), slice(at, at + 1)
                    known.embedding = made.embedding[one].clone()
                    found = {layer: value[one].clone() for layer, value in made.tokens.items()}
                    known.tokens = {**found, **known.tokens}
                    self._put(row)

    def _join_together(self) -> None:
        """Token embeddings of inputs that ran together, of what their blocks gave.

        Behind the layers where the model's own way is certain; elsewhere each input is looked at.
        """
        runs, self._runs = self._runs, []
        if not -1 <= self.layer < self.encoder.num_layers - 1:
            return
        with torch.no_grad():
            for own, inputs, captured in runs:
                with held(self.encoder.module, inputs, captured):
                    made = self.encoder.token_embeddings(inputs)
                for at, row in enumerate(own):
                    one = slice(at, at + 1)
                    joint = replace(made, values=made.values[one].clone(), valid=made.valid[one])
                    self._pass(row).joint = joint
                    self._put(row)

    def _pass(self, row: int) -> Pass:
        found = self._found[row]
        if found is None and self._keep is not None:
            found = self._keep.get(self._keys[row])
        if found is None:
            found = Pass()
        self._found[row] = found
        return found

    def _embedding(self, row: int) -> Tensor:
        known = self._pass(row)
        if known.embedding is None:
            made = self.encoder.one_pass(self._ones[row], self._layers())
            known.embedding = made.embedding
            known.tokens = {**made.tokens, **known.tokens}
            known.captured = {**made.captured, **known.captured}
            self._put(row)
        assert known.embedding is not None
        return known.embedding

    def _layers(self) -> tuple[int, ...]:
        """Of which layers to ask for tokens beside the embedding: of none where each is a pass.

        The preprocessed input needs no pass, but for captions it is the embedding output.
        """
        from mmattrib.models.encoder import Encoder

        if type(self.encoder).one_pass is Encoder.one_pass:
            return ()
        if self.layer == INPUT_LAYER:
            return (-1,) if self.encoder.input_name is None else ()
        return (self.layer,)

    def _tokens(self, row: int, layer: int) -> Tensor:
        known = self._pass(row)
        if layer not in known.tokens:
            with self._holding(row):
                known.tokens[layer] = self.encoder.prefix(self._ones[row], layer)
            self._put(row)
        return known.tokens[layer]

    def _behind(self, row: int) -> Tensor:
        encoder, one, layer = self.encoder, self._ones[row], self.layer
        tokens = self._tokens(row, layer)
        if layer == INPUT_LAYER and encoder.lays_back(tokens, one):
            return self._embedding(row)  # the tower would be given what it was given
        return encoder.suffix(tokens.clone(), layer, one)  # blocks may work in place

    def _joint(self, row: int) -> tuple[Tensor, Tensor]:
        known = self._pass(row)
        if known.joint is None:
            with self._holding(row):
                known.joint = self.encoder.sure_token_embeddings(
                    self._ones[row], self.layer, known.embedding
                )
            self._put(row)
        return known.joint.values, known.joint.valid

    def _holding(self, row: int) -> AbstractContextManager[None]:
        return held(self.encoder.module, self._ones[row], self._pass(row).captured)

    def _put(self, row: int) -> None:
        if self._keep is not None:
            self._keep.put(self._keys[row], self._pass(row))


Key = tuple[int, str, str]


class PassKeep:
    """Passes of the inputs that were seen last, for other methods, metrics and pairs.

    A pass is found again for an equal input of the same encoder, as long as its tower is as it was
    (:func:`mmattrib.models.fingerprint.tower_state`); one with hooks or patched parts, or whose
    state cannot be told whole, is always run. A copy in another process starts empty.
    """

    def __init__(self, limit: int = KEPT_BYTES, most: int = KEPT_PASSES) -> None:
        """Make an empty one.

        Args:
            limit: most bytes of tensors; those that were used longest ago go first. One pass that
                is larger is not kept.
            most: most passes, however small.

        Raises:
            OptionError: a limit below 0.
        """
        self.limit = check_whole(limit, "limit", 0, 2**50)
        self.most = check_whole(most, "most", 0)
        self._passes: OrderedDict[Key, tuple[Pass, int]] = OrderedDict()
        self._encoders: dict[int, weakref.ref[Encoder]] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._passes)

    def __reduce__(self) -> tuple[type[PassKeep], tuple[int, int]]:
        return PassKeep, (self.limit, self.most)

    def keys(self, encoder: Encoder, ones: list[EncoderInputs]) -> list[Key | None]:
        """Under what each input's pass stands at this moment; None where it cannot be kept."""
        own = vars(encoder).get("guard", encoder)
        state = tower_state(own)
        if state is None or not self.limit:
            return [None] * len(ones)
        known = self._encoders.get(id(own))
        if known is None or known() is not own:  # its number may have been another's
            self._drop(id(own))
            self._encoders[id(own)] = weakref.ref(own)
        return [(id(own), state, _inputs_hash(one)) for one in ones]

    def get(self, key: Key | None) -> Pass | None:
        """What is kept under a key."""
        if key is None or key not in self._passes:
            return None
        self._passes.move_to_end(key)
        return self._passes[key][0]

    def put(self, key: Key | None, found: Pass) -> None:
        """Keep a pass, or count again what one has grown to."""
        if key is None:
            return
        self.nbytes -= self._passes.pop(key, (found, 0))[1]
        size = found.nbytes
        if size > self.limit:
            return
        self._passes[key] = found, size
        self.nbytes += size
        while self.nbytes > self.limit or len(self) > self.most:
            self.nbytes -= self._passes.popitem(last=False)[1][1]

    def _drop(self, number: int) -> None:
        for key in [key for key in self._passes if key[0] == number]:
            self.nbytes -= self._passes.pop(key)[1]


def _inputs_hash(one: EncoderInputs) -> str:
    """Of everything that a tower and a grid read of an input."""
    digest = hashlib.sha256(content_hash(one.raw[0]).encode())
    for name in sorted(one.tensors):
        value = one[name].detach()
        facts = (name, value.dtype, value.device, tuple(value.shape), value.stride())
        digest.update(repr(facts).encode())
        flat = value.cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
