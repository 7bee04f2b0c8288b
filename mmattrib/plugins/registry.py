"""Registry: names and factories of backbones, methods, metrics and commands.

Registering stores a name and a factory and runs neither, so listing imports no model library and
loads no weights. A name that two plugins claim is kept with both claims: asking for it is an
error that names both distributions, and every other name works on.

Importing this module imports the standard library alone.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Literal, TypeAlias, get_args

from mmattrib.errors import (
    MissingExtraError,
    MmattribError,
    OptionError,
    PluginError,
    UnknownNameError,
    brief,
)
from mmattrib.plugins.contained import contained

Kind: TypeAlias = Literal["backbone", "method", "metric", "dataset", "writer", "command"]
"""The kinds of things that plugins register. The same name may be used once in each kind."""

KINDS: tuple[Kind, ...] = get_args(Kind)
"""The table of kinds: hooks, listings and commands follow from it."""

HOOKS: Mapping[Kind, str] = {kind: f"register_{kind}s" for kind in KINDS}
"""The hook that registers each kind."""

OWN_DISTRIBUTION = "mmattrib"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = frozenset({"all"})  # `methods="all"` asks for every name
_UNEXPECTED_KEYWORD = re.compile(r"unexpected keyword argument '(\w+)'")


_NAMED = {name: f"mmattrib-{name}" for name in ("clap", "colours", "conse", "flava")}
PUBLISHED = {**_NAMED, "template": "template"}
"""Backbones of plugins in this repository's folder ``plugins/``, and the folder of each there."""


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        name: what users ask for.
        kind: what it stands for.
        factory: called with the user's keyword options when the name is asked for.
        summary: one line for listings.
        modalities: for a backbone, what it embeds.
        requires: top-level import names that the factory needs.
        extra: the extra that installs them, e.g. ``"mmattrib[clip]"``.
        research: kept for comparison; left out of listings and of ``"all"`` unless asked for.
        distribution: the distribution that registered it.
        version: that distribution's version.
        plugin: the plugin of that distribution that registered it.
    """

    name: str
    kind: Kind
    factory: Callable[..., Any] = field(repr=False)
    summary: str = ""
    modalities: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    extra: str | None = None
    research: bool = False
    distribution: str = OWN_DISTRIBUTION
    version: str = ""
    plugin: str = ""

    @property
    def source(self) -> str:
        """Distribution and version, as messages name them."""
        return f"{self.distribution} {self.version}".rstrip()

    def missing(self) -> tuple[str, ...]:
        """The import names of :attr:`requires` that are not installed; imports none of them."""
        return tuple(name for name in self.requires if not is_installed(name))

    def install_command(self) -> str | None:
        """What installs :attr:`requires`, or None if the plugin declares no extra."""
        return f"pip install '{self.extra}'" if self.extra else None


@dataclass(frozen=True)
class PluginProblem:
    """Why a plugin, or a part of one, is not in use.

    Attributes:
        distribution: the distribution that the plugin came from.
        stage: ``"import"``, ``"check"`` (its hooks do not fit the specification) or the name of
            the hook that failed.
        message: one line that says what went wrong.
    """

    distribution: str
    stage: str
    message: str

    def may_have_given(self, kind: Kind) -> bool:
        """Whether the broken part could have registered names of this kind."""
        return self.stage in ("import", "check", HOOKS[kind])


def is_installed(module: str) -> bool:
    """Whether a top-level module can be found; it is not imported."""
    if sys.modules.get(module) is not None:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def one_line(error: BaseException, limit: int = 300) -> str:
    """``Type: message`` of an exception on one line of at most about ``limit`` characters.

    The type is left out for errors of this package, whose messages are complete.
    """
    try:
        text = " ".join(str(error).split())
    except Exception:  # other people's exceptions may fail to say what they are
        text = ""
    if len(text) > limit:
        text = text[:limit].rstrip() + "…"
    if text and isinstance(error, MmattribError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The known names that look most like ``name``, whatever their case; best first."""
    by_folded: dict[str, list[str]] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), []).append(candidate)
    close = difflib.get_close_matches(name.casefold(), list(by_folded), n=limit, cutoff=0.5)
    return [candidate for folded in close for candidate in by_folded[folded]][:limit]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'a' or 'b'?`` with a leading space, or nothing if no name is near."""
    close = nearest(name, known)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


class Registry:
    """The registered names of every kind, with the factory of each."""

    def __init__(self) -> None:
        self._claims: dict[tuple[Kind, str], list[Entry]] = {}
        self.problems: list[PluginProblem] = []
        """Plugins that did not load; an unknown name mentions those that might have given it."""

    def register(
        self,
        kind: Kind,
        name: str,
        factory: Callable[..., Any],
        *,
        summary: str = "",
        modalities: Sequence[str] = (),
        requires: Sequence[str] = (),
        extra: str | None = None,
        research: bool = False,
        distribution: str = OWN_DISTRIBUTION,
        version: str = "",
        plugin: str = "",
    ) -> Entry:
        """Register a name; a name that is taken stays registered with both claims.

        Args:
            kind: what the name stands for.
            name: letters, digits, ``-``, ``_`` and ``.``, starting with a letter or digit.
            factory: called with the user's keyword options when the name is asked for.
            summary: one line for listings.
            modalities: for a backbone, what it embeds.
            requires: top-level import names that the factory needs.
            extra: the extra that installs them, e.g. ``"mmattrib[clip]"``.
            research: keep it out of listings and of ``"all"`` unless asked for.
            distribution: who registers it.
            version: that distribution's version.
            plugin: which of its plugins registers it.

        Raises:
            PluginError: an argument cannot be used; the message says which and what is accepted.
        """
        if kind not in KINDS:
            raise PluginError(f"kind must be one of {', '.join(KINDS)}, got {brief(kind)}")
        _check_name(kind, name)
        _check_claim(f"{kind} {name!r}", factory, summary, modalities, requires, extra)
        entry = Entry(
            name=name,
            kind=kind,
            factory=factory,
            summary=summary,
            modalities=tuple(modalities),
            requires=tuple(requires),
            extra=extra,
            research=bool(research),
            distribution=distribution,
            version=version,
            plugin=plugin,
        )
        self._claims.setdefault((kind, name), []).append(entry)
        return entry

    def names(self, kind: Kind) -> list[str]:
        """Every registered name of this kind, in order; a name taken twice is among them."""
        return sorted(name for k, name in self._claims if k == kind)

    def entries(self, kind: Kind) -> list[Entry]:
        """Every claim to a name of this kind, by name."""
        return [entry for name in self.names(kind) for entry in self._claims[kind, name]]

    def usable(self, kind: Kind, *, research: bool = False) -> list[Entry]:
        """The entries of this kind that can be asked for now: one claim, nothing missing.

        Args:
            kind: what the names stand for.
            research: with those that are kept for comparison only.
        """
        claims = (self._claims[kind, name] for name in self.names(kind))
        return [
            c[0]
            for c in claims
            if len(c) == 1 and not c[0].missing() and (research or not c[0].research)
        ]

    def conflicts(self) -> list[tuple[Entry, ...]]:
        """The claims to each name that is taken more than once, by kind and name."""
        return [tuple(c) for _, c in sorted(self._claims.items()) if len(c) > 1]

    def is_conflicting(self, kind: Kind, name: str) -> bool:
        """Whether two plugins claim the name."""
        return len(self._claims.get((kind, name), ())) > 1

    def get(self, kind: Kind, name: str) -> Entry:
        """The entry under a name. Neither its requirements are checked nor its factory run.

        Raises:
            UnknownNameError: nothing is registered under it; the message gives the nearest names.
            PluginError: two plugins claim it; the message names both distributions.
        """
        if not isinstance(name, str):
            raise UnknownNameError(
                f"a {kind} is asked for by its name, got {type(name).__name__}; registered: "
                f"{', '.join(self.names(kind)) or 'none'}"
            )
        claims = self._claims.get((kind, name))
        if not claims:
            raise UnknownNameError(self._unknown(kind, name))
        if len(claims) > 1:
            raise PluginError(conflict_message(claims))
        return claims[0]

    def require(self, kind: Kind, name: str) -> Entry:
        """The entry under a name, once everything that it needs is installed.

        Raises:
            UnknownNameError, PluginError: as for :meth:`get`.
            MissingExtraError: a requirement is not installed; the message names the extra.
        """
        entry = self.get(kind, name)
        missing = entry.missing()
        if missing:
            plural = "are" if len(missing) > 1 else "is"
            command = entry.install_command()
            todo = (
                f"install {'them' if len(missing) > 1 else 'it'} with: {command}"
                if command
                else f"install what provides {'them' if len(missing) > 1 else 'it'}"
            )
            raise MissingExtraError(
                f"{kind} {name!r} needs {', '.join(missing)}, which {plural} not installed; {todo}"
            )
        return entry

    def check_options(self, kind: Kind, name: str, options: Iterable[str], flag: str = "") -> Entry:
        """The entry under a name, once everything that it needs is installed and given.

        Args:
            kind: what the name stands for.
            name: a registered name.
            options: the names of those that are given.
            flag: how the command line spells an option of this kind, e.g. ``"--data-option"``.

        Raises:
            UnknownNameError, PluginError, MissingExtraError: as for :meth:`require`.
            OptionError: the factory takes no such option, or needs one that is not given.
        """
        entry = self.require(kind, name)
        _check_options(entry, options, flag)
        return entry

    def create(self, kind: Kind, name: str, /, **options: Any) -> Any:
        """Call the factory under a name.

        Args:
            kind: what the name stands for.
            name: a registered name.
            **options: what the factory takes.

        Raises:
            UnknownNameError, PluginError, MissingExtraError: as for :meth:`require`.
            OptionError: the factory takes no such option, needs one that is not given, or says
                that it is of another type.
            PluginError: another distribution's factory failed with an error of its own; it is
                chained.
        """
        entry = self.check_options(kind, name, options)
        _check_types(entry, options)
        try:
            with nullcontext() if entry.distribution == OWN_DISTRIBUTION else contained():
                return entry.factory(**options)
        except (MmattribError, OSError, KeyboardInterrupt, Warning):
            raise
        except BaseException as error:  # a factory may even exit
            match = _UNEXPECTED_KEYWORD.search(str(error)) if isinstance(error, TypeError) else None
            if match and match[1] in options:
                raise OptionError(f"{kind} {name!r} takes no option {brief(match[1])}") from error
            if entry.distribution == OWN_DISTRIBUTION:
                raise  # a bug of our own is best seen as it is
            raise PluginError(
                f"{kind} {name!r} from {entry.source} failed with {one_line(error)}; that is a "
                "fault of this plugin: report it there"
            ) from error

    def _unknown(self, kind: Kind, name: str) -> str:
        known = self.names(kind)
        if kind == "backbone" and name in PUBLISHED:
            parts = [
                f"no backbone is named {name!r} here; it comes with a plugin: in a clone of "
                f"mmattrib, pip install ./plugins/{PUBLISHED[name]}."
            ]
        else:
            parts = [f"no {kind} is named {brief(name)}.{did_you_mean(str(name), known)}"]
        # Names kept for comparison can be asked for, but nobody who mistypes one is after them.
        offered = [n for n in known if not all(c.research for c in self._claims[kind, n])]
        parts.append(f"Registered: {', '.join(offered) or 'none'}.")
        broken = [p for p in self.problems if p.may_have_given(kind)]
        if broken:
            listed = "; ".join(f"{p.distribution} ({p.stage}: {p.message})" for p in broken[:3])
            parts.append(f"It may belong to a plugin that did not load: {listed}.")
            parts.append("`mmattrib plugins` shows every problem.")
        else:
            parts.append(
                "Others come from plugins: pip install one into this environment, and "
                "`mmattrib plugins` lists it."
            )
        return " ".join(parts)


def conflict_message(claims: Sequence[Entry]) -> str:
    """Say who claims a name and what to do about it."""
    first = claims[0]
    sources = list(dict.fromkeys(entry.source for entry in claims))
    if len(sources) == 1:
        return (
            f"{first.kind} {first.name!r} is registered {len(claims)} times by {sources[0]}; "
            "that is a fault of this distribution: report it there, or uninstall it"
        )
    others = [d for d in dict.fromkeys(e.distribution for e in claims) if d != OWN_DISTRIBUTION]
    return (
        f"{first.kind} {first.name!r} is claimed by {' and by '.join(sources)}; uninstall one of "
        f"them, e.g. pip uninstall {others[-1] if others else first.distribution}"
    )


def _check_name(kind: Kind, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"{brief(name, 120)} cannot name a {kind}; accepted: at most 100 letters, digits, '-', "
            "'_' and '.', starting with a letter or a digit"
        )
    if name.casefold() in _RESERVED:
        raise PluginError(f"{name!r} cannot name a {kind}: it stands for every {kind}")


def _check_claim(
    what: str,
    factory: object,
    summary: object,
    modalities: Sequence[str],
    requires: Sequence[str],
    extra: object,
) -> None:
    """Refuse arguments of :meth:`Registry.register` that a listing or a load would stumble over."""
    if not callable(factory):
        raise PluginError(f"the factory of {what} must be callable, got {type(factory).__name__}")
    if not isinstance(summary, str) or len(summary.splitlines()) > 1:
        raise PluginError(f"the summary of {what} must be one line of text")
    _check_strings(f"modalities of {what}", modalities)
    _check_strings(f"requires of {what}", requires)
    for module in requires:
        if not module.isidentifier():
            raise PluginError(
                f"requires of {what} takes top-level import names such as 'transformers', got "
                f"{module!r}"
            )
    if extra is not None and not isinstance(extra, str):
        raise PluginError(
            f"extra of {what} must be text such as 'mmattrib[clip]', got {brief(extra)}"
        )


def _check_strings(what: str, values: object) -> None:
    is_sequence = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    if not is_sequence or not all(isinstance(v, str) and v for v in values):  # type: ignore[attr-defined]
        raise PluginError(
            f"{what} must be a sequence of names such as ('image',), got {brief(values)}"
        )


def _check_options(entry: Entry, options: Iterable[str], flag: str = "") -> None:
    """Refuse options that the factory's signature does not take.

    A factory with ``**options`` checks them itself.
    """
    try:
        parameters = inspect.signature(entry.factory).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return
    named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    accepted = [p.name for p in named]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    what, given = f"{entry.kind} {entry.name!r}", tuple(options)
    for option in given:
        if option not in accepted and not takes_any:
            raise OptionError(
                f"{what} takes no option {brief(option)}.{did_you_mean(option, accepted)} "
                f"Accepted: {', '.join(accepted) or 'none'}"
            )
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in given:
            spelled = f"{flag or 'give'} {parameter.name}={_stands_for(parameter)}"
            todo = f"add {spelled}" if flag else spelled
            raise OptionError(
                f"{what} needs the option {parameter.name!r}, which is not given; {todo}"
            )


_TYPES: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "bool": ("true or false", (bool,)),
    "int": ("a whole number", (Integral,)),
    "float": ("a number", (Real,)),
    "str": ("text", (str,)),
    "Path": ("a path", (PurePath,)),
    "None": ("None", (type(None),)),
    "Sequence": ("a sequence", (Sequence,)),
    "Mapping": ("a mapping", (Mapping,)),
}
"""Annotations that say all of a type -> what messages call it, and what is accepted."""


def _check_types(entry: Entry, options: Mapping[str, Any]) -> None:
    """Refuse options of another type than the factory's signature says.

    Only where every part of the annotation is in :data:`_TYPES`; the factory checks all others,
    members of sequences, and ranges. A truth value is no number.
    """
    try:
        parameters = inspect.signature(entry.factory).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return
    for name, value in options.items():
        note = parameters[name].annotation if name in parameters else None
        text = note if isinstance(note, str) else getattr(note, "__name__", "")
        parts = [part.strip().partition("[")[0] for part in text.split("|")]
        if not all(part in _TYPES for part in parts):
            continue
        accepted = tuple(kind for part in parts for kind in _TYPES[part][1])
        if not isinstance(value, accepted) or (isinstance(value, bool) and "bool" not in parts):
            told = " or ".join(_TYPES[part][0] for part in parts)
            hint = ""
            if "str" in parts and isinstance(value, int | float) and abs(value) < 10**30:
                hint = f"; as text, write {name}='\"{value}\"'"
            raise OptionError(
                f"{entry.kind} {entry.name!r}: {name} must be {told}, got {brief(value, 120)}{hint}"
            )


def _stands_for(parameter: inspect.Parameter) -> str:
    """What to write for a value, in capitals."""
    if parameter.name in {"folder", "directory"}:
        return "DIR"
    return "PATH" if "Path" in str(parameter.annotation) else "VALUE"
