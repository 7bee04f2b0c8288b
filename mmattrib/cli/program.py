"""The program ``mmattrib``: how its commands are found, and how errors become one line."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

from mmattrib import __version__
from mmattrib.cli.endings import exit_code, forget_output, signals_as_exceptions
from mmattrib.cli.repeats import refuse_repeats
from mmattrib.cli.speech import clean, say
from mmattrib.errors import InputWarning, MmattribError, OptionError, TrustWarning, UnknownNameError
from mmattrib.plugins import default_plugins
from mmattrib.plugins.contained import hushing
from mmattrib.plugins.registry import KINDS, did_you_mean, one_line

COMMANDS: Mapping[str, str] = {
    "demo": "mmattrib.cli.demo:demo",
    "attribute": "mmattrib.cli.attribute:attribute",
    "show": "mmattrib.cli.show:show",
    "scenes": "mmattrib.cli.scenes:scenes",
    "evaluate": "mmattrib.cli.evaluate:evaluate",
    "tune": "mmattrib.cli.tune:tune",
    "reproduce": "mmattrib.cli.reproduce:reproduce",
    "roar": "mmattrib.cli.roar:roar",
    "calibrate": "mmattrib.cli.calibrate:calibrate",
    "bench": "mmattrib.cli.bench:bench",
    **{f"{kind}s": f"mmattrib.cli.listing:{kind}s" for kind in KINDS if kind != "command"},
    "plugins": "mmattrib.cli.listing:plugins",
}
"""mmattrib's own commands, each imported when it is asked for."""

OWN_WARNINGS = (TrustWarning, InputWarning)
BAD_INPUT = 2
UNEXPECTED = 1


class Program(click.Group):
    """A group that imports its commands on demand and turns every error into one line."""

    debug = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(default_plugins().commands(own=COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return default_plugins().commands(own=COMMANDS).get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest ones."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            registry = default_plugins().registry
            if registry.names("command").count(name):
                registry.get("command", name)  # raises: two plugins claim it
            known = self.list_commands(ctx)
            raise UnknownNameError(
                f"mmattrib has no command {name!r}.{did_you_mean(name, known)} "
                f"Commands: {', '.join(known)}. `mmattrib plugins` shows plugins that did not load."
            )
        found = super().resolve_command(ctx, args)
        if found[1] is not None:
            refuse_repeats(found[1], found[2], ctx)
        return found

    def get_help(self, ctx: click.Context) -> str:
        """The help, with the summaries of plugins' commands."""
        return clean(super().get_help(ctx))

    def invoke(self, ctx: click.Context) -> None:
        super().invoke(ctx)  # whatever a plugin's command returns is no exit code

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the program and leave the interpreter.

        Exit codes: 0; 2 for anything wrong with what was given; 130 after Ctrl-C, 143 after
        SIGTERM, 129 after SIGHUP; 1 for a fault of the program, or where nothing reads its output.
        """

        def run() -> Any:
            _check_text(sys.argv[1:] if args is None else args)
            return super(Program, self).main(
                args=args,
                prog_name=prog_name,
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )

        if not standalone_mode:
            return run()
        self.debug = False
        with warnings_as_lines(), signals_as_exceptions(), hushing():
            code = self._exit_code(run)
        sys.exit(code)

    def _exit_code(self, run: Any) -> int:
        try:
            result = run()
        except (click.Abort, KeyboardInterrupt) as error:
            return exit_code(error)
        except click.ClickException as error:
            self._fail(_usage_message(error))
            return error.exit_code
        except OSError as error:
            if error.errno == errno.EPIPE:  # as with `| head`: there is nobody to tell
                forget_output()
                return UNEXPECTED
            if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG):
                forget_output()
            self._fail(_os_message(error))
            return BAD_INPUT
        except MmattribError as error:
            self._fail(str(error))
            return BAD_INPUT
        except Exception as error:
            hint = "" if self.debug else " Run again with `mmattrib --debug ...` to see where."
            self._fail(f"unexpected {one_line(error)}; this is a fault of the program.{hint}")
            return UNEXPECTED
        return result if isinstance(result, int) else 0

    def _fail(self, message: str) -> None:
        if self.debug:
            say(traceback.format_exc(), err=True, newline=False)
        say(f"Error: {' '.join(message.split())}", err=True)


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse what no shell can give, and what no file can be named."""
    for text in arguments:
        try:
            whole = "\0" not in os.fsencode(text).decode("latin-1")
        except UnicodeEncodeError:
            whole = False
        if not whole:
            raise OptionError(f"the argument {text!a:.200} holds characters that no text has")


def _usage_message(error: click.ClickException) -> str:
    """Click's message and where to read on, on one line."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    return f"{message.rstrip('.')}; see `{context.command_path} --help`"


def _os_message(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each warning of this package as one line on standard error; leave others be."""
    with warnings.catch_warnings():
        for own in OWN_WARNINGS:
            warnings.simplefilter("always", own)
        usual, form = warnings.showwarning, warnings.formatwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, OWN_WARNINGS):
                say(f"Warning: {' '.join(str(message).split())}", err=True)
            else:
                usual(message, category, filename, lineno, file, line)

        def safe(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            line: str | None = None,
        ) -> str:
            return clean(form(message, category, filename, lineno, line))

        warnings.showwarning, warnings.formatwarning = show, safe
        try:
            yield
        finally:
            warnings.formatwarning = form  # catch_warnings puts back the other one


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if isinstance(ctx.command, Program):
        ctx.command.debug = value


@click.group(
    cls=Program,
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="mmattrib")
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set_debug,
    help="Show the traceback of an error.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Show which pixels, sounds and words made a model match two inputs.

    `mmattrib demo` shows what that looks like; `mmattrib attribute` explains a pair of your own.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
