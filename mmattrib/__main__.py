"""``python -m mmattrib``."""

from __future__ import annotations

from mmattrib.cli import main

if __name__ == "__main__":
    main(prog_name="mmattrib")
