"""What a person may see of this device without a network: `edgewise agent status`.

The agent leaves a small file in `run/` whenever something that a person would notice changes; who prints it reads that file and the
configuration, and asks the supervisor what runs.
"""

import time
from typing import Final

import msgspec

from edgewise.agent.config import AgentConfig, ConfigError, read_config
from edgewise.agent.statusfile import PATH, AgentStatus
from edgewise.ports.files import Files, FilesError
from edgewise.resources.decoding import UNREADABLE

_BYTES_MAX: Final = 1024 * 1024


class LocalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be said from the device's own files. `agent` is None when it never ran."""

    config: AgentConfig | None
    agent: AgentStatus | None
    problem: str = ""


def read_status(files: Files) -> LocalStatus:
    """Read the device's own account of itself. Whether its process still lives is the supervisor's to say."""
    problem, config, agent = "", None, None
    try:
        config = read_config(files)
    except (ConfigError, FilesError) as error:
        problem = str(error)
    try:
        agent = msgspec.json.decode(files.read(PATH, _BYTES_MAX), type=AgentStatus)
    except (FilesError, *UNREADABLE):
        agent = None
    return LocalStatus(config=config, agent=agent, problem=problem)


def status_lines(status: LocalStatus, now: float) -> list[str]:
    """Return the status as lines for a person."""
    lines = [f"problem:    {status.problem}"] if status.problem else []
    if status.config is not None:
        lines.append(f"device:     {status.config.device} (agent {status.config.agent})")
        lines.append(f"addresses:  {', '.join(status.config.addresses)}")
    agent = status.agent
    if agent is None:
        return [*lines, "agent:      has not run here yet"]
    link = {True: "online", False: "offline", None: "not heard of yet"}[agent.online]
    lines.append(f"agent:      version {agent.version}, pid {agent.pid}, as of {_date(agent.written_at)}")
    lines.append(f"link:       {link}" + (f", last contact {max(0.0, now - agent.last_contact):.0f} s ago" if agent.last_contact else ""))
    lines.append(f"desired:    {agent.position or 'nothing received yet'}")
    if agent.certificate_not_after:
        lines.append(f"identity:   certificate until {_date(agent.certificate_not_after)}")
    if agent.storage:
        lines.append(f"disk:       {agent.storage}")
    for each in agent.instances:
        ready = " ready" if each.ready else ""
        tail = f" {each.address}" if each.address else ""
        lines.append(
            f"instance:   {each.name} {each.state}{ready} {each.revision or '-'}{tail}" + (f" ({each.message})" if each.message else "")
        )
    return lines


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
