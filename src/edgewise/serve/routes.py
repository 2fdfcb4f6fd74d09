"""Which path means what, on the service's socket and on the control socket."""

import re
from typing import Final, Literal

import msgspec

from edgewise.serve.answers import Answer, problem
from edgewise.serve.inference import Identity

Place = Literal[
    "server",
    "live",
    "ready",
    "metrics",
    "model",
    "model-ready",
    "infer",
    "feedback",
    "stats",
    "config",
    "index",
    "load",
    "control-ready",
    "activate",
    "drain",
    "traffic",
    "mirror",
]

_MODEL: Final = r"/v2/models/(?P<name>[^/]{1,200})(/versions/(?P<version>[^/]{1,200}))?"


class _Route(msgspec.Struct, frozen=True):
    """One path. `control`: only on the control socket."""

    pattern: re.Pattern[str]
    method: str
    place: Place
    control: bool = False


_ROUTES: Final = (
    _Route(re.compile(rf"{_MODEL}/infer"), "POST", "infer"),
    _Route(re.compile(rf"{_MODEL}/feedback"), "POST", "feedback"),
    _Route(re.compile(r"/v2/health/live"), "GET", "live"),
    _Route(re.compile(r"/v2/health/ready"), "GET", "ready"),
    _Route(re.compile(rf"{_MODEL}/ready"), "GET", "model-ready"),
    _Route(re.compile(rf"{_MODEL}/stats"), "GET", "stats"),
    _Route(re.compile(r"/v2/models/stats"), "GET", "stats"),
    _Route(re.compile(rf"{_MODEL}/config"), "GET", "config"),
    _Route(re.compile(r"/v2/repository/index"), "POST", "index"),
    _Route(re.compile(r"/v2/repository/models/[^/]{1,200}/(un)?load"), "POST", "load"),
    _Route(re.compile(_MODEL), "GET", "model"),
    _Route(re.compile(r"/v2/?"), "GET", "server"),
    _Route(re.compile(r"/metrics"), "GET", "metrics"),
    _Route(re.compile(r"/ready"), "GET", "control-ready", control=True),
    _Route(re.compile(r"/activate"), "POST", "activate", control=True),
    _Route(re.compile(r"/drain"), "POST", "drain", control=True),
    _Route(re.compile(r"/traffic"), "PUT", "traffic", control=True),
    _Route(re.compile(r"/mirror"), "POST", "mirror", control=True),
)


def find(method: str, path: str, identity: Identity, *, control: bool) -> Place | Answer:
    """Return what a request is for, or the answer that it is for nothing (404, 405)."""
    for route in _ROUTES:
        match = route.pattern.fullmatch(path)
        if match is None or (route.control and not control):
            continue
        if method != route.method:
            return problem(405, f"{path[:200]} takes {route.method}", allow=route.method)
        parts = match.groupdict()
        if parts.get("name") not in {None, identity.name}:
            return problem(404, f"there is no model {parts['name'][:100]!r} here, only {identity.name!r}")
        if parts.get("version") not in {None, *identity.versions}:
            return problem(404, f"there is no version {parts['version'][:100]!r} here, only {identity.versions[0]!r}")
        return route.place
    return problem(404, f"there is nothing at {path[:200]}")
