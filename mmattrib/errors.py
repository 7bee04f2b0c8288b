"""Errors and warnings. Each message says what was given, what is accepted and what to do."""

from __future__ import annotations


class MmattribError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(MmattribError, ValueError):
    """A raw input (file, array, caption) cannot be used."""


class OptionError(MmattribError, ValueError):
    """An option of a method, a backbone or a command is out of range or unknown."""


class UnknownNameError(MmattribError, LookupError):
    """No backbone, method, metric or command is registered under this name."""


class PluginError(MmattribError, RuntimeError):
    """A plugin is broken, or two plugins claim one name."""


class MissingExtraError(MmattribError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class WeightsError(MmattribError, RuntimeError):
    """A checkpoint is missing, truncated, or does not fit its model."""


class EncoderError(MmattribError, TypeError):
    """An encoder does not keep its contract; the message names the part that broke."""


class MethodError(MmattribError, TypeError):
    """A method does not keep its contract; the message names the part that broke."""


class MetricError(MmattribError, TypeError):
    """A metric does not keep its contract; the message names the part that broke."""


class DatasetError(MmattribError, TypeError):
    """A data set does not keep its contract; the message names the part that broke."""


class TrustWarning(UserWarning):
    """A map was computed, but its diagnostics say that it should not be trusted."""


class WorkerError(MmattribError, RuntimeError):
    """A process that shared the work ended by itself."""


class InputWarning(UserWarning):
    """An input was taken as its type says, but its values suggest that something else was meant."""
