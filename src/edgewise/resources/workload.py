"""What should run and where, and the immutable revisions of it."""

from typing import Annotated, Literal

import msgspec

from edgewise.resources.meta import ApiVersion, Condition, Digest, Metadata, Name, Scalar, Version
from edgewise.resources.quantity import CountOrPercentage, Duration, Percentage, Quantity
from edgewise.resources.selector import Selector
from edgewise.resources.traffic import STICKY_PATTERN

Preference = Literal["quality", "latency", "size", "energy"]
Bound = float | Percentage
"""A number, or a percentage of 1: `2%` is 0.02."""
Share = Percentage
"""How many of the requests."""


class ArtifactReference(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Which artifact: a `version`, or an `alias` that follows the artifact (exactly one of the two)."""

    name: Name
    version: Version | None = None
    alias: str | None = None


class EveryMatchingDevice(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """One instance on each device that matches, those to come included."""


class Placement(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Where it runs: exactly one of `every_matching_device` and `replicas`."""

    every_matching_device: EveryMatchingDevice | None = None
    replicas: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None
    selector: Selector = Selector()
    prefer: Preference = "quality"


class Resources(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What an instance may use: bytes of memory, cores. Unset: no limit, nothing reserved."""

    memory: Quantity | None = None
    cpu: Quantity | None = None


class Peripheral(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A peripheral that an instance needs, and whether it shares it (`read`) or owns it (`exclusive`)."""

    name: str
    access: Literal["read", "exclusive"] = "read"


class NameReference(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A Config or Secret of the same namespace."""

    name: Name


class Canary(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Waves are cumulative counts or percentages of the workload's instances. Each is observed for `observe_for` after its members are
    healthy. More failed members than `failure_budget` of those opened rolls everything back; `device_deadline` bounds one reachable
    device's update. `unavailability_budget`: at most this long without a ready instance on any device during the change, which a rehearsal
    judges before it begins (`edgewise apply --rehearse`); unset: not judged."""

    waves: Annotated[tuple[CountOrPercentage, ...], msgspec.Meta(min_length=1, max_length=100)] = (1, "25%", "100%")
    observe_for: Duration = "30s"
    failure_budget: Percentage = "5%"
    device_deadline: Duration = "10m"
    unavailability_budget: Duration | None = None


class Shadow(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Before the canary, the new revision runs beside the old one on `devices` (a count or a percentage) and sees copies of a `share` of
    their requests. Its answers are compared and never returned. It becomes a canary only when its metrics (`model.shadow.disagreement`,
    `.distance`, `.duration`) are judged Successful, at the earliest after `observe_for`."""

    devices: CountOrPercentage = "10%"
    share: Share = "100%"
    observe_for: Duration = "10m"


class AB(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Both revisions answer side by side on `devices`, the new one a `share` of the requests, until one of them has won by the compared
    metrics. The new one goes to all when it wins; the old one stays when that wins. When they differ by no more than the margins,
    `on_no_difference` says which one is kept (`keep`: the old one). `sticky` names the request header by whose value requests go the same
    way each time; without it the request's own id decides. No verdict within `give_up_after` is Inconclusive: a person decides. A changed
    `share` takes effect at once, without a new rollout."""

    devices: CountOrPercentage = "100%"
    share: Share = "50%"
    sticky: Annotated[str, msgspec.Meta(pattern=STICKY_PATTERN)] = ""
    give_up_after: Duration = "24h"
    on_no_difference: Literal["keep", "promote"] = "keep"
    failure_budget: Percentage = "5%"
    device_deadline: Duration = "10m"


class BlueGreen(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Every instance starts the new revision beside the old one, warm and without a request. Once all are healthy they take over all at
    once (with `auto_promote: false` when a person says `promote`), and are observed for `observe_for`, the old one warm beside them: more
    failed devices than `failure_budget` or a failed analysis, and all are back at once. A device without room for both takes the new one in
    place of the old one, when the others switch."""

    observe_for: Duration = "5m"
    auto_promote: bool = True
    failure_budget: Percentage = "5%"
    device_deadline: Duration = "10m"


class AnalysisMetric(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """How one reported metric is judged, by its mean or by a `quantile` of it. Either a threshold: `min`, `max` or both. Or a comparison
    with the revision before, over the same time: `direction` says what is better, `margin` how much worse is still as good (a number in the
    metric's unit, or a percentage of what the revision before reaches). Nothing is concluded from fewer than `min_samples` samples. Without
    a verdict `give_up_after` the wave became healthy it is Inconclusive."""

    metric: str
    min: Bound | None = None
    max: Bound | None = None
    direction: Literal["higher", "lower"] | None = None
    margin: Bound | None = None
    quantile: float | None = None
    min_samples: Annotated[int, msgspec.Meta(ge=1)] = 1
    give_up_after: Duration = "10m"


class Strategy(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """How a new revision goes out: exactly one of `canary` (the default), `ab` and `blue_green`; `shadow` may go before a canary.
    `error_rate` is the chance that a new revision with nothing wrong is found worse, over all compared metrics together, however often one
    looks."""

    canary: Canary = Canary()
    shadow: Shadow | None = None
    ab: AB | None = None
    blue_green: BlueGreen | None = None
    error_rate: Percentage = "1%"
    analysis: tuple[AnalysisMetric, ...] = ()
    probation: Duration = "5s"


class Disconnect(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What a lost connection means. With `replace`, replicas move elsewhere after `lost_after`; with `exclusive`, the device itself stops
    its copy before `lost_after` ends."""

    lost_after: Duration = "5m"
    replace: bool = True
    exclusive: bool = False


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What should run and where. It names declared parameters only, never a command."""

    artifact: ArtifactReference
    placement: Placement
    resources: Resources = Resources()
    peripherals: tuple[Peripheral, ...] = ()
    parameters: dict[str, Scalar] = {}
    config: NameReference | None = None
    secrets: tuple[NameReference, ...] = ()
    strategy: Strategy = Strategy()
    disconnect: Disconnect = Disconnect()


class WorkloadStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was seen of a workload. `revision` is the newest revision's hash, `stable_revision` the last one whose rollout succeeded;
    `revisions` counts those made so far. `rejected` are revisions that a rollout took back."""

    observed_generation: int = 0
    revision: str = ""
    stable_revision: str = ""
    revisions: int = 0
    rejected: tuple[str, ...] = ()
    instances: int = 0
    ready: int = 0
    conditions: tuple[Condition, ...] = ()


class Workload(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="Workload", forbid_unknown_fields=True):
    """What should run and where."""

    metadata: Metadata
    spec: WorkloadSpec
    api_version: ApiVersion = "edgewise/v1alpha1"
    status: WorkloadStatus = WorkloadStatus()


class Template(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """All that decides what runs, aliases resolved: two equal templates are the same revision. `config_digest` and `secret_digests` stand
    for the contents, so that a changed config rolls out like any other change."""

    artifact: Name
    version: Version
    manifest_digest: Digest
    resources: Resources = Resources()
    peripherals: tuple[Peripheral, ...] = ()
    parameters: dict[str, Scalar] = {}
    config: Name | None = None
    config_digest: str = ""
    secrets: tuple[Name, ...] = ()
    secret_digests: tuple[str, ...] = ()


class WorkloadRevisionSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """The immutable template of a workload. `hash` is the first 12 hexadecimal digits of the template's SHA-256; `number` counts up."""

    workload: Name
    hash: str
    number: int
    template: Template


class WorkloadRevisionStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Nothing is observed of a revision by itself."""

    observed_generation: int = 0


class WorkloadRevision(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="WorkloadRevision", forbid_unknown_fields=True
):
    """The immutable hash of a workload's template, named WORKLOAD-HASH: what a rollout moves from and to."""

    metadata: Metadata
    spec: WorkloadRevisionSpec
    api_version: ApiVersion = "edgewise/v1alpha1"
    status: WorkloadRevisionStatus = WorkloadRevisionStatus()
