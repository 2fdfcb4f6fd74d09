"""Every limit of the supervisor, in one place."""


class SupervisorLimits:
    """Bytes, seconds and counts. Each may be set at start by `--limit NAME=NUMBER`."""

    line_bytes_max: float = 512 * 1024
    """The longest request."""
    answer_bytes_max: float = 4 * 1024 * 1024
    """What may wait to be read by one connection before it is closed."""
    connections_max: float = 16
    slots_max: float = 256
    probes_max: float = 32
    """Command probes that run at the same time."""
    probe_seconds_max: float = 600
    probe_output_bytes_max: float = 4096
    """How much of the end of a command probe's output is kept."""
    grace_seconds_max: float = 3600
    shutdown_grace_seconds: float = 10
    """Given to every workload when the supervisor is told to end."""
    agent_grace_seconds: float = 20
    agent_backoff_seconds_first: float = 1
    agent_backoff_seconds_max: float = 60
    agent_steady_seconds: float = 60
    """An agent that ran as long as this is started again without counting earlier exits."""
    agent_healthy_seconds_max: float = 120
    """A new agent version that has not reported healthy by then is given up."""
    agent_trial_exits_max: float = 3
    """Exits of a new agent version before it reported healthy, at which it is given up."""
    agent_trial_starts_max: float = 3
    """Starts of the supervisor with a new agent version on trial, after which it is given up."""
    log_file_bytes_max: float = 1024 * 1024
    log_files_max: float = 4
    """`current.log` and older ones, per instance."""
    log_bytes_per_second: float = 128 * 1024
    """What an instance may write for long; beyond it output is dropped and counted."""
    log_burst_bytes: float = 1024 * 1024
    log_pause_seconds: float = 0.02
    """Between two reads from a process that writes too much: it is slowed down rather than this process busy."""
    sweep_seconds: float = 0.02
    """Between two looks for processes that a slot left behind."""
    sweep_rounds_max: float = 250
    open_files_max: float = 4096
    processes_max: float = 512
    """Per workload, with cgroups only."""
    data_factor: float = 2
    data_extra_bytes: float = 256 * 1024 * 1024
    """Without cgroups a workload's RLIMIT_DATA is its memory times `data_factor` plus this. The limit counts what was mapped, not what is
    used, and runtimes such as ONNX Runtime map generously: it stops a leak, it is no exact bound."""
    workload_nice: float = 5
    workload_oom_score: float = 500
    """So that the kernel ends a workload before the agent."""
    port_first: float = 20000
    port_count: float = 10000
    listen_backlog: float = 512

    def __init__(self, overrides: "dict[str, float] | None" = None) -> None:
        for name, value in (overrides or {}).items():
            if name not in SupervisorLimits.__annotations__:
                raise ValueError(f"there is no limit called {name}")
            setattr(self, name, value)
