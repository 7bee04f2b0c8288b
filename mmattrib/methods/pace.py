"""How pairs go through a model: one by one or together, and in which precision.

The one place where both are decided, by the user's word and the device. Importing this module
imports no torch.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mmattrib.errors import OptionError, brief, is_one_of

if TYPE_CHECKING:
    import torch

    from mmattrib.engine.together import Together

PRECISIONS: Final = ("auto", "full", "half")

_HALF_UNITS = (8, 0)
"""CUDA's compute capability from which on bfloat16 has units of its own."""


@dataclass(frozen=True)
class Pace:
    """How pairs go through a model.

    Attributes:
        deterministic: True: every pair goes through the model by itself, so that its map is the
            same bit for bit alone and in any batch. False: pairs of equal shapes go together, as
            many as fit into memory, with captions padded to a multiple of some tokens where their
            tower masks padding; a map then differs by the rounding of its sums. None: together on a
            graphics card, one by one on a processor.
        precision: of what lies behind the explained layer: ``"full"``, the model's own; ``"half"``,
            bfloat16 under ``torch.autocast``, where slopes, masks and capacities stay float32;
            ``"auto"``, half on cards with units for bfloat16 and full elsewhere.
        fits: what is known of memory, see :class:`mmattrib.engine.together.Together`.
    """

    deterministic: bool | None = None
    precision: str = "auto"
    fits: dict[Hashable, int] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.deterministic is not None and not isinstance(self.deterministic, bool):
            raise OptionError(
                f"deterministic must be True or False, or None for what suits the device, got "
                f"{brief(self.deterministic)}"
            )
        if not is_one_of(self.precision, PRECISIONS):
            raise OptionError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {brief(self.precision)}"
            )

    def takes_together(self, device: torch.device) -> bool:
        """Whether pairs go through a model on this device together."""
        return device.type != "cpu" if self.deterministic is None else not self.deterministic

    def together(self, device: torch.device, pairs: int) -> Together:
        """How many of so many pairs go into one call on this device."""
        from mmattrib.engine.together import ALONE, Together

        return Together(pairs, self.fits) if self.takes_together(device) else ALONE

    def half(self, device: torch.device) -> torch.dtype | None:
        """The type in which a suffix computes in place of float32; None where it does not."""
        import torch

        if self.precision == "full":
            return None
        if self.precision == "half":
            return torch.bfloat16
        if device.type != "cuda" or torch.version.hip is not None:
            return None
        able = torch.cuda.get_device_capability(device) >= _HALF_UNITS
        return torch.bfloat16 if able else None

    @contextmanager
    def suffix_precision(self, tokens: torch.Tensor) -> Iterator[None]:
        """Within, a suffix computes in the precision for these tokens: its products alone."""
        import torch

        half = self.half(tokens.device) if tokens.dtype == torch.float32 else None
        with nullcontext() if half is None else torch.autocast(tokens.device.type, dtype=half):
            yield

    def asked(self) -> dict[str, Any]:
        """What was asked for beside the device's own choice, JSON values; empty if nothing."""
        found = {"deterministic": self.deterministic, "precision": self.precision}
        usual = Pace()
        return {name: value for name, value in found.items() if value != getattr(usual, name)}

    def describe(self, devices: Iterable[torch.device]) -> dict[str, Any]:
        """What it comes to on the devices of a pair's towers, for provenance."""
        places = list(devices)
        halves = {self.half(device) for device in places} - {None}
        return {
            "deterministic": not any(self.takes_together(device) for device in places),
            "precision": str(halves.pop()).removeprefix("torch.") if halves else "full",
        }


PLAIN: Final = Pace(deterministic=True, precision="full")
"""One by one in the model's own precision."""
