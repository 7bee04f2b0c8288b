"""An option of one value that is given twice is an error, not a silent choice of the last one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click


def refuse_repeats(command: click.Command, args: Sequence[str], parent: click.Context) -> None:
    """Look through the arguments of a command before it runs.

    Args:
        command: any command, also another distribution's.
        args: what follows its name. What click itself will refuse is passed over.
        parent: of the program.

    Raises:
        click.UsageError: an option of one value stands there more than once.
    """
    context = click.Context(command, parent, command.name, resilient_parsing=True)
    context.allow_interspersed_args = command.allow_interspersed_args
    context.ignore_unknown_options = command.ignore_unknown_options
    try:
        _, _, order = command.make_parser(context).parse_args(list(args))
    except click.ClickException:
        return  # the real parse says what is wrong
    for option, count in Counter(each for each in order if _takes_one(each)).items():
        if count > 1:
            name = max(option.opts, key=len)
            raise click.UsageError(
                f"{name} is given {count} times and takes one value; give it once"
            )


def _takes_one(parameter: click.Parameter) -> bool:
    if not isinstance(parameter, click.Option) or parameter.multiple or parameter.count:
        return False
    return not parameter.is_flag or bool(parameter.secondary_opts)
