"""Loading plugins: built-ins and other distributions, through the same hooks.

Each plugin is loaded, checked and called by itself. Whatever goes wrong with one is recorded as a
:class:`PluginProblem` and shown by ``mmattrib plugins``; it breaks nothing else. Importing this
module imports no torch, and neither may the modules that it loads.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from mmattrib import __version__
from mmattrib.errors import PluginError
from mmattrib.plugins import hookspecs
from mmattrib.plugins.contained import contained
from mmattrib.plugins.registry import (
    HOOKS,
    KINDS,
    OWN_DISTRIBUTION,
    Kind,
    PluginProblem,
    Registry,
    one_line,
)

if TYPE_CHECKING:
    import click

ROOMS: tuple[str, ...] = (
    "mmattrib.backbones",
    "mmattrib.methods",
    "mmattrib.metrics",
    "mmattrib.datasets",
    "mmattrib.io",
    "mmattrib.render",
)
"""Packages whose modules may implement hooks. None of these modules may import torch at the top."""


def builtin_modules() -> tuple[str, ...]:
    """Every public module and package directly in :data:`ROOMS` that may implement a hook, by name.

    What is put there and implements a hook is a built-in plugin; there is no list to keep. A
    module whose source does not name ``hookimpl`` is left out, so that it is not imported.
    """
    found = []
    for room in ROOMS:
        folder = importlib.import_module(room).__path__
        found += [
            f"{room}.{module.name}"
            for module in pkgutil.iter_modules(folder)
            if not module.name.startswith("_") and _names_hookimpl(module)
        ]
    return tuple(found)


def _names_hookimpl(module: pkgutil.ModuleInfo) -> bool:
    spec = module.module_finder.find_spec(module.name, None)
    try:
        return b"hookimpl" in Path(str(spec and spec.origin)).read_bytes()
    except OSError:  # in an archive
        return True


@dataclass(frozen=True)
class PluginInfo:
    """One plugin that loaded, for listings.

    Attributes:
        name: its name in the manager.
        distribution: where it came from.
        version: that distribution's version.
        hooks: the hooks that it implements.
        plugin: the module or object itself.
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    plugin: object = field(repr=False)


