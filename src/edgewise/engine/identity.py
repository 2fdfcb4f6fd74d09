"""Who this device is, on its disk: keys that last, certificates that are renewed in one atomic step.

`identity/certificate.pem` holds the agent's name, its certificate chain and the authority together, because they change together; what
stands between the PEM blocks is passed over by TLS libraries, so that it serves as their certificate file as it is. It is written last:
without it the device has not joined. It ends with a checksum, and `certificate.copy` holds the same once more: a file that rots on the disk
is noticed, and mended without anybody's help. Nothing mends the keys.
"""

import contextlib
import zlib
from typing import Final

import msgspec

from edgewise.engine.limits import EngineLimits
from edgewise.ports.files import Files, FilesError, Missing

FOLDER: Final = "identity"
KEY_PATH: Final = f"{FOLDER}/key.pem"
CERTIFICATE_PATH: Final = f"{FOLDER}/certificate.pem"
COPY_PATH: Final = f"{FOLDER}/certificate.copy"
SEALING_KEY_PATH: Final = f"{FOLDER}/sealing.key"
ROOT_PATH: Final = f"{FOLDER}/root.json"
_FIRST_LINE: Final = "edgewise identity 1"
_AGENT: Final = "agent: "
_AUTHORITY: Final = "\nauthority:\n"
_SUM: Final = b"\nsum: "
_END: Final = "-----END CERTIFICATE-----"
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_SEALING_KEY_BYTES: Final = 32
_MEMORY: Final = ("journal", "outbox", "repository", "agent")
_LEFT: Final = ("trees", "staging", "manifests", "instances", "logs")


class IdentityDamaged(Exception):
    """The identity's files are there but not whole. The message names the file, never its content."""


class DeviceKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The device's own keys: `key` in PEM, `sealing_key` the raw private X25519 key. They never leave the device."""

    key: str
    sealing_key: bytes

    def __repr__(self) -> str:
        return "DeviceKeys(…)"


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """What the authority gave: the agent's name, its chain (PEM, leaf first) and the authority's certificates (PEM)."""

    agent: str
    certificate: str
    authority: str


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """All of a joined device's identity. `repository_root` is the signed repository's root metadata that the device pinned."""

    keys: DeviceKeys
    certificates: Certificates
    repository_root: bytes


def write_keys(files: Files, keys: DeviceKeys) -> None:
    """Keep new keys, before anybody is told of them. Raises `FilesError`."""
    files.make_folder(FOLDER)
    files.replace(KEY_PATH, keys.key.encode())
    files.replace(SEALING_KEY_PATH, keys.sealing_key)


def read_keys(files: Files, limits: EngineLimits | None = None) -> DeviceKeys | None:
    """Return the device's keys, or None when it has none yet, or only a part of them. Raises `IdentityDamaged`, `FilesError`."""
    most = (limits or EngineLimits()).identity_bytes_max
    try:
        key, sealing_key = files.read(KEY_PATH, most), files.read(SEALING_KEY_PATH, most)
    except Missing:
        return None
    if b"PRIVATE KEY-----" not in key:
        raise IdentityDamaged(f"{KEY_PATH} holds no key")
    if len(sealing_key) != _SEALING_KEY_BYTES:
        raise IdentityDamaged(f"{SEALING_KEY_PATH} holds no key")
    return DeviceKeys(key=key.decode("ascii", "replace"), sealing_key=sealing_key)


def complete_join(files: Files, certificates: Certificates, repository_root: bytes) -> None:
    """Keep what joining brought. Once this returns, the device has joined. Raises `FilesError`."""
    files.make_folder(FOLDER)
    files.replace(ROOT_PATH, repository_root)
    files.sync_folder(FOLDER)  # the keys may be of a try that failed just when their names were to come to the disk
    renew(files, certificates)


def renew(files: Files, certificates: Certificates) -> None:
    """Put new certificates in place of the old ones: after a power cut it is the ones or the others, never a mixture. The copy comes after
    them, and may stay behind: old certificates are good enough to get new ones. Raises `FilesError`, `ValueError` for certificates that
    are none."""
    for text in (certificates.certificate, certificates.authority):
        if _BEGIN not in text:
            raise ValueError("not a certificate in PEM")
    if _AUTHORITY in certificates.certificate or "\n" in certificates.agent:
        raise ValueError("not a certificate in PEM")
    head = f"{_FIRST_LINE}\n{_AGENT}{certificates.agent}\n"
    data = f"{head}{certificates.certificate.strip()}\n{_AUTHORITY}{certificates.authority.strip()}".encode()
    data += _SUM + _checksum(data) + b"\n"
    files.replace(CERTIFICATE_PATH, data)
    with contextlib.suppress(FilesError):
        files.replace(COPY_PATH, data)


