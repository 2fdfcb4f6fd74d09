"""The device's tiny parent process. It starts the agent from one of two versions and owns the workload processes, their limits, logs and
listening sockets, so that an agent may be restarted or replaced while workloads run on and no exit code is lost.

Rules: the standard library only, and of it as little as can be, because this process is resident on the smallest device: no `json`, `re`,
`enum`, `typing`, `socket`, `subprocess`, `logging` or `pathlib` (a test guards the list; each costs up to a megabyte, all of them together
double what the process needs beyond the interpreter). One thread, one `epoll`, no timer that fires while nothing happens. It decides
nothing: what to run is the engine's business.

When the supervisor dies, even by SIGKILL, its children die with it (PR_SET_PDEATHSIG), and what they left behind is found and killed by the
next one (`stale.py`). SIGTERM, SIGINT and SIGHUP stop all workloads, then the agent, and end it with status 0; the gentle way, which lets
workloads run, is the request `stop-agent`. Restarting the supervisor itself is for systemd, or the person who started it.

Everybody with the same user on the machine may speak to it, as they may send it signals: workloads run under the agent's user, and that
user is the boundary.

Start reading at `main.py`.
"""
