"""`attribute_many` explains many pairs: read ahead, together or one by one, here or in workers."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, TypeAlias, get_args

from tqdm.auto import tqdm

from mmattrib.errors import (
    InputError,
    MmattribError,
    OptionError,
    TrustWarning,
    brief,
    check_switch,
    check_whole,
    is_one_of,
)
from mmattrib.explain import Explained, Layers, explain
from mmattrib.loading import load_method
from mmattrib.methods import Method
from mmattrib.methods.pace import Pace
from mmattrib.models.backbone import Backbone, check_backbone
from mmattrib.models.passes import PassKeep
from mmattrib.preparing import Prepared, prepare
from mmattrib.samples import Sample
from mmattrib.types import Explanation
from mmattrib.workers import MOST_JOBS, Readable, Tell, Workers

OnError: TypeAlias = Literal["raise", "warn", "return"]

READERS = 2
"""Threads that read ahead for a graphics card, unless another number is asked for."""

MOST_READERS = 64


@dataclass(frozen=True)
class Failure:
    """A pair that could not be explained.

    Attributes:
        index: its place among the pairs that were asked for, counted from 0.
        sample: the id of the sample, if it is one.
        error: why.
    """

    index: int
    sample: str | None
    error: MmattribError

    def __str__(self) -> str:
        called = f"pair {self.index}" + ("" if self.sample is None else f", {self.sample!r}")
        return f"{called}: {self.error}"


def attribute_many(
    backbone: Backbone,
    pairs: Iterable[Mapping[str, Any] | Sample],
    *,
    method: str | Method = "ca-m2ib",
    layer: Layers = None,
    seed: int = 0,
    batch_size: int = 32,
    jobs: int = 1,
    readers: int | None = None,
    deterministic: bool | None = None,
    precision: str = "auto",
    progress: bool = True,
    on_error: OnError = "raise",
    **options: Any,
) -> Iterator[Any]:
    """Explain many pairs; each map is the same as from :func:`attribute`.

    On a processor bit for bit; where pairs go through the model together, but for rounding.

    Args:
        backbone, method, layer, seed, precision: as for :func:`attribute`.
        pairs: mappings of two inputs each, e.g. ``{"image": path, "text": caption}`` or
            ``{"image": path, "image_2": path}``, with an ``"id"`` or without, or
            :class:`mmattrib.Sample` of two inputs, e.g. a data set. Read as they are needed.
        batch_size: pairs among which those of equal shapes go together (captions of as many tokens,
            or of near lengths where the tower masks padding), or that are read ahead at a time.
        jobs: processes to share the pairs, one at a time, each with a copy of the model and one
            thread. A script that starts some needs its calls under ``if __name__ == "__main__":``.
        readers: threads that decode and preprocess the next batch meanwhile; None for 2 where pairs
            go together, else 0. With ``jobs``, each process reads its own.
        deterministic: True: every pair goes through the model by itself. False: pairs go together.
            None: together on a graphics card, one by one on a processor.
        progress: show a progress bar on standard error.
        on_error: a pair that cannot be read or explained: ``"raise"`` ends there; ``"warn"`` names
            it in a warning and leaves it out; ``"return"`` yields a :class:`Failure`.
        **options: the method's own.

    Yields:
        One :class:`Explanation` per pair, in order; ``index`` is its place, ``sample`` its id.

    Raises:
        InputError: with the number of the pair that cannot be read.
        OptionError: an option unknown or out of range; ``jobs`` and a model that is not picklable.
        Exception: the pairs' iterator's own, once the pairs before are explained.
    """
    check_backbone(backbone)
    check_switch(progress, "progress")
    _check_pairs(pairs, batch_size, on_error)
    pace = _check_sharing(jobs, readers, Pace(deterministic, precision))
    work = _Work(backbone, load_method(method, seed, **options), layer, pace)
    total = len(pairs) if isinstance(pairs, Sized) else None
    found = work.shared(pairs, jobs) if jobs > 1 else work.here(pairs, batch_size, readers)
    with tqdm(total=total, unit="pair", disable=not progress) as bar:
        for each in found:
            bar.update()
            if isinstance(each, Explanation) or on_error == "return":
                yield each
            elif on_error == "raise":
                raise type(each.error)(str(each)) from each.error
            else:
                warnings.warn(f"{each}; it is left out", stacklevel=2)


def _check_pairs(pairs: object, batch_size: object, on_error: object) -> None:
    check_whole(batch_size, "batch_size", 1)
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        accepted = "a sequence of mappings such as {'image': path, 'text': caption}, or a data set"
        raise InputError(f"pairs is {accepted}; got {type(pairs).__name__}")
    if not is_one_of(on_error, get_args(OnError)):
        accepted = ", ".join(map(repr, get_args(OnError)))
        raise OptionError(f"on_error must be one of {accepted}, got {brief(on_error)}")


def _check_sharing(jobs: int, readers: int | None, pace: Pace) -> Pace:
    check_whole(jobs, "jobs", 1, MOST_JOBS)
    if readers is not None:
        check_whole(readers, "readers", 0, MOST_READERS)
    if jobs > 1 and readers is not None:
        raise OptionError(
            f"readers={readers} would have no effect beside jobs={jobs}: each process reads its own"
        )
    if jobs > 1 and pace.deterministic is False:
        raise OptionError(
            f"deterministic=False would have no effect beside jobs={jobs}: each process takes one "
            "pair at a time; leave one of the two out"
        )
    return pace


@dataclass(frozen=True)
class _Work:
    """What every pair is explained with."""

    backbone: Backbone
    method: Method
    layer: Layers
    pace: Pace
    keep: PassKeep = field(default_factory=PassKeep)

    def here(
        self, pairs: Iterable[Any], batch_size: int, readers: int | None
    ) -> Iterator[Explanation | Failure]:
        """Every pair in this process."""
        together = takes_together(self.backbone, self.pace)
        count = (READERS if together else 0) if readers is None else readers
        size = batch_size if together or count else 1
        for batch in _batches(self.backbone, enumerate(pairs), size, count):
            found = _explain_prepared(
                self.backbone, batch, self.method, self.layer, self.pace, self.keep
            )
            for each in found:
                yield each.explanation if isinstance(each, Explained) else each

    def shared(self, pairs: Iterable[Any], jobs: int) -> Iterator[Explanation | Failure]:
        """Every pair in one of several processes."""
        workers: Workers[tuple[int, Any], Explanation | Failure]
        workers = Workers(jobs, _explain_in_worker, self)
        for (index, pair), found in workers.run(enumerate(pairs), in_order=True):
            if isinstance(found, MmattribError):
                yield Failure(index, _name_of(pair), found)
                continue
            if isinstance(found, Explanation):
                _warn(found)
            yield found


def _explain_in_worker(
    work: _Work, numbered: tuple[int, Any], _tell: Tell
) -> Explanation | Failure:
    method, layer, pace, keep = work.method, work.layer, work.pace, work.keep
    (found,) = explain_some(work.backbone, [numbered], method, layer, pace, keep)
    return found.explanation if isinstance(found, Explained) else found


def _warn(explanation: Explanation) -> None:
    """The warnings that were given where it was made, in another process."""
    for side, attribution in explanation.items():
        name = explanation.inputs[side].name
        for message in attribution.diagnostics.get("warnings", ()):
            told = f"{attribution.modality} {name!r}: {message}"
            warnings.warn(told, TrustWarning, stacklevel=4)


def _batches(
    backbone: Backbone, numbered: Iterator[tuple[int, Any]], size: int, readers: int
) -> Iterator[list[Prepared | Failure]]:
    """Prepared pairs, so many at a time; with readers the next ones are prepared meanwhile."""
    source = Readable(numbered)
    if not readers:
        while batch := list(islice(source, size)):
            yield [_try(backbone, *each) for each in batch]
        source.check()
        return
    pool = ThreadPoolExecutor(readers, thread_name_prefix="mmattrib-reader")
    waiting: deque[list[Future[Prepared | Failure]]] = deque()

    def read_on() -> None:
        if batch := list(islice(source, size)):
            waiting.append([pool.submit(_try, backbone, *each) for each in batch])

    try:
        read_on()
        while waiting:
            read_on()
            yield [each.result() for each in waiting.popleft()]
        source.check()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def takes_together(backbone: Backbone, pace: Pace) -> bool:
    """Whether pairs go through one of the towers together."""
    return any(pace.takes_together(encoder.device) for encoder in backbone.values())


def explain_some(
    backbone: Backbone,
    batch: Sequence[tuple[int, Any]],
    method: Method,
    layer: Layers,
    pace: Pace | None = None,
    keep: PassKeep | None = None,
) -> Iterator[Explained | Failure]:
    """Every numbered pair of a batch in its order; one that fails takes no other with it.

    Each comes as soon as it is done, where pairs go one by one.
    """
    pace = pace or Pace()
    size = len(batch) if takes_together(backbone, pace) else 1
    for some in _batches(backbone, iter(batch), size, 0):
        yield from _explain_prepared(backbone, some, method, layer, pace, keep)


def _explain_prepared(
    backbone: Backbone,
    prepared: Sequence[Prepared | Failure],
    method: Method,
    layer: Layers,
    pace: Pace,
    keep: PassKeep | None,
) -> Iterator[Explained | Failure]:
    def call(pairs: Sequence[Prepared]) -> list[Explained]:
        return explain(backbone, pairs, method, layer, pace=pace, keep=keep)

    if not takes_together(backbone, pace):
        for each in prepared:
            yield from [each] if isinstance(each, Failure) else _each_or_failure([each], call)
        return
    found: dict[int, Explained | Failure] = {}
    paced: dict[int, Prepared] = {}
    alike: dict[object, list[int]] = {}
    for place, each in enumerate(prepared):
        if isinstance(each, Failure):
            found[place] = each
            continue
        try:
            paced[place] = each.paced(backbone, pace)
        except MmattribError as error:
            found[place] = Failure(int(each.index or 0), each.sample, error)
        else:
            alike.setdefault(paced[place].shapes, []).append(place)
    for places in alike.values():
        group = [paced[place] for place in places]
        found.update(zip(places, _each_or_failure(group, call), strict=True))
    yield from (found[place] for place in range(len(prepared)))


def _each_or_failure(
    pairs: Sequence[Prepared], call: Callable[[Sequence[Prepared]], list[Explained]]
) -> list[Explained | Failure]:
    """Pairs of equal shapes, explained in one go; if that fails, each by itself."""
    try:
        return list(call(pairs))
    except MmattribError as error:
        if len(pairs) == 1:
            return [Failure(int(pairs[0].index or 0), pairs[0].sample, error)]
    return [found for pair in pairs for found in _each_or_failure([pair], call)]


def _name_of(pair: Any) -> str | None:
    """What names a pair that could not be prepared."""
    name = pair.get("id") if isinstance(pair, Mapping) else getattr(pair, "id", None)
    return name if isinstance(name, str) else None


def _try(backbone: Backbone, index: int, pair: Any) -> Prepared | Failure:
    try:
        return prepare(backbone, pair, index)
    except MmattribError as error:
        return Failure(index, _name_of(pair), error)
