"""``mmattrib show``: what a saved explanation says, and its pictures and pages again."""

from __future__ import annotations

from pathlib import Path

import click

from mmattrib.cli.arguments import with_out
from mmattrib.cli.listing import json_option
from mmattrib.cli.outputs import HomePath, check_outputs
from mmattrib.cli.speech import say, tell
from mmattrib.cli.summary import describe, summarise


@click.command()
@click.argument("file", type=HomePath(path_type=Path))
@with_out
@json_option
def show(file: Path, out: tuple[Path, ...], as_json: bool) -> None:
    """Show a saved explanation, and draw it again.

    FILE is what `mmattrib attribute --out` or `Explanation.save` wrote, .npz or .json. No model is
    loaded.
    """
    check_outputs(out, inputs=[file])
    import mmattrib

    explanation = mmattrib.load(file)
    written = [explanation.save(path) for path in out]
    summary = summarise(explanation, written)
    if as_json:
        tell(summary)
    else:
        say(describe(summary))
