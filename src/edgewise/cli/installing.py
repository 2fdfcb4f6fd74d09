"""Installing the agent as a systemd unit: what is written and which commands follow, as a plan that can be shown first."""

import grp
import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from edgewise.agent.unit import UnitRefused, unit_text
from edgewise.cli.failures import CommandError

UNIT: Final = "edgewise-agent.service"
ACCOUNT: Final = "edgewise"
_GROUPS: Final = ("video", "render", "dialout", "gpio", "i2c", "spi")
_STEP_SECONDS_MAX: Final = 120
# What a user's own service manager has no right to do, or does not know.
_SYSTEM_ONLY: Final = (
    "User=",
    "Group=",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "SupplementaryGroups=",
    "# Cameras",
    "ProtectClock=",
    "ProtectKernelTunables=",
    "ProtectKernelModules=",
    "ProtectKernelLogs=",
    "ProtectHostname=",
    "ProtectSystem=",
    "ProtectHome=",
    "PrivateTmp=",
    "ReadWritePaths=",
)

Step = tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done: `text` goes to `path`, then `steps` are run, each an argument vector."""

    path: str
    text: str
    steps: tuple[Step, ...]


def plan(data: str, *, for_user: bool) -> Plan:
    """Return what installing means on this machine. Raises `CommandError`."""
    groups = tuple(group for group in _GROUPS if _exists(group))
    try:
        text = unit_text(data, user=ACCOUNT, python=sys.executable, groups=groups)
    except UnitRefused as error:
        raise CommandError(str(error)) from None
    if for_user:
        lines = [line for line in text.splitlines() if not line.startswith(_SYSTEM_ONLY)]
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd" / "user"
        text = "\n".join(lines).replace("WantedBy=multi-user.target", "WantedBy=default.target") + "\n"
        steps: tuple[Step, ...] = (
            ("systemctl", "--user", "daemon-reload"),
            ("systemctl", "--user", "enable", "--now", UNIT),
            # Without this, user services end with the user's last session.
            ("loginctl", "enable-linger"),
        )
        return Plan(path=str(folder / UNIT), text=text, steps=steps)
    account: tuple[Step, ...] = (
        ()
        if _has_account()
        else (("useradd", "--system", "--home-dir", data, "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT),)
    )
    steps = (
        *account,
        ("chown", "-R", f"{ACCOUNT}:{ACCOUNT}", data),
        ("systemctl", "daemon-reload"),
        ("systemctl", "enable", "--now", UNIT),
    )
    return Plan(path=f"/etc/systemd/system/{UNIT}", text=text, steps=steps)


def check(data: str, *, for_user: bool) -> None:
    """See that the unit could start, before anything is changed. Raises `CommandError`."""
    if not (Path(data) / "agent" / "config.json").exists():
        raise CommandError("this device has not joined", data, f"type edgewise agent join --token-file FILE --data {data} first")
    closed = None if for_user else closed_to_others(sys.executable, sys.prefix)
    if closed is not None:
        hint = "put the virtual environment where everybody may read it, such as /opt/edgewise, and install from there"
        raise CommandError(f"the user {ACCOUNT}, as which the agent will run, may not enter {closed}", sys.executable, hint)


def carry_out(plan: Plan) -> None:
    """Write the unit and run the steps. Raises `CommandError` at the first that fails."""
    if shutil.which("systemctl") is None:
        raise CommandError(
            "this machine has no systemd", hint="--dry-run prints the unit; let your own service manager start edgewise agent run"
        )
    path = Path(plan.path)
    if path.is_relative_to("/etc") and os.geteuid() != 0:
        raise CommandError("installing for the whole machine takes root", plan.path, "use sudo, or --user for this user alone")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(plan.text, "utf-8")
        path.chmod(0o644)
    except OSError as error:
        raise CommandError(f"the unit cannot be written: {error.strerror}", plan.path) from None
    for step in plan.steps:
        _run(step)


def closed_to_others(*paths: str) -> Path | None:
    """Return the first folder on the way to one of `paths`, links followed, that only its owner and group may enter, as home folders
    usually are."""
    for text in paths:
        for path in (Path(text).absolute(), Path(text).resolve()):
            for folder in (*reversed(path.parents), path):
                if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
                    return folder
    return None


def _run(step: Step) -> None:
    try:
        done = subprocess.run(step, capture_output=True, text=True, timeout=_STEP_SECONDS_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{step[0]} could not be run: {error}", " ".join(step)) from None
    if done.returncode != 0:
        raise CommandError(f"{step[0]} failed with {done.returncode}", f"{' '.join(step)}\n{done.stderr.strip()}")


def _exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def _has_account() -> bool:
    try:
        pwd.getpwnam(ACCOUNT)
    except KeyError:
        return False
    return True
