"""What the agent leaves in `run/agent.json` for people who look at the device itself (see `status.py`)."""

from typing import Final

import msgspec

from edgewise.engine.model import SLOTS, State
from edgewise.ports.files import Files, FilesError

PATH: Final = "run/agent.json"


class InstanceLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One instance, as last told to the control plane. `name` is NAMESPACE/WORKLOAD."""

    name: str
    state: str
    update: str = ""
    revision: str = ""
    ready: bool = False
    address: str = ""
    message: str = ""


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The agent by its own account. `written_at` and `last_contact` in seconds since the Unix epoch; `online` None: not known yet."""

    version: str
    pid: int
    device: str
    written_at: float = 0.0
    online: bool | None = None
    last_contact: float = 0.0
    position: str = ""
    certificate_not_after: float = 0.0
    storage: str = ""
    instances: tuple[InstanceLine, ...] = ()


def instance_lines(state: State) -> tuple[InstanceLine, ...]:
    """Return what a person may see of the instances."""
    lines: list[InstanceLine] = []
    for name, live in sorted(state.live.items()):
        told = live.reported
        if told is None:
            running = any(live.slots[slot].launch_id for slot in SLOTS)
            lines.append(InstanceLine(name=name, state="Running" if running else "Pending"))
            continue
        lines.append(
            InstanceLine(
                name=name,
                state=told.state.value,
                update=told.update.value,
                revision=told.revision,
                ready=told.ready,
                address=told.address,
                message=told.message,
            )
        )
    return tuple(lines)


class StatusFile:
    """Writes the status when it differs from what was written last."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._written: AgentStatus | None = None

    def write(self, status: AgentStatus) -> bool:
        """Write `status` if it is news. Returns whether it was. A disk that takes nothing is no error here."""
        plain = msgspec.structs.replace(status, written_at=0.0, last_contact=0.0)
        if plain == self._written:
            return False
        try:
            self._files.make_folder("run")
            self._files.replace(PATH, msgspec.json.encode(status))
        except FilesError:
            return False
        self._written = plain
        return True
