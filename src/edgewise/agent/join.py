"""Joining a fleet: the only moment when a device trusts a text that a person gave it.

The token names the control plane, its authority and the root of the signed repository, the last two by their hashes. The secret in it
leaves the device only after the server has proved that it belongs to that authority. Keys are on the disk before anybody hears of them, so
a join whose answer got lost can be repeated.
"""

import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from edgewise.agent.config import AgentConfig, write_config
from edgewise.agent.errors import LinkError, Refused, TlsFailed
from edgewise.agent.gateway import BODY_HEADERS
from edgewise.agent.http import Client, Endpoint
from edgewise.agent.inventory import declared_over, scan
from edgewise.agent.limits import LIMITS
from edgewise.agent.tls import blind_context, client_context
from edgewise.engine.identity import (
    Certificates,
    DeviceKeys,
    IdentityDamaged,
    begin_anew,
    complete_join,
    read_certificates,
    read_keys,
    remove_identity,
    write_keys,
)
from edgewise.ports.disk import DiskFiles
from edgewise.ports.files import Files, FilesError
from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.device import Capacity
from edgewise.resources.meta import Name
from edgewise.trust.authority import AuthorityError, CertificateRefused, read_chain, root_by_hash
from edgewise.trust.keys import new_device_key, new_sealing_key, signing_request
from edgewise.trust.tokens import JoinToken, TokenError, read_join_token, repository_hash, same
from edgewise.wire.enrolment import JoinAnswer, JoinRequest

_TOKEN_CHARACTERS_MAX: Final = 8192
_HINTS: Final = {
    "UnknownToken": "make a new token with `edgewise token create`",
    "ExpiredToken": "make a new token with `edgewise token create`; `--ttl` sets how long it lives",
    "UsedToken": "make a new token with `edgewise token create`; `--uses` lets one token serve several devices",
    "NameTaken": "choose another name with `--name`, or take the old device out with `edgewise device decommission`",
}


class JoinError(Exception):
    """The device did not join. The message says what was wrong and what to do; it never holds the token."""


class JoinRefused(JoinError):
    """The control plane said no. `reason` is its word for why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WrongAuthority(JoinError):
    """What answers is not the control plane that the token is for. The secret was not sent."""


class AlreadyJoined(JoinError):
    """The device has an identity."""


class WrongRepository(JoinError):
    """The control plane wants another root of the signed repository believed than the token names. Nothing was kept of it."""


class _Wishes(msgspec.Struct, frozen=True, kw_only=True):
    device: str
    labels: Mapping[str, str]
    device_class: str
    capacity: Capacity
    proxy: str


def read_token(path: str) -> JoinToken:
    """Read a join token from a file, or from standard input for `-`. Raises `JoinError`."""
    try:
        if path == "-":
            text = sys.stdin.read(_TOKEN_CHARACTERS_MAX)
        else:
            with Path(path).open(encoding="ascii", errors="replace") as file:
                text = file.read(_TOKEN_CHARACTERS_MAX)
        if not text.strip():
            raise JoinError(f"{path} is empty: it should hold what `edgewise token create` printed")
        return read_join_token(text)
    except OSError as error:
        raise JoinError(f"the token cannot be read from {path}: {error.strerror}") from error
    except TokenError as error:
        raise JoinError(f"{path} holds no join token: {error}") from error


def join(
    token: JoinToken,
    data_folder: str,
    *,
    device: str = "",
    labels: Mapping[str, str] | None = None,
    device_class: str = "",
    capacity: Capacity | None = None,
    telemetry_seconds: float = 15.0,
    poll_seconds: float = LIMITS.poll_wait_seconds,
    proxy: str = "",
    force: bool = False,
) -> AgentConfig:
    """Join the fleet that `token` is for; return what was put on the disk. Raises `JoinError`.

    `capacity` is declared over what the device says of itself; an empty `device` takes the host's name. `poll_seconds` is
    how long a poll waits. `force` throws an existing identity
    away, and with it what the device remembers."""
    if not LIMITS.poll_wait_seconds_min <= poll_seconds <= LIMITS.poll_wait_seconds:
        raise JoinError(f"a poll may wait {LIMITS.poll_wait_seconds_min:g} s to {LIMITS.poll_wait_seconds:g} s, not {poll_seconds:g} s")
    wishes = _Wishes(
        device=_device_name(device), labels=labels or {}, device_class=device_class, capacity=capacity or Capacity(), proxy=proxy
    )
    try:
        Path(data_folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        files = DiskFiles(data_folder)
        _make_room(files, force=force)
        authority = _find_authority(token, proxy)
        answer = _ask(token, authority, _keys(files), wishes, declared_over(scan(data_folder), wishes.capacity))
        root = _checked_root(answer.repository_root, token)
        certificates = Certificates(agent=answer.agent, certificate=answer.certificate, authority=_checked(answer.authority, token))
        config = AgentConfig(
            agent=answer.agent,
            device=wishes.device,
            addresses=token.addresses,
            labels=dict(wishes.labels),
            device_class=device_class,
            capacity=wishes.capacity,
            telemetry_seconds=telemetry_seconds,
            poll_seconds=poll_seconds,
            proxy=proxy,
        )
        write_config(files, config)
        complete_join(files, certificates, root)
    except (OSError, FilesError, IdentityDamaged) as error:
        raise JoinError(f"the data folder {data_folder} cannot be used: {error}") from error
    except ValueError as error:
        raise JoinError(f"joining did not work: {error}") from error
    return config


def _device_name(wanted: str) -> str:
    name = wanted or socket.gethostname().split(".")[0].lower()
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise JoinError(
            f"{name!r} cannot be a device's name: use lower-case letters, digits, '-' and '.'; choose one with `--name`"
        ) from error


def _make_room(files: Files, *, force: bool) -> None:
    """Refuse to overwrite an identity, or with `force` forget it; then forget all that hangs on one."""
    try:
        certificates = read_certificates(files)
        name = certificates.agent if certificates is not None else ""
    except IdentityDamaged:
        name = "a damaged identity"
    if name and not force:
        raise AlreadyJoined(f"this device has joined already, as {name}")
    if force:
        remove_identity(files)
    begin_anew(files)


def _find_authority(token: JoinToken, proxy: str) -> str:
    """Return the root certificate with the token's hash, in PEM, from whichever address serves it."""
    problems: list[str] = []
    strangers: list[str] = []
    for address in token.addresses:
        client = Client(Endpoint(addresses=(address,), context=blind_context(), proxy=proxy))
        try:
            return root_by_hash(client.served_chain(), token.authority_hash)
        except CertificateRefused:
            strangers.append(address)
        except (LinkError, ValueError) as error:
            problems.append(f"{address}: {error}")
    if strangers:
        raise WrongAuthority(
            f"{', '.join(strangers)} is not the control plane that this token is for: its certificate has another authority. Somebody may"
            " be in between, or the token is for another fleet. The token's secret was not sent."
        )
    raise JoinError(f"no address of the token can be reached: {'; '.join(problems)}. Is the control plane up, and its port open?")


