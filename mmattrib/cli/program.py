"""The program ``mmattrib``: how its commands are found, and how errors become one line."""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

from mmattrib import __version__
from mmattrib.errors import MmattribError, TrustWarning, UnknownNameError
from mmattrib.plugins import default_plugins
from mmattrib.plugins.registry import KINDS, did_you_mean, one_line

COMMANDS: Mapping[str, str] = {
    "demo": "mmattrib.cli.demo:demo",
    "attribute": "mmattrib.cli.attribute:attribute",
    "scenes": "mmattrib.cli.scenes:scenes",
    "evaluate": "mmattrib.cli.evaluate:evaluate",
    **{f"{kind}s": f"mmattrib.cli.listing:{kind}s" for kind in KINDS if kind != "command"},
    "plugins": "mmattrib.cli.listing:plugins",
}
"""mmattrib's own commands, each imported when it is asked for."""

BAD_INPUT = 2
UNEXPECTED = 1
INTERRUPTED = 130  # as shells report a program that Ctrl-C ended


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
        return super().resolve_command(ctx, args)

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

        Exit codes: 0; 2 for anything wrong with what was given; 130 after Ctrl-C; 1 for a fault of
        the program.
        """

        def run() -> Any:
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
        with trust_warnings_as_lines():
            sys.exit(self._exit_code(run))

    def _exit_code(self, run: Any) -> int:
        try:
            result = run()
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        except click.ClickException as error:
            self._fail(_usage_message(error))
            return error.exit_code
        except OSError as error:
            self._fail(_os_message(error))
            return UNEXPECTED if error.errno == errno.EPIPE else BAD_INPUT
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
            traceback.print_exc()
        click.echo(f"Error: {' '.join(message.split())}", err=True)


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
def trust_warnings_as_lines() -> Iterator[None]:
    """Print each :class:`TrustWarning` as one line on standard error; leave other warnings be."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", TrustWarning)
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, TrustWarning):
                click.echo(f"Warning: {' '.join(str(message).split())}", err=True)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


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
