"""What the handlers of both servers work with, in one place."""

import asyncio

from edgewise.control.config import ControlConfig
from edgewise.control.data import OnlineKeys
from edgewise.control.limits import ControlLimits
from edgewise.control.polls import Polls
from edgewise.control.repository import Repository
from edgewise.control.runner import Runner
from edgewise.control.streams import Streams
from edgewise.control.transfers import Transfers
from edgewise.ports.clock import Clock
from edgewise.ports.randomness import Randomness
from edgewise.store.contract import BlobStore, Store
from edgewise.trust.authority import Issuer


class Services:
    """The parts of a running control plane. Everything is made by `process.py`; nothing here decides anything."""

    def __init__(
        self,
        *,
        config: ControlConfig,
        keys: OnlineKeys,
        store: Store,
        blobs: BlobStore,
        repository: Repository,
        runner: Runner,
        polls: Polls,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self.config = config
        self.limits: ControlLimits = config.limits
        self.keys = keys
        self.issuer: Issuer = keys.issuer()
        self.store = store
        self.blobs = blobs
        self.repository = repository
        self.runner = runner
        self.polls = polls
        self.streams = Streams(config.limits, polls.wake)
        self.transfers = Transfers(blobs, config.limits)
        self.clock = clock
        self.randomness = randomness
        self.ending = asyncio.Event()
        """Set when the process is told to end: whoever waits without an end stops then."""
        self.gateway_addresses: tuple[str, ...] = ()
        """Where devices reach the gateway; known once it listens."""
