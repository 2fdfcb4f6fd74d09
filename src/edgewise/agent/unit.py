"""The systemd unit of a device: started at boot, restarted always, and allowed as little as the work needs."""

import re
import sys
from typing import Final

_SAFE_PATH: Final = re.compile(r"/[-A-Za-z0-9._/+@]*")
_SAFE_USER: Final = re.compile(r"[a-z_][-a-z0-9_]{0,31}")

_TEMPLATE: Final = """\
[Unit]
Description=Edgewise agent (runs this device's workloads, with or without a network)
After=network.target local-fs.target time-sync.target
Wants=network.target
# A device in the field has nobody to reset a failed unit.
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
Group={user}
ExecStart={python} -m edgewise.supervisor --data {data}
Restart=always
RestartSec=2s
# The supervisor stops its workloads itself, in order; what is left after that is killed.
KillMode=mixed
TimeoutStopSec=45s
# Workloads get their own control groups below the unit's.
Delegate=cpu memory pids
OOMPolicy=continue
Environment=PYTHONUNBUFFERED=1 MALLOC_ARENA_MAX=1

UMask=0077
ReadWritePaths={data}
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
# Cameras and accelerators belong to these groups; what the machine does not have is left out.
SupplementaryGroups={groups}

[Install]
WantedBy=multi-user.target
"""


class UnitRefused(ValueError):
    """A path or user name could not stand in a unit file."""


def unit_text(data_folder: str, user: str = "edgewise", python: str = sys.executable, groups: tuple[str, ...] = ()) -> str:
    """Return the unit's text. `groups` are supplementary groups that exist on this machine (`video`, `render`). Raises `UnitRefused`.

    `ProtectControlGroups` is left out on purpose: the unit's own subtree is delegated to it and must stay writable."""
    for what, value, pattern in (
        ("data folder", data_folder, _SAFE_PATH),
        ("interpreter", python, _SAFE_PATH),
        ("user", user, _SAFE_USER),
        *(("group", group, _SAFE_USER) for group in groups),
    ):
        if pattern.fullmatch(value) is None or ".." in value.split("/"):
            raise UnitRefused(f"the {what} {value!r} cannot stand in a unit file: use letters, digits and -._/+@")
    text = _TEMPLATE.format(user=user, python=python, data=data_folder, groups=" ".join(groups))
    return text if groups else "\n".join(line for line in text.split("\n") if not line.startswith(("SupplementaryGroups", "# Cameras")))
