"""check_grid: whether a grid finds a disturbed region of the raw input again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmattrib.errors import EncoderError
from mmattrib.models.encoder import Encoder
from mmattrib.testing.probes import Probe, Region, probe_for
from mmattrib.types import FloatArray, RawInput


def check_grid(
    encoder: Encoder,
    raw: RawInput,
    *,
    layer: int = -1,
    regions: Sequence[Region] | None = None,
    count: int = 12,
    slack: float = 0.25,
    misses: int = 0,
    seed: int = 0,
) -> None:
    """Disturb known regions of an input and demand that the grid find each of them again.

    Mistakes of order (rows against columns, time against frequency, a CLS offset, the folding of
    clips) do not show in shapes. Here a region of the raw input is changed: pixels are painted
    over, a tone burst is added at a time and in a band, a word is replaced. The change of each
    token at an early layer is laid on the input with ``grid.to_input``; the centre of mass of what
    is above half of its peak must lie in the region. A token that sees its own patch alone puts it
    there exactly. Overlapping receptive fields spread a change over their neighbours, at the
    border inwards alone; ``slack`` says how far its centre may then lie outside.

    Args:
        encoder: the encoder.
        raw: a picture with at least four pixels per token each way; a recording, of which length
            and sample rate are used, over low noise; or a caption of several common words.
        layer: where to look; early, since later layers mix the tokens.
        regions: where to disturb: ``(top, left, bottom, right)`` in pixels, ``(low, high, start,
            end)`` in Hz and seconds, or the number of a word. None: the cells that the grid
            claims for ``count`` tokens drawn at random (of pictures, two corners of each), so
            that an offset by a single token shows; for text, ``count`` words spread evenly.
        count: how many regions to draw.
        slack: how far outside its region a change may lie, in tokens: 0.25 for tokens that see a
            patch each, up to 0.5 for convolutional towers. Drawn regions of pictures lie in two
            corners of a cell, a third of it from its edge, so that an offset by one token shows up
            to 0.6.
        misses: how many regions may come back elsewhere; 0 fits the embedding output, later
            layers mix tokens and may need one or two.
        seed: of the draw.

    Raises:
        EncoderError: the grid puts a disturbance elsewhere, or the tower does not notice it.
        InputError: ``raw`` cannot be used for this, e.g. too small.
        OptionError: there is no such layer, or no probe for this modality.
    """
    encoder.check_layer(layer)
    probe = probe_for(encoder.modality, raw, count, slack, seed)
    with encoder.frozen(), torch.no_grad():
        probe.look(encoder.grid(encoder.preprocess([probe.base]), layer))
        wanted = probe.choose() if regions is None else [(region, region) for region in regions]
        missed = [told for each in wanted if (told := _missed(probe, encoder, layer, *each))]
    if len(missed) > misses:
        raise EncoderError(
            f"check_grid: the {encoder.modality} encoder's grid of layer {layer} misplaces "
            f"{len(missed)} of {len(wanted)} regions. {missed[0]}. Check the layout's order, its "
            "prefix tokens, boxes and axes against the tower"
        )


def _missed(
    probe: Probe, encoder: Encoder, layer: int, region: Region, place: Region
) -> str | None:
    """Where a disturbed region came back, in words; None where it came back in its place."""
    found = _locate(encoder, layer, [probe.base, *probe.disturbed(region, encoder, layer)])
    if found is None:
        return f"{probe.say(region)} changed no token that lies on the input"
    if not probe.inside(place, found):
        return f"{probe.say(region)} came back at {probe.say_found(found)}"
    return None


def _locate(encoder: Encoder, layer: int, raws: Sequence[RawInput]) -> FloatArray | None:
    """Mean change of the tokens of ``raws[1:]`` against ``raws[0]``, laid on the input."""
    inputs = encoder.preprocess(raws)
    tokens = encoder.prefix(inputs, layer).float()
    change = (tokens[1:] - tokens[:1]).norm(dim=-1).mean(dim=0)
    grid = encoder.grid(inputs, layer)
    found = grid.to_input(change.expand(len(raws), -1).cpu())[0]
    return found if found.max() > 0 else None
