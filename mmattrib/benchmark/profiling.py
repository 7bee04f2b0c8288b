"""Which operations a model spends its time in, phase by phase: ``mmattrib bench --profile``."""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import Any, Final

import torch
from torch.profiler import ProfilerActivity, profile

from mmattrib.benchmark.entrants import default_layers, device_of, ours
from mmattrib.benchmark.subjects import pair
from mmattrib.benchmark.watch import PHASES
from mmattrib.errors import TrustWarning
from mmattrib.models.backbone import Backbone
from mmattrib.types import JSONValue

MOST: Final = 12
_MARK: Final = "phase: "


def run_profile(
    backbone: Backbone, methods: tuple[str, ...]
) -> dict[str, dict[str, list[dict[str, JSONValue]]]]:
    """Explain one pair under torch's profiler, with each method.

    Args:
        backbone: embeds two of image, text and audio.
        methods: registered names.

    Returns:
        Method -> phase -> the operations that took most by themselves, without those that they
        called: ``operation``, ``calls``, ``seconds``, ``share`` of the phase. ``seconds`` are those
        of the card where the model is on one.
    """
    given, device, found = pair(backbone), device_of(backbone), {}
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        for method in methods:
            layers = default_layers(backbone, given, method)
            entrant = ours(backbone, given, method, layers, device)
            entrant.run()  # nothing is done for the first time
            with profile(activities=activities) as seen:
                entrant.run()
            found[method] = _by_phase(seen.events(), device)
    return found


def _by_phase(events: Any, device: torch.device) -> dict[str, list[dict[str, JSONValue]]]:
    spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0, 0.0]))
    for event in events:
        phase = _phase_of(event)
        own = event.self_cpu_time_total
        if device.type == "cuda":
            own = event.self_device_time_total
        if phase is None or event.name.startswith(_MARK) or own <= 0:
            continue
        entry = spent[phase][event.name]
        entry[0] += 1
        entry[1] += own / 1e6
    found: dict[str, list[dict[str, JSONValue]]] = {}
    for phase in PHASES:
        total = sum(seconds for _, seconds in spent[phase].values())
        ranked = sorted(spent[phase].items(), key=lambda item: -item[1][1])
        if total > 0:
            found[phase] = [
                {"operation": name, "calls": int(calls), "seconds": s, "share": s / total}
                for name, (calls, s) in ranked[:MOST]
            ]
    return found


def _phase_of(event: Any) -> str | None:
    """The innermost phase that an event is in."""
    at = event
    while at is not None:
        if at.name.startswith(_MARK):
            return str(at.name.removeprefix(_MARK))
        at = at.cpu_parent
    return None
