"""The command line: verbs over the same functions as the flows."""

from __future__ import annotations

import logging
import sys

from think2seg.cli import archive, learning, models, review, samples  # noqa: F401  # each registers its verbs
from think2seg.cli.app import app, print_json, stderr
from think2seg.errors import StoreError, Think2SegError


def main() -> None:
    """Run the command line; errors become three plain lines and an exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except Think2SegError as error:
        _fail(error)
    except OSError as error:
        _fail(StoreError(str(error), "", "Check that path, and run again."))


def _fail(error: Think2SegError) -> None:
    if "--json" in sys.argv:
        print_json({"error": type(error).__name__, "given": error.given, "allowed": error.allowed, "todo": error.todo,
                     "exit_code": error.exit_code})  # fmt: skip
    stderr.print(f"Error: {error}", markup=False, soft_wrap=True)
    sys.exit(error.exit_code)
