"""The command line. Heavy imports happen inside the commands, so that listing stays quick."""

from __future__ import annotations

from mmattrib.cli.program import main

__all__ = ["main"]
