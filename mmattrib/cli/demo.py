"""``mmattrib demo``: see what the package does."""

from __future__ import annotations

from pathlib import Path

import click

from mmattrib.cli.arguments import Seed
from mmattrib.cli.outputs import HomePath, check_folder
from mmattrib.cli.speech import say


@click.command()
@click.option(
    "--out",
    type=HomePath(path_type=Path),
    default=Path("mmattrib-demo"),
    show_default=True,
    help="Folder to write; it may exist.",
)
@click.option(
    "--seed", type=Seed(), default=0, show_default=True, help="Which scenes, which noise."
)
def demo(out: Path, seed: int) -> None:
    """Explain three generated scenes and write a page.

    Their truth is known and drawn beside each map: an image with a caption, a recording with an
    image and a recording with a caption, on `tiny`, the model that ships with mmattrib. Needs no
    download and under a minute.
    """
    check_folder(out, "--out")
    from mmattrib.cli.demo_pages import write_demo

    page = write_demo(out, seed)
    say(f"Wrote {page}")
    say(f"Open {page.resolve().as_uri()} in a browser.")
