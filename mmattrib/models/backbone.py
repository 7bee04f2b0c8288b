"""Backbone: the encoders that share one joint space, under one name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmattrib.calibration import Calibration
from mmattrib.errors import EncoderError, InputError, OptionError, brief
from mmattrib.models.encoder import Encoder
from mmattrib.models.fingerprint import digest_of, quick_state, weights_of
from mmattrib.types import JSONValue, Modality


def check_backbone(given: object) -> Backbone:
    """A backbone as it is.

    Raises:
        OptionError: it is none.
    """
    if isinstance(given, Backbone):
        return given
    raise OptionError(
        f"a backbone is what mm.load_backbone('tiny') gives, or mm.Backbone({{'image': encoder, "
        f"'text': encoder}}) around encoders of your own; got {brief(given)}"
    )


class Backbone(Mapping[str, Encoder]):
    """A mapping from modality to :class:`Encoder`; all of them embed into one joint space.

    Wrap your own model with ``mm.Backbone({"image": encoder, "text": encoder})``; registering is
    needed only to ask for it by name.
    """

    def __init__(
        self,
        encoders: Mapping[Modality, Encoder],
        name: str = "custom",
        provenance: Mapping[str, JSONValue] | None = None,
    ) -> None:
        """Pair encoders.

        Args:
            encoders: modality -> encoder.
            name: what provenance calls it.
            provenance: what else to record: checkpoint, revision, licence.

        Raises:
            OptionError: there is no encoder, or one stands under another's modality.
        """
        if not isinstance(encoders, Mapping):
            raise OptionError(
                "a backbone takes a mapping from modality to encoder, got "
                f"{type(encoders).__name__}"
            )
        if not encoders:
            raise OptionError("a backbone needs at least one encoder, got none")
        for modality, encoder in encoders.items():
            embedded = getattr(encoder, "modality", None)
            if embedded != modality:
                raise OptionError(
                    f"the encoder given for {modality!r} ({type(encoder).__name__}) says that it "
                    f"embeds {embedded!r}; put it under that name"
                )
        self.name = name
        self.encoders = dict(encoders)
        self.provenance: dict[str, JSONValue] = dict(provenance or {})
        self._hash: tuple[object, str] | None = None
        self._calibration: Calibration | None = None

    def __getitem__(self, modality: str) -> Encoder:
        try:
            return self.encoders[modality]
        except KeyError:
            raise InputError(
                f"backbone {self.name!r} does not embed {modality}; it embeds "
                f"{', '.join(self.encoders)}. `mmattrib backbones` lists others"
            ) from None

    def __contains__(self, modality: object) -> bool:
        return modality in self.encoders

    def __iter__(self) -> Iterator[str]:
        return iter(self.encoders)

    def __len__(self) -> int:
        return len(self.encoders)

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}: {', '.join(self.encoders)})"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What it embeds."""
        return tuple(self.encoders)

    @property
    def calibration(self) -> Calibration | None:
        """What unrelated pairs look like to this model, or None where nobody measured it.

        Set it to what :func:`mmattrib.load_calibration` read: explanations then say whether their
        two inputs match at all.

        Raises:
            OptionError: on setting one that was made of other weights.
        """
        return self._calibration

    @calibration.setter
    def calibration(self, made: Calibration | None) -> None:
        if made is not None and not isinstance(made, Calibration):
            raise OptionError(
                f"a calibration is what mm.load_calibration(path) reads, got {type(made).__name__}"
            )
        if made is not None and made.weights_sha256 != self.weights_hash():
            raise OptionError(
                f"the calibration is of {made.backbone!r} with weights "
                f"{made.weights_sha256[:12]}, this backbone is {self.name!r} with "
                f"{self.weights_hash()[:12]}; make one of these weights with `mmattrib calibrate`"
            )
        self._calibration = made

    def weights_hash(self) -> str:
        """SHA-256 over every parameter and buffer of every encoder, by name.

        Packed weights of quantised modules and extra state count too. Computed once, and again when
        :func:`mmattrib.models.fingerprint.quick_state` sees a change: always where torch counts it
        or puts another tensor there; where it does not (``parameter.data.mul_(2)``), in tensors of
        up to 1024 numbers, and in larger ones if one of at least as many evenly spaced ones is
        touched.

        Raises:
            EncoderError: a weight that has no numbers to read, such as one on the meta device.
        """
        try:
            weights = [
                weight
                for modality, encoder in self.encoders.items()
                for weight in weights_of(modality, encoder.module)
            ]
            state = quick_state(weights)
            if self._hash is None or self._hash[0] != state:
                self._hash = state, digest_of(weights)
        except (RuntimeError, NotImplementedError) as error:
            said = " ".join(str(error).split())[:200]
            raise EncoderError(
                f"the weights of backbone {self.name!r} cannot be read ({said}); accepted: dense, "
                "sparse or quantised tensors on a device, none of them on `meta` or nested: load "
                "the weights before the model is wrapped"
            ) from error
        return self._hash[1]
