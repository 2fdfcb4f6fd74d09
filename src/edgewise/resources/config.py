"""What workloads need to know, openly (Config) or sealed to their device (Secret)."""

from typing import Annotated

import msgspec

from edgewise.resources.meta import ApiVersion, Metadata

ConfigKey = Annotated[str, msgspec.Meta(pattern=r"^[-._a-zA-Z0-9]{1,253}$(?!\n)")]
ConfigValue = Annotated[str, msgspec.Meta(max_length=65536)]


class ConfigSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Settings as text."""

    data: Annotated[dict[ConfigKey, ConfigValue], msgspec.Meta(max_length=1000)] = {}


class ConfigStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Nothing is observed of a config by itself."""

    observed_generation: int = 0


class Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="Config", forbid_unknown_fields=True):
    """Settings that a workload reads on its device."""

    metadata: Metadata
    api_version: ApiVersion = "edgewise/v1alpha1"
    spec: ConfigSpec = ConfigSpec()
    status: ConfigStatus = ConfigStatus()


class SecretSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Secret settings. `data` is what a user sends; the control plane keeps only `encrypted`, and never hands out either."""

    data: Annotated[dict[ConfigKey, ConfigValue], msgspec.Meta(max_length=1000)] = {}
    encrypted: str = ""
    digest: str = ""


class SecretStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What may be known of a secret: the names of its keys."""

    observed_generation: int = 0
    keys: tuple[str, ...] = ()


class Secret(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="Secret", forbid_unknown_fields=True):
    """Secret settings that a workload reads on its device, sealed to that device."""

    metadata: Metadata
    api_version: ApiVersion = "edgewise/v1alpha1"
    spec: SecretSpec = SecretSpec()
    status: SecretStatus = SecretStatus()
