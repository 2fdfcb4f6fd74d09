"""The demo's report: what was done and measured. The shape stays; new fields may come."""

import msgspec
from rich.console import Console
from rich.table import Table

Fact = str | int | float | bool


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """One step: whether it held, how long it took in seconds, and what was measured on the way."""

    name: str
    ok: bool
    seconds: float
    facts: dict[str, Fact]


class RolloutReport(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, from `edgewise apply` to its end. `outcome` is its last state."""

    workload: str
    version: str
    outcome: str
    seconds: float
    devices_touched: int


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """What the cameras counted. `answered` includes answers that were errors; `dropped` had no answer."""

    sent: int = 0
    answered: int = 0
    dropped: int = 0


class Report(msgspec.Struct, kw_only=True):
    """Everything. Memory is proportional set size in 10^6 bytes, the median over the devices. `idle_wire_bytes_per_hour` counts TCP payload
    in both directions (TLS and HTTP included), measured over some polls and taken at the product's own cadence."""

    ok: bool = False
    steps: list[StepReport] = []
    rollouts: list[RolloutReport] = []
    requests: Requests = Requests()
    offline_restart_seconds: float | None = None
    failover_seconds: float | None = None
    agent_pss_mb: float | None = None
    supervisor_pss_mb: float | None = None
    idle_wire_bytes_per_hour: float | None = None


def show(report: Report, console: Console) -> None:
    """Print the closing table."""
    steps = Table(title="What was shown", show_edge=False)
    steps.add_column("step")
    steps.add_column("held")
    steps.add_column("seconds", justify="right")
    for step in report.steps:
        steps.add_row(step.name, "yes" if step.ok else "NO", f"{step.seconds:.1f}")
    rollouts = Table(title="Rollouts", show_edge=False)
    for column in ("workload", "version", "outcome"):
        rollouts.add_column(column)
    rollouts.add_column("seconds", justify="right")
    rollouts.add_column("devices touched", justify="right")
    for one in report.rollouts:
        rollouts.add_row(one.workload, one.version, one.outcome, f"{one.seconds:.1f}", str(one.devices_touched))
    numbers = Table(title="Measured here, just now", show_edge=False)
    numbers.add_column("what")
    numbers.add_column("value", justify="right")
    for name, value in _numbers(report):
        numbers.add_row(name, value)
    console.print()
    for table in (steps, rollouts, numbers):
        console.print(table)
        console.print()


def _numbers(report: Report) -> tuple[tuple[str, str], ...]:
    requests = report.requests
    return (
        ("requests that the cameras sent / answered / dropped", f"{requests.sent} / {requests.answered} / {requests.dropped}"),
        ("a device back at work after a power cut, offline", _with_unit(report.offline_restart_seconds, "s")),
        ("a replica of a lost device at work elsewhere", _with_unit(report.failover_seconds, "s")),
        ("resident agent, memory (PSS, median of the fleet)", _with_unit(report.agent_pss_mb, "MB")),
        ("supervisor, memory (PSS, median of the fleet)", _with_unit(report.supervisor_pss_mb, "MB")),
        ("idle device on the wire", _with_unit(report.idle_wire_bytes_per_hour, "bytes/h")),
    )


def _with_unit(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:,.1f} {unit}"
