"""The client: everything that a person can ask of a control plane.

    async with Client.from_context(namespace="line-3") as fleet:
        applied = await fleet.apply(load("inspector.yaml"))
        rollout = await fleet.wait_rollout("inspector", timeout=600)

Methods raise `Error` and its kinds (see `errors.py`). A `namespace` of None means the client's own; resources that name their
namespace keep it.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self, TypeVar, cast
from urllib.parse import quote

import httpx
import msgspec

from edgewise.client.answers import (
    Applied,
    AppliedResource,
    Change,
    Event,
    ListBody,
    Listing,
    Metric,
    Placement,
    Token,
    TokenAnswer,
    Version,
)
from edgewise.client.connection import API, ClientLimits, Connection, Params, decode
from edgewise.client.context import Context, choose_context, contexts_path, read_contexts
from edgewise.client.errors import Invalid, Problem, Unreachable
from edgewise.client.publishing import Progress, Release, publish
from edgewise.client.rollouts import wait_for_rollout
from edgewise.client.watching import Backoff, Compacted, Lookout, Mirror, watch_events, watch_once
from edgewise.resources.artifact import ArtifactVersion
from edgewise.resources.device import Device
from edgewise.resources.kinds import BY_TYPE, Kind, Resource
from edgewise.resources.rollout import Rollout, RolloutAction
from edgewise.resources.validation import problems
from edgewise.resources.workload import Workload

R = TypeVar("R", bound=Resource)
Role = Literal["viewer", "operator", "admin"]
TokenKind = Literal["join", "access"]


class Client:
    """A connection to one control plane. Use as an asynchronous context manager, or `close` it."""

    def __init__(self, context: Context, *, limits: ClientLimits | None = None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Connect lazily with `context`. `transport` takes the place of the network, for tests."""
        self.limits = limits or ClientLimits()
        self.namespace = context.namespace
        self.address = context.address
        self._connection = Connection(context, self.limits, transport)

    @classmethod
    def from_context(cls, name: str = "", *, namespace: str = "", limits: ClientLimits | None = None) -> Self:
        """Return a client for the context called `name`, or the current one. Raises `ContextError`."""
        _, context = choose_context(read_contexts(contexts_path()), name)
        if namespace:
            context = msgspec.structs.replace(context, namespace=namespace)
        return cls(context, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    # ---- resources ----

    async def apply(self, resources: Resource | Sequence[Resource], *, namespace: str | None = None, dry_run: bool = False) -> Applied:
        """Create or replace each resource's spec and labels, in order. A resource whose metadata has a generation is only replaced while it
        still has that one (`Conflict` otherwise). With `dry_run` nothing changes. All are checked before the first is sent."""
        given = resources if isinstance(resources, Sequence) else (resources,)
        placed = self.checked(given, namespace=namespace)
        return Applied(items=tuple([await self._apply(resource, dry_run) for resource in placed]))

    def checked(self, resources: Sequence[Resource], *, namespace: str | None = None) -> tuple[Resource, ...]:
        """Return the resources with their namespaces filled in, as `apply` would send them. Raises `Invalid` with what is wrong in all."""
        placed = tuple(self._placed(resource, namespace) for resource in resources)
        wrong = [problem for resource in placed for problem in problems(resource)]
        if wrong:
            raise Invalid(wrong)
        return placed

    async def get(self, kind: type[R], name: str, *, namespace: str | None = None) -> R:
        """Return one resource. Raises `NotFound`."""
        return await self._connection.json("GET", self._path(kind, name, namespace), kind)

    async def list(
        self, kind: type[R], *, namespace: str | None = None, all_namespaces: bool = False, labels: Mapping[str, str] | None = None
    ) -> tuple[R, ...]:
        """Return all resources of a kind, in the order of their names, with labels equal to `labels`."""
        listing = await self.listing(kind, namespace=namespace, all_namespaces=all_namespaces, labels=labels)
        return listing.items

    async def listing(
        self, kind: type[R], *, namespace: str | None = None, all_namespaces: bool = False, labels: Mapping[str, str] | None = None
    ) -> Listing[R]:
        """Return what `list` does, and the revision from which a watch misses nothing."""
        items: list[R] = []
        revision: int | None = None
        async for page in self.pages(kind, namespace=namespace, all_namespaces=all_namespaces, labels=labels):
            items.extend(page.items)
            # Pages may be of different revisions; only from the first one a watch misses nothing.
            revision = page.revision if revision is None else revision
        return Listing(items=tuple(items), revision=revision or 0)

    async def pages(
        self, kind: type[R], *, namespace: str | None = None, all_namespaces: bool = False, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Listing[R]]:
        """Yield what `list` returns, page by page as it comes: for many resources, and for who wants to tell how far it is."""
        lookout = self._lookout(kind, namespace, all_namespaces, labels)
        params: Params = {**lookout.params, "limit": str(self.limits.list_page_items)}
        while True:
            page = await self._connection.json("GET", lookout.path, ListBody, params=params)
            yield Listing(items=tuple(decode(raw, kind) for raw in page.items), revision=page.revision)
            if not page.next:
                return
            params = {**params, "continue": page.next}

    async def watch(
        self,
        kind: type[R],
        *,
        since: int | None = None,
        namespace: str | None = None,
        all_namespaces: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Change[R]]:
        """Yield every change after the revision `since`; without it, first what is there as `ADDED`. A connection that breaks is opened
        anew where it was; where the control plane no longer knows that far back, what is there now is told as changes."""
        lookout = self._lookout(kind, namespace, all_namespaces, labels)
        mirror: Mirror[R] = Mirror()
        backoff = Backoff(self.limits)
        after = since
        while True:
            try:
                if after is None:
                    listing = await self.listing(kind, namespace=namespace, all_namespaces=all_namespaces, labels=labels)
                    after = listing.revision
                    for change in mirror.replaced(listing):
                        yield change
                async for event in watch_once(self._connection, lookout, after, self.limits):
                    backoff.worked()
                    after = max(after, event.revision)
                    if event.type in {"ADDED", "MODIFIED", "DELETED"}:
                        change = Change(
                            type=event.type,
                            resource=decode(event.object, kind),
                            revision=event.revision,
                        )
                        mirror.changed(change)
                        yield change
            except Compacted:
                after = None
            except Unreachable as error:
                await backoff.failed(error)

    async def delete(self, kind: type[Resource], name: str, *, namespace: str | None = None) -> None:
        """Remove a resource. Raises `NotFound`."""
        await self._connection.request("DELETE", self._path(kind, name, namespace))

    async def placement(self, workload: str, *, namespace: str | None = None) -> Placement:
        """Return, for each device, which variant of the workload it gets, or why it is rejected."""
        return await self._connection.json("GET", f"{self._path(Workload, workload, namespace)}/placement", Placement)

    # ---- rollouts ----

    async def rollout_action(self, workload: str, action: RolloutAction, *, namespace: str | None = None) -> Rollout:
        """Pause, resume, promote (open the next wave now) or abort the workload's rollout; return it as it is then."""
        path = f"{self._namespaced(namespace)}/rollouts/{_part(workload)}/{action}"
        return await self._connection.json("POST", path, Rollout)

    async def clear_rejected(self, workload: str, *, namespace: str | None = None) -> Workload:
        """Let the revisions that rollouts took back be tried again, here and on the devices that refuse them; return the workload as it is
        then. When the newest revision is one of them, its rollout begins anew. Changes nothing when none was taken back."""
        return await self._connection.json("POST", f"{self._path(Workload, workload, namespace)}/clear-refused", Workload)

    async def rollout_history(self, workload: str, *, namespace: str | None = None) -> tuple[Rollout, ...]:
        """Return the workload's rollouts, oldest first."""
        path = f"{self._namespaced(namespace)}/rollouts/{_part(workload)}/history"
        body = await self._connection.json("GET", path, ListBody)
        return tuple(decode(raw, Rollout) for raw in body.items)

    async def wait_rollout(
        self,
        workload: str,
        *,
        timeout: float,  # noqa: ASYNC109 - part of the public face, carried out with asyncio.timeout
        namespace: str | None = None,
        on_change: Callable[[Rollout], None] | None = None,
    ) -> Rollout:
        """Return the rollout of the workload's newest revision once it has ended, however it ended: look at `status.state`. `timeout` in
        seconds. Calls `on_change` with each state on the way. Bears a control plane that is away for a while. Raises `TimedOut`."""
        return await wait_for_rollout(self, workload, timeout, namespace, on_change)

    # ---- devices ----

    async def decommission(self, device: str) -> None:
        """Have the device stop everything, forget its identity, and leave the fleet."""
        await self._connection.request("POST", f"{self._path(Device, device, None)}/decommission")

    async def clear_refused(self, device: str) -> None:
        """Let the device try revisions again that it refuses since they failed on it."""
        await self._connection.request("POST", f"{self._path(Device, device, None)}/clear-refused")

    async def label(self, device: str, set_labels: Mapping[str, str], remove: Sequence[str] = ()) -> Device:
        """Set and remove labels of a device; return it as it is then."""
        body = {"set": dict(set_labels), "remove": list(remove)}
        return await self._connection.json("PATCH", f"{self._path(Device, device, None)}/labels", Device, body=body)

    async def cordon(self, device: str, *, unschedulable: bool = True) -> Device:
        """Keep new instances away from a device, or let them come again. What runs there, runs on. Raises `Conflict` when it changed
        meanwhile."""
        current = await self.get(Device, device)
        spec = msgspec.structs.replace(current.spec, unschedulable=unschedulable)
        return cast("Device", (await self._apply(msgspec.structs.replace(current, spec=spec), dry_run=False)).resource)

    # ---- artifacts ----

    async def push(self, release: Release, signing_key: str, *, progress: Progress | None = None) -> ArtifactVersion:
        """Upload what is missing of a release's files, sign its manifest with the release key (PEM text; it never leaves this process) and
        publish it. Publishing the same content again changes nothing. Raises `Conflict` when the version is there with other content."""
        return await publish(self._connection, self.limits, release, signing_key, progress)

    # ---- tokens ----

    async def create_join_token(self, site: str, *, ttl: str = "10m", uses: int = 1, labels: Mapping[str, str] | None = None) -> str:
        """Return the text of a new join token for devices at `site`, which is made if need be. It is shown this once."""
        body = {"site": site, "ttl": ttl, "uses": uses, "labels": dict(labels or {})}
        return (await self._connection.json("POST", f"{API}/jointokens", TokenAnswer, body=body)).token

    async def create_access_token(self, name: str, role: Role, *, ttl: str = "30d") -> str:
        """Return the text of a new access token for a person or program. It is shown this once."""
        body = {"name": name, "role": role, "ttl": ttl}
        return (await self._connection.json("POST", f"{API}/accesstokens", TokenAnswer, body=body)).token

    async def tokens(self, kind: TokenKind) -> tuple[Token, ...]:
        """Return what may be known of the tokens that exist: `join` tokens of devices or `access` tokens of people and programs."""
        body = await self._connection.json("GET", f"{API}/{kind}tokens", ListBody)
        return tuple(decode(raw, Token) for raw in body.items)

    async def revoke_token(self, kind: TokenKind, identifier: str) -> None:
        """Take a token out of use. `identifier` is the `id` that `tokens` tells. Raises `NotFound`."""
        await self._connection.request("DELETE", f"{API}/{kind}tokens/{_part(identifier)}")

    # ---- what happened ----

    async def events(self, *, about: str = "", source: str = "", limit: int = 500) -> tuple[Event, ...]:
        """Return the last events, oldest first. `about` is the beginning of KIND/NAMESPACE/NAME."""
        params = {"limit": str(limit), **_given(about=about, source=source)}
        body = await self._connection.json("GET", f"{API}/events", ListBody, params=params)
        return tuple(decode(raw, Event) for raw in body.items)

    async def follow_events(self, *, about: str = "", source: str = "", after: int = 0) -> AsyncIterator[Event]:
        """Yield events with numbers above `after` as they come, without end."""
        async for event in watch_events(self._connection, _given(about=about, source=source), after, self.limits):
            yield event

    async def logs(
        self, device: str, workload: str, *, namespace: str | None = None, follow: bool = False, tail: int = 200
    ) -> AsyncIterator[str]:
        """Yield what the workload wrote on the device: the last `tail` lines and, with `follow`, what comes after."""
        path = f"{API}/logs/{_part(device)}/{_part(namespace or self.namespace)}/{_part(workload)}"
        params = {"follow": str(follow).lower(), "tail": str(tail)}
        silence = None if follow else self.limits.answer_seconds
        async with self._connection.stream(path, params, silence) as chunks:
            reader = _Utf8()
            async for chunk in chunks:
                yield reader.feed(chunk)

    async def metrics(self, device: str, *, seconds: int = 3600) -> tuple[Metric, ...]:
        """Return what a device measured in the last `seconds`, summarised per metric, instance and revision."""
        params = {"seconds": str(seconds)}
        body = await self._connection.json("GET", f"{API}/metrics/{_part(device)}", ListBody, params=params)
        return tuple(decode(raw, Metric) for raw in body.items)

    async def metric_total(self, device: str, name: str, *, seconds: int = 86_400) -> float:
        """Return the sum of all samples of a metric on a device in the last `seconds`: for a counter, how much was counted."""
        return sum(metric.mean * metric.count for metric in await self.metrics(device, seconds=seconds) if metric.name == name)

    async def version(self) -> Version:
        """Return what the control plane says of itself."""
        return await self._connection.json("GET", "/version", Version)

    async def schema(self) -> bytes:
        """Return the JSON Schema of all kinds, as the control plane knows them."""
        return await self._connection.request("GET", f"{API}/schema")

    # ---- parts ----

    async def _apply(self, resource: Resource, dry_run: bool) -> AppliedResource:
        meta = resource.metadata
        path = self._path(type(resource), meta.name, meta.namespace or None)
        params: Params = {"dryRun": "true"} if dry_run else {}
        body = await self._connection.request("PUT", path, params=params, body=msgspec.json.encode(resource))
        return decode(body, AppliedResource)

    def _placed(self, resource: Resource, namespace: str | None) -> Resource:
        """Put a resource without a namespace into the client's; refuse one that contradicts what was asked for."""
        kind, meta = BY_TYPE[type(resource)], resource.metadata
        if not kind.namespaced:
            return resource
        if namespace and meta.namespace and meta.namespace != namespace:
            message = f"{kind.name} {meta.name} names the namespace {meta.namespace}, but {namespace} was asked for"
            raise Invalid((Problem(path="metadata.namespace", message=message, hint="leave one of the two out"),))
        placed = msgspec.structs.replace(meta, namespace=meta.namespace or namespace or self.namespace)
        return msgspec.structs.replace(resource, metadata=placed)

    def _lookout(self, kind: type, namespace: str | None, all_namespaces: bool, labels: Mapping[str, str] | None) -> Lookout:
        table = BY_TYPE[kind]
        base = self._namespaced(namespace) if table.namespaced and not all_namespaces else API
        params = {"labelSelector": ",".join(f"{key}={value}" for key, value in sorted(labels.items()))} if labels else {}
        return Lookout(path=f"{base}/{table.plural}", params=params)

    def _path(self, kind: type, name: str, namespace: str | None) -> str:
        table: Kind = BY_TYPE[kind]
        base = self._namespaced(namespace) if table.namespaced else API
        return f"{base}/{table.plural}/{_part(name)}"

    def _namespaced(self, namespace: str | None) -> str:
        return f"{API}/namespaces/{_part(namespace or self.namespace)}"


class _Utf8:
    """Text out of chunks that may end within a character."""

    def __init__(self) -> None:
        import codecs

        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, chunk: bytes) -> str:
        return self._decoder.decode(chunk)


def _part(name: str) -> str:
    """Quote a name as one part of a path. Raises `Invalid` for what cannot be one."""
    if not name or name in {".", ".."}:
        raise Invalid((Problem(path="metadata.name", message=f"{name!r} is not a name"),))
    return quote(name, safe=":")


def _given(**params: str) -> Params:
    return {name: value for name, value in params.items() if value}
