"""Publishing an artifact version: what runs on devices is hashed, signed and named here, on the machine of the person who releases.

The control plane stores bytes and metadata; it cannot add to either. The release key never leaves this process.
"""

import asyncio
import base64
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Protocol

import msgspec

from edgewise.client.connection import API, ClientLimits, Connection, decode
from edgewise.client.errors import Conflict, Error, Invalid, Problem
from edgewise.resources.artifact import (
    ArtifactType,
    ArtifactVersion,
    Command,
    File,
    Manifest,
    Parameter,
    Precision,
    Probes,
    Profile,
    Variant,
    VariantRequirements,
)
from edgewise.resources.meta import DEFAULT_NAMESPACE, Name, Version
from edgewise.resources.validation import LIMITS, manifest_problems

_CHUNK: Final = 1_048_576
_ATTEMPTS: Final = 4


class VariantSource(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """One variant, before its files are hashed. `path` is a file or a folder; a file alone keeps its own name."""

    name: Name
    path: str
    runtime: str = ""
    precision: Precision = ""
    requirements: VariantRequirements = VariantRequirements()
    profile: Profile = Profile()
    command: Command | None = None
    probes: Probes = Probes()


class Release(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What to publish. Paths of variants are relative to `folder` (not part of the file, set by who reads it)."""

    name: Name
    version: Version
    variants: tuple[VariantSource, ...]
    type: ArtifactType = "model"
    namespace: Name = DEFAULT_NAMESPACE
    parameters: dict[str, Parameter] = {}
    folder: str = ""


class ReleaseFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What `artifact.yaml` may say. Name, version and namespace may come from the command line instead. Paths are relative to the file."""

    variants: Annotated[tuple[VariantSource, ...], msgspec.Meta(min_length=1)]
    type: ArtifactType = "model"
    name: str = ""
    version: str = ""
    namespace: str = ""
    parameters: dict[str, Parameter] = {}


class Progress(Protocol):
    """Is told how far publishing is. `total` and `done` in bytes."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`stage` is `hash`, `upload` or `publish`."""
        ...


class _Timestamp(msgspec.Struct, frozen=True):
    signed: "_Signed"


class _Signed(msgspec.Struct, frozen=True):
    meta: dict[str, "_Meta"]


class _Meta(msgspec.Struct, frozen=True):
    version: int


class _Hashed(msgspec.Struct, frozen=True):
    """The files of a release by digest, and its manifest."""

    manifest: Manifest
    sources: Mapping[str, tuple[Path, int]]


async def publish(
    connection: Connection, limits: ClientLimits, release: Release, signing_key: str, progress: Progress | None
) -> ArtifactVersion:
    """See `Client.push`."""
    tell = progress or _silent
    hashed = await asyncio.to_thread(hash_release, release, tell)
    await _upload(connection, limits, hashed, tell)
    tell("publish", 0, 1)
    body = msgspec.json.encode(hashed.manifest, order="deterministic")
    published = await _sign_and_publish(connection, hashed.manifest, body, signing_key)
    tell("publish", 1, 1)
    return published


def hash_release(release: Release, progress: Progress | None = None) -> _Hashed:
    """Read and hash all files of a release. Raises `Invalid` for what cannot be published (links, devices, bad paths, missing files)."""
    tell = progress or _silent
    _check_names(release)
    found: list[tuple[VariantSource, list[tuple[str, Path]]]] = []
    problems: list[Problem] = []
    for index, variant in enumerate(release.variants):
        try:
            found.append((variant, _files_of(Path(release.folder) / variant.path)))
        except (OSError, ValueError) as error:
            problems.append(Problem(path=f"variants[{index}].path", message=_reason(error), source=variant.path))
    if problems:
        raise Invalid(problems)
    total = sum(path.stat().st_size for _, files in found for _, path in files)
    counter = _Counter(tell, total)
    sources: dict[str, tuple[Path, int]] = {}
    variants = tuple(_hashed_variant(_needing(variant, release.type), files, sources, counter) for variant, files in found)
    manifest = Manifest(
        type=release.type,
        namespace=release.namespace,
        artifact=release.name,
        version=release.version,
        variants=variants,
        parameters=release.parameters,
    )
    try:
        msgspec.convert(msgspec.to_builtins(manifest), Manifest)
    except msgspec.ValidationError as error:
        raise Invalid((Problem(path="", message=str(error)),)) from None
    wrong = manifest_problems(manifest)
    if wrong:
        raise Invalid(wrong)
    return _Hashed(manifest, sources)


def _check_names(release: Release) -> None:
    letters = "lower-case letters, digits, '-' and '.'"
    rules: tuple[tuple[str, str, object, str], ...] = (
        ("name", release.name, Name, letters),
        ("version", release.version, Version, "letters, digits, '-', '.' and '_'"),
        ("namespace", release.namespace, Name, letters),
        *((f"variants[{index}].name", variant.name, Name, letters) for index, variant in enumerate(release.variants)),
    )
    problems = []
    for path, value, wanted, hint in rules:
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            problems.append(Problem(path=path, message=f"{value!r} does not fit", hint=hint))
    if problems:
        raise Invalid(problems)


def read_signing_key(path: str) -> str:
    """Return the release key in the file `path`. Raises `Error` when it is missing, or readable by others."""
    try:
        with Path(path).expanduser().open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(65_537)
    except OSError as error:
        raise Error(f"the signing key {path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise Error(f"the signing key {path} can be read by others (mode {stat.S_IMODE(mode):04o}): type chmod 600 {path}")
    if len(data) > 65_536 or not data.isascii():
        raise Error(f"{path} is not a key in PEM")
    return data.decode("ascii")


def _files_of(path: Path) -> list[tuple[str, Path]]:
    """Return (path in the variant, path here) of a file, or of all files in a folder, sorted."""
    kind = path.lstat().st_mode
    if stat.S_ISREG(kind):
        return [(path.name, path)]
    if not stat.S_ISDIR(kind):
        raise ValueError("is neither a file nor a folder; links are not followed")
    files: list[tuple[str, Path]] = []
    for folder, folders, names in os.walk(path, followlinks=False):
        folders.sort()
        for name in sorted((*names, *(each for each in folders if (Path(folder) / each).is_symlink()))):
            whole = Path(folder) / name
            if not stat.S_ISREG(whole.lstat().st_mode):
                raise ValueError(f"{whole} is a link or a device; only files and folders can be published")
            files.append((whole.relative_to(path).as_posix(), whole))
        if len(files) > LIMITS.files_max:
            raise ValueError(f"holds more than {LIMITS.files_max} files")
    if not files:
        raise ValueError("holds no file")
    return sorted(files)


def _needing(variant: VariantSource, kind: ArtifactType) -> VariantSource:
    """Require the runtime that a model names, so that no device without it is chosen; a version that was asked for stays."""
    requirements = variant.requirements
    if kind != "model" or not variant.runtime or variant.runtime in requirements.runtimes:
        return variant
    runtimes = {**requirements.runtimes, variant.runtime: ""}
    return msgspec.structs.replace(variant, requirements=msgspec.structs.replace(requirements, runtimes=runtimes))


def _hashed_variant(
    variant: VariantSource, files: list[tuple[str, Path]], sources: dict[str, tuple[Path, int]], counter: "_Counter"
) -> Variant:
    made = []
    for name, path in files:
        with path.open("rb") as file:
            digest, size = _digest(file, counter)
            executable = bool(os.fstat(file.fileno()).st_mode & 0o111)
        sources[digest] = (path, size)
        made.append(File(path=name, digest=digest, size=size, mode=0o755 if executable else 0o644))
    return Variant(
        name=variant.name,
        files=tuple(made),
        runtime=variant.runtime,
        precision=variant.precision,
        requirements=variant.requirements,
        profile=variant.profile,
        command=variant.command,
        probes=variant.probes,
    )


def _digest(file: BinaryIO, counter: "_Counter") -> tuple[str, int]:
    sha, size = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK):
        sha.update(chunk)
        size += len(chunk)
        counter.add("hash", len(chunk))
    return f"sha256:{sha.hexdigest()}", size


async def _upload(connection: Connection, limits: ClientLimits, hashed: _Hashed, tell: Progress) -> None:
    counter = _Counter(tell, sum(size for _, size in hashed.sources.values()))
    for digest, (path, size) in hashed.sources.items():
        location = f"{API}/blobs/{digest}"
        if await connection.exists(location):
            counter.add("upload", size)
            continue
        with path.open("rb") as file:
            await connection.upload(location, _chunks(file, limits.upload_chunk_bytes, counter), size)


async def _chunks(file: BinaryIO, size: int, counter: "_Counter") -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, size):
        yield chunk
        counter.add("upload", len(chunk))


async def _sign_and_publish(connection: Connection, manifest: Manifest, body: bytes, signing_key: str) -> ArtifactVersion:
    from edgewise.trust.repository import MetadataRefused, add_release

    target = f"releases/{manifest.namespace}/{manifest.artifact}/{manifest.version}.json"
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    for attempt in range(_ATTEMPTS):
        current = await _releases_metadata(connection)
        try:
            signed = add_release(current, target, digest, len(body), signing_key, time.time())
        except MetadataRefused as error:
            if error.reason == "Immutable":
                message = f"{manifest.artifact} {manifest.version} was published with other content: versions are immutable, choose another"
                raise Conflict(message) from None
            raise Error(f"the release cannot be signed: {error}") from None
        release = {"manifest": base64.b64encode(body).decode(), "metadata": base64.b64encode(signed).decode()}
        try:
            answer = await connection.request("POST", f"{API}/releases", body=msgspec.json.encode(release))
        except Conflict:
            # Somebody else published in between: sign on top of that.
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        return decode(answer, ArtifactVersion)
    raise AssertionError  # pragma: no cover - the loop returns or raises


async def _releases_metadata(connection: Connection) -> bytes:
    """Return the current metadata of the role `releases`. Nothing is verified here: signing on top of it is refused unless the release key
    signed it."""
    timestamp = decode(await _repository_file(connection, "timestamp.json"), _Timestamp)
    snapshot = decode(await _repository_file(connection, f"{_version(timestamp, 'snapshot')}.snapshot.json"), _Timestamp)
    return await _repository_file(connection, f"{_version(snapshot, 'releases')}.releases.json")


def _version(metadata: _Timestamp, role: str) -> int:
    meta = metadata.signed.meta.get(f"{role}.json")
    if meta is None:
        raise Error(f"the control plane's repository has no {role}")
    return meta.version


async def _repository_file(connection: Connection, name: str) -> bytes:
    return await connection.request("GET", f"{API}/repository/{name}")


class _Counter:
    """Adds up bytes and passes the sum on."""

    def __init__(self, tell: Progress, total: int) -> None:
        self._tell = tell
        self._total = total
        self._done = 0

    def add(self, stage: str, count: int) -> None:
        self._done += count
        self._tell(stage, self._done, self._total)


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file or folder {error.filename}"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
