"""The hooks that a plugin may implement. Built-ins use the same ones.

A plugin is a distribution with an entry point in the group ``mmattrib``; the module or object it
names implements any of these with :data:`hookimpl`. Hooks register names and factories only, so
listing imports no model library and loads no weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import click

PROJECT = "mmattrib"
"""pluggy project name and entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """The function that a hook is given, to register a name and its factory."""

    def __call__(
        self,
        name: str,
        factory: Callable[..., object],
        *,
        summary: str = "",
        modalities: Sequence[str] = (),
        requires: Sequence[str] = (),
        extra: str | None = None,
        research: bool = False,
    ) -> None:
        """Register one name.

        Args:
            name: what users ask for; letters, digits, ``-``, ``_`` and ``.``.
            factory: called with the user's keyword options when the name is asked for; it imports
                what it needs then.
            summary: one line for listings.
            modalities: for a backbone, what it embeds.
            requires: import names that must be installed for the factory to work.
            extra: the extra of this distribution that installs them, e.g. ``"mmattrib[clip]"``.
            research: keep it out of listings and of ``"all"`` unless asked for.
        """


@hookspec
def register_backbones(register: Register) -> None:
    """Register backbones: factories that return :class:`mmattrib.Backbone`."""


@hookspec
def register_methods(register: Register) -> None:
    """Register methods: factories that return :class:`mmattrib.methods.Method`."""


@hookspec
def register_metrics(register: Register) -> None:
    """Register metrics: factories that return :class:`mmattrib.metrics.Metric`."""


@hookspec
def register_datasets(register: Register) -> None:
    """Register data sets: factories that return :class:`mmattrib.datasets.Dataset`."""


@hookspec
def register_writers(register: Register) -> None:
    """Register writers of explanations, named by the suffix that asks for them, without its dot.

    The factory returns a function from :class:`mmattrib.Explanation` to bytes.
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to ``mmattrib``: ``@cli.command(...)``."""
