"""What the checks of methods, metrics and data sets share: how they fail, and what is JSON."""

from __future__ import annotations

import json
from typing import Any, ClassVar, NoReturn

from mmattrib.errors import MmattribError


class Check:
    """One run of a check.

    Attributes:
        function: what its author called.
        kind: of what is checked, in words.
        fault: what is raised.
        subject: what is checked.
    """

    function: ClassVar[str]
    kind: ClassVar[str]
    fault: ClassVar[type[MmattribError]]

    def __init__(self, subject: Any) -> None:
        """Take what is checked."""
        self.subject = subject

    def fail(self, message: str) -> NoReturn:
        """Raise the fault, with the name of what is checked and what it does."""
        name = getattr(self.subject, "name", type(self.subject).__name__)
        raise self.fault(f"{self.function}: {self.kind} {name!r} {message}")

    def check_lines(self, *names: str) -> None:
        """Fail unless each of these attributes is one line of text."""
        for name in names:
            value = getattr(self.subject, name, None)
            if not isinstance(value, str) or len(value.splitlines()) != 1:
                self.fail(f"has {name} {value!r}; accepted: one line of text")

    def check_json(self, value: Any, given: str = "describes itself with what") -> None:
        """Fail unless JSON holds a value and gives it back as it was."""
        try:
            same = json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError) as error:
            self.fail(f"{given} JSON cannot hold: {error}")
        if not same:
            self.fail(f"{given} JSON changes, such as a tuple: {value!r}")
