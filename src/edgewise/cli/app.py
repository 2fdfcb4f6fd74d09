"""All commands, put together."""

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
    serve_command,
    simulate_command,
    token_commands,
    twin_commands,
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
twin_commands.register(app)
simulate_command.register(app)
serve_command.register(app)
context_commands.register(app)
info_commands.register(app)