def read_certificates(files: Files, limits: EngineLimits | None = None) -> Certificates | None:
    """Return the certificates, those of the copy if the file itself is damaged, or None when the device has not joined. Raises
    `IdentityDamaged`, `FilesError`."""
    most = (limits or EngineLimits()).identity_bytes_max
    try:
        return _parsed(files.read(CERTIFICATE_PATH, most))
    except Missing:
        return None
    except IdentityDamaged:
        with contextlib.suppress(FilesError, IdentityDamaged):
            return _parsed(files.read(COPY_PATH, most))
        raise


def mend(files: Files, limits: EngineLimits | None = None) -> bool:
    """Put the copy in place of a damaged certificate file, and make the copy anew where it is not the same as a whole one. Returns whether
    the certificates were damaged and are whole now. Raises `IdentityDamaged` when both are damaged, `FilesError`."""
    most = (limits or EngineLimits()).identity_bytes_max
    try:
        data = files.read(CERTIFICATE_PATH, most)
    except Missing:
        return False
    try:
        _parsed(data)
    except IdentityDamaged:
        try:
            copy = files.read(COPY_PATH, most)
            _parsed(copy)
        except (Missing, IdentityDamaged):
            copy = b""
        if not copy:
            raise
        files.replace(CERTIFICATE_PATH, copy)
        return True
    with contextlib.suppress(FilesError):
        if _SUM in data and not _holds(files, data, most):
            files.replace(COPY_PATH, data)
    return False


def _holds(files: Files, data: bytes, most: int) -> bool:
    try:
        return files.read(COPY_PATH, most) == data
    except Missing:
        return False


def _parsed(data: bytes) -> Certificates:
    whole, found_sum, digest = data.rpartition(_SUM)
    if not found_sum:
        whole = data  # of before the checksum
    elif digest.strip() != _checksum(whole):
        raise IdentityDamaged(f"{CERTIFICATE_PATH} is damaged")
    text = whole.decode("ascii", "replace")
    first, _, rest = text.partition("\n")
    name, _, rest = rest.partition("\n")
    certificate, found, authority = rest.partition(_AUTHORITY)
    if first != _FIRST_LINE or not name.startswith(_AGENT) or not found or _BEGIN not in certificate or not _is_pem(authority):
        raise IdentityDamaged(f"{CERTIFICATE_PATH} is damaged")
    return Certificates(agent=name.removeprefix(_AGENT), certificate=certificate.strip() + "\n", authority=authority.strip() + "\n")


def _checksum(data: bytes) -> bytes:
    return b"%08x" % zlib.crc32(data)


def _is_pem(text: str) -> bool:
    return _BEGIN in text and text.rstrip().endswith(_END)


def read_identity(files: Files, limits: EngineLimits | None = None) -> Identity | None:
    """Return the whole identity, or None when the device has not joined. Raises `IdentityDamaged`, `FilesError`."""
    certificates = read_certificates(files, limits)
    if certificates is None:
        return None
    keys = read_keys(files, limits)
    if keys is None:
        raise IdentityDamaged("the device's keys are gone")
    try:
        root = files.read(ROOT_PATH, (limits or EngineLimits()).identity_bytes_max)
    except Missing as error:
        raise IdentityDamaged(f"{ROOT_PATH} is gone") from error
    return Identity(keys=keys, certificates=certificates, repository_root=root)


def remove_identity(files: Files) -> None:
    """Forget who this device is; the certificates go first, so that a power cut leaves a device that has not joined. Raises
    `FilesError`."""
    files.remove(CERTIFICATE_PATH)
    try:
        files.sync_folder(FOLDER)
    except Missing:
        return
    files.remove(FOLDER)


def begin_anew(files: Files) -> None:
    """Forget what a device without an identity remembers of an earlier life, before it joins: forgetting may have been cut short, and what
    it was told then must not be believed now. Installed files stay: they are named by what is in them. Raises `FilesError`."""
    for folder in _MEMORY:
        files.remove(folder)
    files.sync_folder("")  # or a power cut after joining would bring them back


def forget(files: Files) -> None:
    """Forget everything: the device was decommissioned. Raises `FilesError`."""
    remove_identity(files)
    for folder in (*_MEMORY, *_LEFT):
        files.remove(folder)
