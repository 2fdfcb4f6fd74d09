"""The entry point: all commands, and what every one of them does about errors, Ctrl-C and closed pipes."""

import sys
from collections.abc import Sequence

import typer

from edgewise.cli import (
    agent_commands,
    artifact_commands,
    context_commands,
    device_commands,
    info_commands,
    log_commands,
    resource_commands,
    rollout_commands,
    token_commands,
    up_command,
)

app = typer.Typer(
    name="edgewise",
    help="Runs AI on fleets of edge devices and keeps it healthy.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

up_command.register(app)
token_commands.register(app)
agent_commands.register(app)
artifact_commands.register(app)
resource_commands.register(app)
log_commands.register(app)
rollout_commands.register(app)
device_commands.register(app)
context_commands.register(app)
info_commands.register(app)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. Errors are told on standard error."""
    from edgewise.cli import failures

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
