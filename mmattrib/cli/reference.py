"""Write docs/cli.md from the help of the commands: ``python -m mmattrib.cli.reference FILE``."""

from __future__ import annotations

from pathlib import Path

import click

from mmattrib.cli.outputs import HomePath
from mmattrib.cli.program import COMMANDS, main

_WIDTH = 88
_HEAD = """\
# Command line

<!-- Written by `python -m mmattrib.cli.reference docs/cli.md`; change the help of the commands
instead. A test compares the two. -->

Exit codes: 0 when all went well; 2 when something given cannot be used, with one line on standard
error that says what was given, what is accepted and what to do; 130 after Ctrl-C, 143 after
SIGTERM, 129 after SIGHUP; 1 for a fault of the program, or where nothing reads its output any more.
Results go to standard output, everything else to standard error. A file is written whole or not at
all. Plugins may add commands of their own; `mmattrib --help` lists them.
"""


def reference() -> str:
    """The help of the program and of each of its own commands, as Markdown."""
    program = click.Context(
        main, info_name="mmattrib", terminal_width=_WIDTH, **main.context_settings
    )
    parts = [_HEAD]
    for name in COMMANDS:
        command = main.get_command(program, name)
        if command is None:  # COMMANDS names it
            raise click.ClickException(f"there is no command {name}")
        context = click.Context(command, program, name, terminal_width=_WIDTH)
        parts.append(f"## mmattrib {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


@click.command()
@click.argument("file", type=HomePath(dir_okay=False, path_type=Path))
def write(file: Path) -> None:
    """Write the reference of the command line to FILE."""
    file.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    write()