class Plugins:
    """A pluggy manager, the registry that its plugins filled, and the problems on the way.

    Make one with :func:`load_plugins`; :func:`default_plugins` is the one that the API uses.
    """

    def __init__(self) -> None:
        self.manager = _filled(_Manager(hookspecs.PROJECT))
        self.registry = Registry()
        self.infos: list[PluginInfo] = []
        self._commands_of: set[str] = set()

    @property
    def problems(self) -> list[PluginProblem]:
        """What went wrong, in the order in which it was found."""
        return self.registry.problems

    def add(self, plugin: object, *, name: str, distribution: str, version: str = "") -> bool:
        """Check a plugin and let it register what it has, commands aside.

        Args:
            plugin: a module or an object with ``@hookimpl`` functions.
            name: its name in the manager; must be new.
            distribution: what messages call its source.
            version: that source's version.

        Returns:
            False if the plugin does not fit the hooks, so that nothing of it is in use. The
            reason is in :attr:`problems`, as is any hook of an accepted plugin that failed.
        """
        try:
            with _strangers(distribution):
                if distribution != OWN_DISTRIBUTION:
                    _check_plugin(plugin)
                self.manager.register(plugin, name=name)
                hooks = _hooks_of(self.manager, plugin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # looking at an object's attributes may run its code
            self._record(distribution, "check", error)
            return False
        info = PluginInfo(name, distribution, version, hooks, plugin)
        self.infos.append(info)
        for kind in KINDS:
            if kind != "command" and HOOKS[kind] in hooks:
                self._call(info, HOOKS[kind], register=self._register_for(kind, info))
        return True

    def add_module(self, module: str) -> bool:
        """Import one of this package's modules and :meth:`add` it, if it implements a hook."""
        try:
            plugin = importlib.import_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._record(OWN_DISTRIBUTION, "import", error, f"{module}: ")
            return False
        if not any(hasattr(plugin, hook) for hook in HOOKS.values()):
            return False
        return self.add(plugin, name=module, distribution=OWN_DISTRIBUTION, version=__version__)

    def add_entry_point(self, entry_point: metadata.EntryPoint) -> bool:
        """Load another distribution's entry point and :meth:`add` it."""
        distribution, version = _source_of(entry_point)
        try:
            with contained():
                plugin = entry_point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may even exit while it is imported
            self._record(distribution, "import", error, f"{entry_point.value}: ")
            return False
        name = f"{distribution}:{entry_point.name}"
        return self.add(plugin, name=name, distribution=distribution, version=version)

    def commands(self, own: Collection[str] = ()) -> dict[str, click.Command]:
        """The commands that plugins add, by name; a name that two of them claim is left out.

        The registry holds every claim under the kind ``"command"``.

        Args:
            own: names of mmattrib's own commands, which no plugin may take.
        """
        for info in self.infos:
            if HOOKS["command"] in info.hooks and info.name not in self._commands_of:
                self._commands_of.add(info.name)
                self._collect_commands(info, own)
        return {entry.name: entry.factory() for entry in self.registry.usable("command")}

    def _collect_commands(self, info: PluginInfo, own: Collection[str]) -> None:
        """Let one plugin fill a group of its own, so that it cannot touch another's commands."""
        import click

        group = click.Group()
        self._call(info, HOOKS["command"], cli=group)
        register = self._register_for("command", info)
        for name, command in group.commands.items():
            try:
                if name in own:
                    raise PluginError(f"{name!r} is a command of {OWN_DISTRIBUTION}'s own")
                with _strangers(info.distribution):
                    summary = command.get_short_help_str(limit=80)
                register(name, partial(_same, command), summary=summary)
            except Exception as error:  # what stands there may be no command at all
                self._record(info.distribution, HOOKS["command"], error)

    def _register_for(self, kind: Kind, info: PluginInfo) -> hookspecs.Register:
        def register(name: str, factory: Callable[..., object], **what: Any) -> None:
            self.registry.register(
                kind,
                name,
                factory,
                **what,
                distribution=info.distribution,
                version=info.version,
                plugin=info.name,
            )

        return register

    def _call(self, info: PluginInfo, hook: str, **arguments: Any) -> None:
        """Call one hook of one plugin, and of no other."""
        others = [plugin for plugin in self.manager.get_plugins() if plugin is not info.plugin]
        try:
            with _strangers(info.distribution):
                self.manager.subset_hook_caller(hook, others)(**arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._record(info.distribution, hook, error)

    def _record(
        self, distribution: str, stage: str, error: BaseException, prefix: str = ""
    ) -> None:
        self.problems.append(PluginProblem(distribution, stage, prefix + one_line(error)))


def load_plugins(
    *,
    builtins: Iterable[str] | None = None,
    entry_points: Iterable[metadata.EntryPoint] | None = None,
) -> Plugins:
    """Load plugins into a fresh manager.

    Args:
        builtins: modules of this package to register; :func:`builtin_modules` if None.
        entry_points: other distributions' entry points; those of the group ``mmattrib`` that are
            installed if None.

    Returns:
        The manager, the registry and the problems. Nothing is raised for a broken plugin.
    """
    plugins = Plugins()
    for module in builtin_modules() if builtins is None else builtins:
        plugins.add_module(module)
    if entry_points is None:
        entry_points = _installed(plugins.problems)
    for entry_point in entry_points:
        plugins.add_entry_point(entry_point)
    return plugins


def _installed(problems: list[PluginProblem]) -> list[metadata.EntryPoint]:
    """The entry points of the group; a distribution whose metadata is damaged is a problem."""
    try:
        return list(metadata.entry_points(group=hookspecs.PROJECT))
    except Exception as error:  # of one distribution, and the others' are lost with it
        problems.append(PluginProblem("this environment", "import", one_line(error)))
    found: dict[str, list[metadata.EntryPoint]] = {}
    for dist in metadata.distributions():
        try:
            own = [point for point in dist.entry_points if point.group == hookspecs.PROJECT]
            found.setdefault(str(dist.name).casefold(), own)  # the first on the path is in use
        except Exception as error:
            where = getattr(dist, "_path", "a distribution")
            problems.append(PluginProblem(str(where), "import", one_line(error)))
    return [point for own in found.values() for point in own]


def _source_of(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of an entry point's distribution, whatever its metadata look like."""
    try:
        dist = entry_point.dist
        name, version = (None, None) if dist is None else (dist.name, dist.version)
    except Exception:  # damaged, or gone
        name, version = None, None
    return str(name or entry_point.value), str(version or "")


def _strangers(distribution: str) -> AbstractContextManager[None]:
    """What runs code of another distribution runs it inside of this."""
    return nullcontext() if distribution == OWN_DISTRIBUTION else contained()


_default: Plugins | None = None


def default_plugins() -> Plugins:
    """The plugins of this environment, loaded when first asked for."""
    global _default
    if _default is None:
        _default = load_plugins()
    return _default


@contextmanager
def using_plugins(plugins: Plugins | None) -> Iterator[Plugins]:
    """Let the API and the command line use these plugins inside a ``with`` block, e.g. in a test.

    Args:
        plugins: what :func:`default_plugins` returns inside; None loads the environment's anew.
    """
    global _default
    before, _default = _default, plugins
    try:
        yield default_plugins()
    finally:
        _default = before


def _same(command: click.Command) -> click.Command:
    return command


class _Manager(pluggy.PluginManager):
    """Looks at our hooks' names alone: what else a module holds is much, and known to be none."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return super().parse_hookimpl_opts(plugin, name) if name in _HOOK_NAMES else None


_HOOK_NAMES = frozenset(HOOKS.values())


def _filled(manager: pluggy.PluginManager) -> pluggy.PluginManager:
    manager.add_hookspecs(hookspecs)
    return manager


def _check_plugin(plugin: object) -> None:
    """Refuse a plugin of others that does not fit the specification.

    A manager of its own is filled, because a plugin that is refused midway would stay in the
    manager in part, and one that takes hooks of any name, so that a mistyped one is seen.

    Raises:
        pluggy.PluginValidationError: a hook has a wrong signature or is no hook of ours.
        PluginError: it is none that can be kept, implements none, or forgot to mark one.
    """
    if inspect.isclass(plugin):
        raise PluginError(
            f"the entry point names the class {plugin.__name__}; name a module or an instance"
        )
    try:
        hash(plugin)  # the manager keeps sets of plugins
    except TypeError:
        raise PluginError(f"its {type(plugin).__name__} is not hashable; name a module") from None
    trial = _filled(pluggy.PluginManager(hookspecs.PROJECT))
    trial.register(plugin, name="trial")
    _check_pending(trial)
    _hooks_of(trial, plugin)


def _hooks_of(manager: pluggy.PluginManager, plugin: object) -> tuple[str, ...]:
    """The hooks that a plugin implements.

    Raises:
        PluginError: none, or one that it forgot to mark.
    """
    hooks = tuple(caller.name for caller in manager.get_hookcallers(plugin) or ())
    for hook in HOOKS.values():
        unmarked = getattr(plugin, hook, None)
        if callable(unmarked) and hook not in hooks:
            raise PluginError(f"{hook} is not marked; write @mmattrib.hookimpl above it")
    if not hooks:
        raise PluginError(
            f"it implements no hook; accepted: {', '.join(HOOKS.values())}, each with "
            "@mmattrib.hookimpl above it"
        )
    return hooks


def _check_pending(trial: pluggy.PluginManager) -> None:
    """``check_pending()`` with the names of the hooks that exist."""
    try:
        trial.check_pending()
    except pluggy.PluginValidationError as error:
        known = ", ".join(HOOKS.values())
        raise PluginError(f"{str(error).replace(chr(10), ' ')}; hooks are: {known}") from error
