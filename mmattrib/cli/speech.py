"""What the program prints: text that cannot command a terminal, JSON that any program can read.

Names of files, of plugins and captions come from strangers. A control character among them could
move the cursor, change the title or hide text; an override of the writing direction could show a
line in another order than it has.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mmattrib.types import JSONValue

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks and overrides of the direction
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # other line ends, byte order mark, annotations
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of characters, invisible tags
)


def clean(text: str) -> str:
    r"""The text with each character that could command a terminal as an escape: ``\x1b``."""
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def say(text: str, *, err: bool = False, newline: bool = True) -> None:
    """Print text of any origin, on standard output or standard error."""
    click.echo(clean(text), err=err, nl=newline)


def dump(value: JSONValue) -> str:
    """JSON text as every command prints it: readable, and valid in any encoding of Unicode.

    What :func:`clean` would change is written as JSON's own escapes, so that nothing is lost.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def tell(value: JSONValue) -> None:
    """Print a value as JSON."""
    click.echo(dump(value))
