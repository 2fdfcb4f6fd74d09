"""A place where devices stand: its time zone, link, failover domain."""

import msgspec

from edgewise.resources.meta import ApiVersion, Metadata
from edgewise.resources.quantity import Quantity


class Link(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """How a site reaches the control plane. `bandwidth` is in bits per second."""

    bandwidth: Quantity | None = None
    metered: bool = False


class SiteSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What a person says of a site. `failover_domain` defaults to the site's own name."""

    time_zone: str = "UTC"
    link: Link = Link()
    failover_domain: str = ""


class SiteStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was seen of a site."""

    observed_generation: int = 0
    devices: int = 0


class Site(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="Site", forbid_unknown_fields=True):
    """A place where devices stand. Belongs to no namespace."""

    metadata: Metadata
    api_version: ApiVersion = "edgewise/v1alpha1"
    spec: SiteSpec = SiteSpec()
    status: SiteStatus = SiteStatus()