def _keys(files: Files) -> DeviceKeys:
    try:
        keys = read_keys(files)
    except IdentityDamaged:
        keys = None
    if keys is None:
        keys = DeviceKeys(key=new_device_key(), sealing_key=new_sealing_key()[0])
        write_keys(files, keys)
    return keys


def _ask(token: JoinToken, authority: str, keys: DeviceKeys, wishes: _Wishes, capacity: Capacity) -> JoinAnswer:
    request = JoinRequest(
        secret=token.secret,
        device=wishes.device,
        signing_request=signing_request(keys.key, wishes.device),
        sealing_key=_public_of(keys.sealing_key),
        labels=dict(wishes.labels),
        device_class=wishes.device_class,
        capacity=capacity,
    )
    # No certificate counts as expired here: there is no trusted time before the first contact, and the token names the authority.
    client = Client(Endpoint(addresses=token.addresses, context=client_context(authority), proxy=wishes.proxy), lambda: 0.0)
    try:
        body = msgspec.msgpack.encode(request)
        response = client.request("POST", "/v1/join", body=body, headers=BODY_HEADERS, body_limit=LIMITS.enrolment_bytes_max)
        return msgspec.msgpack.decode(response.body, type=JoinAnswer)
    except Refused as error:
        hint = _HINTS.get(error.answer.reason, "")
        raise JoinRefused(
            error.answer.reason, f"the control plane refused: {error.answer.message}" + (f"; {hint}" if hint else "")
        ) from error
    except TlsFailed as error:
        raise WrongAuthority(f"the control plane could not prove who it is: {error}. The token's secret was not sent.") from error
    except LinkError as error:
        raise JoinError(f"the control plane did not answer: {error}. Try again: the same token still works for this device.") from error
    except UNREADABLE as error:
        raise JoinError(f"the control plane's answer cannot be read: {error}. Is it of another version?") from error
    finally:
        client.close()


def _public_of(sealing_key: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(sealing_key).public_key().public_bytes_raw()


def _checked(authority: str, token: JoinToken) -> str:
    """Return the authority that the device will pin, once it is sure that it is the one that the token vouches for."""
    try:
        root_by_hash([each.public_bytes(Encoding.DER) for each in read_chain(authority)], token.authority_hash)
    except AuthorityError as error:
        raise WrongAuthority("the control plane sent another authority than the token names") from error
    return authority


def _checked_root(root: bytes, token: JoinToken) -> bytes:
    """Return the repository's root that the device will pin: what it installs will be checked against it for good, so the answer's word for
    it is not enough."""
    if not same(repository_hash(root), token.repository_hash):
        raise WrongRepository(
            "the control plane sent another root of the signed repository than the token names. Either its keys were changed since the"
            " token was made: then make a new one with `edgewise token create`. Or somebody who cannot be trusted runs the control plane."
        )
    return root
