"""The entry point, and what every command does about errors, Ctrl-C and closed pipes.

The commands themselves are imported late (`app.py`), so that Ctrl-C is clean from the first moment.
"""

import sys
from collections.abc import Sequence


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. Errors are told on standard error."""
    from edgewise.cli import failures

    try:
        import typer

        from edgewise.cli.app import app
    except KeyboardInterrupt:
        return 130
    try:
        code = app(list(arguments), prog_name="edgewise", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return failures.pipe_closed()
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:  # noqa: BLE001 - the outermost place: what is not known is told as a defect
        return failures.tell(error)
    return code if isinstance(code, int) else 0
