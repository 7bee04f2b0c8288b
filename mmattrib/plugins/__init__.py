"""Plugins: the hooks, the registry of names, and the loading of what other distributions add.

Importing this package imports no torch.
"""

from __future__ import annotations

from mmattrib.plugins.hookspecs import PROJECT, Register, hookimpl
from mmattrib.plugins.loading import (
    PluginInfo,
    Plugins,
    builtin_modules,
    default_plugins,
    load_plugins,
    using_plugins,
)
from mmattrib.plugins.registry import Entry, Kind, PluginProblem, Registry

__all__ = [
    "PROJECT",
    "Entry",
    "Kind",
    "PluginInfo",
    "PluginProblem",
    "Plugins",
    "Register",
    "Registry",
    "builtin_modules",
    "default_plugins",
    "hookimpl",
    "load_plugins",
    "using_plugins",
]
