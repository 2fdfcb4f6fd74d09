"""How the short-lived process reaches the control plane."""

import time

from edgewise.agent.http import Client, Endpoint
from edgewise.agent.jobs import Place
from edgewise.agent.tls import client_context
from edgewise.engine.identity import CERTIFICATE_PATH, KEY_PATH, Identity


def connect(place: Place, identity: Identity, *, as_device: bool = True) -> Client:
    """Return a client that trusts the pinned authority and, `as_device`, shows the device's certificate. Raises `TlsFailed`."""
    folder = place.data.rstrip("/")
    shown = (f"{folder}/{CERTIFICATE_PATH}", f"{folder}/{KEY_PATH}") if as_device else (None, None)
    context = client_context(identity.certificates.authority, *shown)
    return Client(Endpoint(addresses=place.addresses, context=context, proxy=place.proxy), lambda: now(place))


def now(place: Place) -> float:
    """Return the time to judge by: the later of the clock and the floor."""
    return max(time.time(), place.floor)
