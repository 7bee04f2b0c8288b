"""Train a copy of a model: its encoders' parameters by name, and embeddings with gradients.

Everything else of this package explains a model as it is. Retraining needs the other side of an
encoder: which parameters it has, and an ``embed`` through which they are reached. A copy is
trained; the model that it was made of is frozen meanwhile and left as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby

import torch
from torch import Tensor, nn

from mmattrib.errors import EncoderError
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.guard import guarded
from mmattrib.models.rounding import agrees
from mmattrib.models.turns import normal_mode, set_evaluating, turn
from mmattrib.types import Modality

_TRAINED = (torch.float32, torch.float64)


class TrainableCopy:
    """Copies of some encoders of a backbone, to be trained.

    Dropout and running statistics stay as in evaluation mode, so that a step draws nothing.

    Attributes:
        encoders: modality -> the copied encoder.
        parameters: ``"modality.name"`` -> parameter, those that require a gradient in the model;
            one that two encoders share stands under the first.
    """

    def __init__(self, backbone: Backbone, modalities: Sequence[Modality]) -> None:
        """Copy encoders with their weights.

        Args:
            backbone: whose encoders; it is never changed.
            modalities: which of them.

        Raises:
            InputError: the backbone does not embed one of them.
            EncoderError: an encoder cannot be copied, or has no parameter that can be trained.
        """
        self._originals = {modality: backbone[modality] for modality in modalities}
        with ExitStack() as stack:
            stack.enter_context(turn())
            for encoder in self._originals.values():
                stack.enter_context(normal_mode(encoder.module))
            try:
                copies: Mapping[str, Encoder] = copy.deepcopy(self._originals)
            except Exception as error:  # whatever a stranger's model holds may refuse
                raise EncoderError(
                    f"the encoders of {backbone.name!r} cannot be copied "
                    f"({type(error).__name__}: {' '.join(str(error).split())[:200]}), and only a "
                    "copy is trained; make copy.deepcopy(encoder) work"
                ) from error
        self._modules = {modality: encoder.module for modality, encoder in copies.items()}
        self.encoders = {modality: guarded(encoder) for modality, encoder in copies.items()}
        self.parameters = trainable_parameters(copies)
        self._start = trainable_parameters(self._originals)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Evaluation mode with gradients for the copy, none for the model it was made of."""
        with ExitStack() as stack:
            stack.enter_context(turn())
            for encoder in self._originals.values():
                stack.enter_context(encoder.frozen())
            for module in self._modules.values():
                stack.enter_context(normal_mode(module))
                set_evaluating(module)
            stack.enter_context(torch.enable_grad())
            yield

    def reset(self) -> None:
        """Put the model's own weights back into the copy."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self._start[name])

    def embed(self, modality: Modality, rows: Sequence[EncoderInputs]) -> Tensor:
        """``(R, D)`` L2-normalised embeddings of R preprocessed inputs, each a batch of one.

        Those of equal shapes that follow each other go through the tower together.

        Raises:
            EncoderError: no gradient leads from them to a parameter of the copy.
        """
        encoder = self.encoders[modality]
        found = torch.cat(
            [
                encoder.embed(EncoderInputs.cat(list(run)))
                for _, run in groupby(rows, key=lambda row: row.shapes)
            ]
        )
        if torch.is_grad_enabled() and not found.requires_grad:
            raise EncoderError(
                f"the {modality} encoder ({type(encoder).__name__}) gives embeddings that no "
                "gradient leads from to its parameters, so that it cannot be trained: its embed "
                "runs under torch.no_grad() or torch.inference_mode(), detaches its tensors, or "
                "holds on to the model that it was copied from. Let embed() be differentiable; "
                "mmattrib switches gradients off where it wants none"
            )
        return found

    def check(self, modality: Modality, one: EncoderInputs) -> None:
        """Make sure that the copy, before any training, embeds as its model does.

        Raises:
            EncoderError: it does not.
        """
        with torch.no_grad():
            own, copied = self._originals[modality].embed(one), self.embed(modality, [one])
        if not agrees(copied, own, torch.float32):
            raise EncoderError(
                f"the {modality} encoder ({type(self._originals[modality]).__name__}) and its copy "
                "give different embeddings of one input; make copy.deepcopy(encoder) copy all that "
                "it computes with"
            )

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """The gradient of a loss for each parameter that it depends on.

        Taken with ``torch.autograd.grad``, so that no other parameter gets one.

        Raises:
            EncoderError: it depends on none of an encoder's.
        """
        names, parameters = list(self.parameters), list(self.parameters.values())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        reached = {
            name: gradient
            for name, gradient in zip(names, found, strict=True)
            if gradient is not None
        }
        owners = {name.partition(".")[0] for name in reached}
        for modality in {name.partition(".")[0] for name in names} - owners:
            raise EncoderError(
                f"the embeddings of the {modality} encoder "
                f"({type(self._originals[modality]).__name__}) depend on none of the parameters of "
                "its copy: its embed holds on to the model that it was copied from; let it read "
                "its weights from encoder.module"
            )
        return reached


def trainable_parameters(encoders: Mapping[Modality, Encoder]) -> dict[str, nn.Parameter]:
    """The parameters of some encoders that require a gradient, by ``"modality.name"``.

    Raises:
        EncoderError: an encoder has none, or one in half precision, where steps round to nothing.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for modality, encoder in encoders.items():
        own = [(name, p) for name, p in encoder.module.named_parameters() if p.requires_grad]
        if not own:
            raise EncoderError(
                f"the {modality} encoder ({type(encoder).__name__}) has no parameter that requires "
                "a gradient, so that it cannot be trained; call requires_grad_(True) on its module"
            )
        for name, parameter in own:
            if parameter.dtype not in _TRAINED:
                raise EncoderError(
                    f"the weight {name!r} of the {modality} encoder is {parameter.dtype}, in which "
                    "small steps round to nothing; load the model with dtype float32 to train it"
                )
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{modality}.{name}"] = parameter
    return found


def logit_scale(encoders: Mapping[Modality, Encoder]) -> float | None:
    """The factor that a model's contrastive loss puts before cosines; None where it has none.

    The first that an encoder tells (:attr:`mmattrib.Encoder.logit_scale`).
    """
    return next((e.logit_scale for e in encoders.values() if e.logit_scale is not None), None)


def exponential_scale(model: object) -> float | None:
    """``exp(model.logit_scale)``, as CLIP's kin keep it; None where a model has no such weight."""
    weight = getattr(model, "logit_scale", None)
    if not isinstance(weight, Tensor) or weight.numel() != 1:
        return None
    return float(weight.detach().float().exp())
