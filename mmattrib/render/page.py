"""Self-contained HTML: the report of one explanation, its notebook form, and an index of reports.

Nothing on a page comes from elsewhere: pictures and sound are embedded, and a content policy
forbids every request. All text is escaped, since captions and file names come from strangers.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, urlsplit

import numpy as np

from mmattrib.calibration import Verdict, noun
from mmattrib.errors import OptionError
from mmattrib.perturb import keep
from mmattrib.render.audio import encode_audio
from mmattrib.render.overlay import Picture, colour_table, css, css_bar, css_gradient, ink
from mmattrib.render.panels import Outlines, Panel, Piece, PlanePanel, TextPanel, Tick, panels
from mmattrib.render.scales import Scale
from mmattrib.render.style import BODY_CSS, CSS, JS
from mmattrib.render.wording import (
    TRUTH_KEY,
    default_title,
    how_made,
    kept,
    maps_show,
    nouns,
    number,
    own_name,
    place,
    primer,
    printable,
    reading,
    side_shows,
    unseen,
    warnings,
)
from mmattrib.types import Attribution, Explanation, RawAudio

if TYPE_CHECKING:
    from PIL import Image

Entry: TypeAlias = tuple[str, str, str, bytes]
"""An index entry: title, text, relative link, thumbnail as the bytes of a PNG file."""

MAX_SECONDS = 60.0  # of sound in a page
MAX_SAMPLES = 60 * 48_000
_DEEPEST = 4  # tables within tables
_HOLDERS = (Mapping, list, tuple)
_MAX_PNG = 600_000  # bytes; photographs beyond it are embedded as JPEG


def report_html(
    explanation: Explanation,
    title: str | None = None,
    truth: Outlines | None = None,
    clip: float | None = None,
    scale: Scale = "absolute",
) -> str:
    """A self-contained page for a reader who never saw the project.

    Args:
        explanation: what to show.
        title: of the page; None says whether the inputs match and what the page answers.
        truth: side -> bool array in the shape of that side's scores, drawn as an outline.
        clip: percentile beyond which scores are drawn as the largest; None clips nothing.
        scale: which score is drawn in full colour, see :data:`mmattrib.render.scales.Scale`.

    Raises:
        OptionError: a truth that fits no side, or ``clip`` or ``scale`` out of range.
        InputError: a side without a raw input that can be drawn.
    """
    heading = default_title(explanation) if title is None else title
    return _document(heading, _fragment(explanation, heading, truth, clip, scale))


def notebook_html(explanation: Explanation, scale: Scale = "absolute") -> str:
    """The report as a fragment for a notebook cell; its style and script touch nothing else.

    Args:
        explanation: what to show.
        scale: as for :func:`report_html`.

    Raises:
        OptionError: no such scale.
        InputError: a side without a raw input that can be drawn.
    """
    body = _fragment(explanation, default_title(explanation), None, None, scale)
    return f"<style>{CSS}</style>{body}<script>{JS}</script>"


def index_html(
    entries: Iterable[Entry], title: str = "What made two inputs match?", intro: str = ""
) -> str:
    """A self-contained page of cards that link to reports.

    Args:
        entries: title, text, link and thumbnail of each card. Links are relative paths.
        title: of the page.
        intro: a paragraph above the cards.

    Raises:
        OptionError: a link that is not a relative path.
    """
    cards = []
    for name, text, href, thumbnail in entries:
        if urlsplit(href).scheme or href.startswith(("/", "\\")):
            raise OptionError(f"link {href!r}: accepted is a path relative to the index page.")
        picture = base64.b64encode(thumbnail).decode("ascii")
        cards.append(
            f'<li><a class="card" href="{_esc(quote(href, safe="/#.-_~"))}">'
            f'<img alt="Maps of: {_esc(name)}" src="data:image/png;base64,{picture}">'
            f"<div><h2>{_esc(name)}</h2><p>{_esc(text)}</p></div></a></li>"
        )
    lead = f'<p class="lead">{_esc(intro, 5000)}</p>' if intro else ""
    body = (
        f'<main class="mma"><h1>{_esc(title)}</h1>{lead}'
        f'<ul class="cards">{"".join(cards)}</ul></main>'
    )
    return _document(title, body)


def _document(title: str, body: str) -> str:
    digest = base64.b64encode(hashlib.sha256(JS.encode("utf-8")).digest()).decode("ascii")
    policy = (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_esc(title)}</title><style>{BODY_CSS}{CSS}</style></head>"
        f"<body>{body}<script>{JS}</script></body></html>\n"
    )


def _fragment(
    explanation: Explanation,
    title: str,
    truth: Outlines | None,
    clip: float | None,
    scale: Scale,
) -> str:
    drawn = panels(explanation, truth, clip, scale)
    verdict = explanation.verdict
    sides = "".join(_side(explanation, panel, verdict) for panel in drawn)
    return (
        f'<main class="mma"><header><h1>{_esc(title)}</h1>{_lead(explanation, verdict)}</header>'
        f"{_warnings(explanation)}{sides}{_made(explanation, drawn)}</main>"
    )


def _lead(explanation: Explanation, verdict: Verdict) -> str:
    names = " and ".join(f"a {name}" for name in nouns(explanation))
    similarity = f"{explanation.similarity:.2f}".replace("-", "−")
    return (
        f'<p class="verdict{" no" if verdict.level == "no match" else ""}">'
        f"{_esc(verdict.sentence)}</p>"
        f'<p class="lead">A model that places different kinds of input in one common space was '
        f"given {_esc(names)}. It puts their similarity at <strong>{similarity}</strong>, where 1 "
        "means the same and −1 opposed; how much counts as a match differs from model to model. "
        f"{_esc(maps_show(verdict))}</p>"
        f'<p class="soft">{_esc(how_made(explanation))}.</p>'
    )


def _warnings(explanation: Explanation) -> str:
    found = warnings(explanation)
    if not found:
        return ""
    items = "".join(f"<p>{_esc(text, 2000)}</p>" for text in found)
    return f'<div class="warn" role="alert">{items}</div>'


def _side(explanation: Explanation, panel: Panel, verdict: Verdict) -> str:
    attribution = explanation.attributions[panel.side]
    this = noun(attribution.modality)
    others = [noun(a.modality) for side, a in explanation.items() if side != panel.side]
    other = others[0] if others else "other input"
    notes = "".join(f'<p class="warn">{_esc(note)}</p>' for note in panel.heat.notes)
    said = unseen(attribution)
    hidden = f"<p>{_esc(said)}</p>" if said else ""
    told = " ".join(filter(None, (kept(attribution), verdict.maps.get(panel.side, ""))))
    shares = f'<p class="soft">{_esc(told)}</p>' if told else ""
    if isinstance(panel, TextPanel):
        shown = _words(panel, attribution)
    elif panel.kind == "audio":
        shown = _sound(explanation, panel)
    else:
        shown = _picture(panel, this, other)
    name = own_name(panel.name, attribution.modality)
    called = f'<p class="soft"><bdi>{_esc(name)}</bdi></p>' if name else ""
    size = f'<p class="soft">{_esc(panel.size_note)}</p>' if panel.size_note else ""
    return (
        f'<section aria-label="{_esc(this)}"><h2>{_esc(side_shows(this, other, verdict))}</h2>'
        f"{called}<p>{_esc(reading(attribution, other, panel.heat.signed))}</p>{shares}{hidden}"
        f"{notes}{shown}"
        f"{_colour_bar(panel)}{_key(panel)}{size}</section>"
    )


def _colour_bar(panel: Panel) -> str:
    heat = panel.heat
    low, high = number(heat.low), number(heat.high)
    if heat.clipped:
        low, high = (f"≤ {low}" if heat.signed else low), f"≥ {high}"
    return (
        f'<div class="bar"><b>{low}</b><i style="background:{css_gradient(heat.signed)}" '
        f'role="img" aria-label="colour bar from {low} to {high} {_esc(panel.unit)}"></i>'
        f"<b>{high}</b><span>{_esc(panel.unit)}</span></div>"
    )


def _key(panel: Panel) -> str:
    if not panel.has_truth:
        return ""
    return f'<p class="soft"><span class="key"></span>{_esc(TRUTH_KEY)}</p>'


def _picture(panel: PlanePanel, this: str, other: str) -> str:
    name = _esc(panel.name)
    return (
        f'<div class="pair"><figure><img alt="The {_esc(this)} {name} as given" '
        f'src="{_data(panel.original)}"><figcaption>As given</figcaption></figure>'
        f'<figure><img alt="The {_esc(this)} {name} with a map over it of the parts that speak for '
        f'the {_esc(other)}" src="{_data(panel.mapped)}"><figcaption>With the map</figcaption>'
        "</figure></div>"
    )


def _sound(explanation: Explanation, panel: PlanePanel) -> str:
    raw = explanation.inputs[panel.side]
    if not isinstance(raw, RawAudio):
        raise TypeError(f"side {panel.side!r} is no recording")
    attribution = explanation.attributions[panel.side]
    played = raw.samples[: min(int(MAX_SECONDS * raw.sample_rate), MAX_SAMPLES)]
    seconds = len(played) / raw.sample_rate
    bounded = (
        f'<p class="soft">The players hold the first {seconds:.0f} of {raw.seconds:.0f} '
        "seconds.</p>"
        if len(played) < len(raw.samples)
        else ""
    )
    if panel.heat.informative:
        frequency, time = attribution.axes
        heard = max(1, int(np.searchsorted(time.values, seconds + 1.0)))
        attributed = keep(
            replace(raw, samples=played),
            panel.heat.weights[:, :heard],
            axes=(frequency, replace(time, values=time.values[:heard])),
        )
        second = (
            f"{_player(attributed.samples, raw.sample_rate, 'The recording weighted by its map')}"
            '<p class="soft">This player holds only what the map lets through: the recording, '
            "loud where the map is bright and silent where it is dark.</p>"
        )
    else:
        second = '<p class="soft">There is no sound of the map: it holds next to nothing.</p>'
    start, end = panel.span
    given = _player(played, raw.sample_rate, "The recording as given")
    return (
        f'<div class="mma-listen" data-start="{start:.6f}" data-end="{end:.6f}">'
        f"{_plot(panel, panel.original, 'The recording as given, as a spectrogram')}{given}"
        f"{_plot(panel, panel.mapped, 'The same with the map')}{second}{bounded}</div>"
    )


def _plot(panel: PlanePanel, picture: Picture, label: str) -> str:
    return (
        f'<p class="label">{label}</p><div class="plot"><div class="plane">'
        f'<img alt="{label}: {_esc(panel.name)}; time to the right, low frequencies below" '
        f'src="{_data(picture)}"><span class="cursor"></span>'
        f"{_ticks(panel.xticks, 'tx', 'left')}{_ticks(panel.yticks, 'ty', 'bottom')}</div>"
        '<span class="xname">time in seconds</span><span class="yname">frequency in Hz</span></div>'
    )


def _ticks(ticks: tuple[Tick, ...], kind: str, edge: str) -> str:
    return "".join(
        f'<span class="{kind}" style="{edge}:{100 * at:.2f}%">{_esc(text)}</span>'
        for at, text in ticks
    )


def _player(samples: Any, sample_rate: int, label: str) -> str:
    media, data = encode_audio(samples, sample_rate)
    encoded = base64.b64encode(data).decode("ascii")
    return (
        f'<audio controls preload="metadata" aria-label="{label}" '
        f'src="data:{media};base64,{encoded}"></audio>'
    )


def _words(panel: TextPanel, attribution: Attribution) -> str:
    shown = "".join(_word(piece, panel) for piece in panel.pieces)
    rows = "".join(
        f"<tr><th><bdi>{_esc(piece.text)}</bdi></th><td>{number(piece.score)}</td></tr>"
        for piece in panel.pieces
        if piece.score is not None
    )
    return (
        f'<p class="words" dir="auto">{shown}</p><p class="soft">The bar under a word is as long '
        "as its score is large; a word without colour counts for next to nothing. Hold the pointer "
        "over a word for its value.</p>"
        f"<details><summary>Every word's value</summary><table>{rows}</table></details>"
    )


def _word(piece: Piece, panel: TextPanel) -> str:
    if piece.score is None:
        return _esc(piece.text, 100_000)
    signed = panel.heat.signed
    ground = colour_table(signed)[round(piece.value * 255)]
    fill = css_bar(piece.value, signed)
    true = " true" if piece.true else ""
    value = f"{number(piece.score)} {_esc(panel.unit)}"
    style = f"background:{css(ground)};color:{ink(ground)}" if piece.coloured else ""
    return (
        f'<span class="word{true}" tabindex="0" title="{value}" '
        f'style="{style}">{_esc(piece.text)}'
        f'<span class="size"><i style="width:{100 * piece.bar:.1f}%;background:{fill}"></i></span>'
        "</span>"
    )


def _made(explanation: Explanation, drawn: list[Panel]) -> str:
    heats = {panel.side: panel.heat for panel in drawn}
    tables = [f"<h3>The whole pair</h3>{_table(explanation.provenance)}"]
    for attribution in explanation.attributions.values():
        facts = {"computed at": place(attribution.layer), **attribution.diagnostics}
        tables.append(f"<h3>The {_esc(noun(attribution.modality))}</h3>{_table(facts)}")
    return (
        f"<section><h2>How to read this</h2><p>{_esc(primer(explanation, heats), 2000)}</p>"
        "<details><summary>Model, method, every option, versions and diagnostics</summary>"
        f"{''.join(tables)}</details></section>"
    )


def _table(facts: Mapping[str, Any], depth: int = 0) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_esc(str(key))}</th><td>{_value(value, depth)}</td></tr>'
        for key, value in facts.items()
    )
    table = f"<table>{rows}</table>"
    return table if depth else f'<div class="scroll">{table}</div>'


def _value(value: Any, depth: int) -> str:
    """A value as HTML: what holds other values is a table within the table, or JSON further in."""
    if isinstance(value, Mapping) and value and depth < _DEEPEST:
        return _table(value, depth + 1)
    if isinstance(value, str):
        return _esc(value, 4000)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple) and not any(isinstance(v, _HOLDERS) for v in value):
        return _esc(", ".join(v if isinstance(v, str) else _plain(v) for v in value), 4000)
    if isinstance(value, _HOLDERS):
        return f"<pre>{_esc(_json(value), 4000)}</pre>"
    return _esc(_plain(value), 4000)


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, default=str)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=str, indent=1, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError):  # from a file of strangers
        return "nested too deeply to be shown"


def _data(picture: Picture) -> str:
    """A picture as a data URI: PNG, or JPEG where PNG would be large."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    media, data = "image/png", _encoded(image, "PNG")
    if len(data) > _MAX_PNG:
        media, data = "image/jpeg", _encoded(image, "JPEG", quality=90)
    return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _esc(text: str, limit: int = 500) -> str:
    return html.escape(printable(text, limit), quote=True)
