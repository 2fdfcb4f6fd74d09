"""Publishing: blobs, the signed repository's files, and releases."""

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from litestar import Response, get, head, post, put
from litestar.handlers import HTTPRouteHandler

from edgewise.control.api.access import User, may, user_of
from edgewise.control.api.errors import ApiError, conflict, invalid, not_found
from edgewise.control.api.requests import AnyRequest, answer, read_json
from edgewise.control.api.shown import shown
from edgewise.control.services import Services
from edgewise.control.transfers import DIGEST
from edgewise.controllers.documents import audit, create
from edgewise.resources.artifact import ArtifactSpec, ArtifactVersion, ArtifactVersionSpec, ArtifactVersionStatus, Manifest
from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.errors import Problem
from edgewise.resources.validation import manifest_problems
from edgewise.store.codec import encode
from edgewise.store.contract import ABSENT, BlobError, ConflictError, Document, EventRow, Key, Put, Transaction, Write
from edgewise.trust.repository import MetadataRefused, StaleMetadata, is_repository_file

_API: Final = "/apis/v1alpha1"
_MANIFEST_BYTES_MAX: Final = 4_000_000


class Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is published: the manifest's exact bytes and the new, signed metadata of the role `releases`, both in base64."""

    manifest: str
    metadata: str


def artifact_handlers(services: Services) -> list[HTTPRouteHandler]:
    """Return the handlers of blobs, repository and releases."""

    @head(f"{_API}/blobs/{{digest:str}}", opt=may("get", kind="Blob"), summary="Whether a blob is there")
    async def has_blob(request: AnyRequest) -> None:
        digest = _digest(request)
        if await services.blobs.size(digest) is None:
            raise not_found("there is no such blob")

    @put(
        f"{_API}/blobs/{{digest:str}}",
        opt=may("publish", kind="Blob"),
        status_code=201,
        request_max_body_size=services.limits.upload_bytes_max,
        summary="Upload a blob",
    )
    async def put_blob(request: AnyRequest) -> Response[bytes]:
        digest = _digest(request)
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise ApiError(411, "LengthRequired", "a blob is uploaded with its Content-Length")
        if int(length) > services.limits.upload_bytes_max:
            raise ApiError(413, "TooLarge", f"a blob has at most {services.limits.upload_bytes_max} bytes")
        request.scope["edgewise.connection"].long_lived = True  # type: ignore[typeddict-item]  # an extension of ours
        await _store_blob(services, digest, request.stream(), int(length))
        return answer(b"{}", 201)

    @get(f"{_API}/repository/{{name:str}}", opt=may("get", kind="Repository"), summary="A file of the signed repository")
    async def get_repository_file(request: AnyRequest) -> Response[bytes]:
        name = request.path_params["name"]
        data = services.repository.get(name) if is_repository_file(name) else None
        if data is None:
            raise not_found(f"the signed repository has no file {name[:100]}")
        return Response(data, media_type="application/json")

    @post(
        f"{_API}/releases",
        opt=may("publish", kind="ArtifactVersion", takes=Release, gives=ArtifactVersion),
        status_code=201,
        request_max_body_size=services.limits.release_body_bytes_max,
        summary="Publish a signed release",
    )
    async def publish(request: AnyRequest) -> Response[bytes]:
        release = await read_json(request, Release)
        document, created = await publish_release(services, user_of(request), release)
        return answer(shown(document), 201 if created else 200)

    return [has_blob, put_blob, get_repository_file, publish]


async def publish_release(services: Services, user: User, release: Release) -> tuple[Document, bool]:
    """Publish a release: check the manifest and that its files are here, store the manifest as a blob, take over the metadata, make the
    ArtifactVersion. Killed in between, publishing again finishes it. Return the document and whether it was made now. Raises
    `ApiError`."""
    body = _base64("manifest", release.manifest, _MANIFEST_BYTES_MAX)
    metadata = _base64("metadata", release.metadata, services.limits.release_body_bytes_max)
    manifest = _manifest(body)
    await _check_blobs(services, manifest)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    target = f"releases/{manifest.namespace}/{manifest.artifact}/{manifest.version}.json"
    key = Key("ArtifactVersion", manifest.namespace, f"{manifest.artifact}:{manifest.version}")
    existing = await services.store.get(key)
    if existing is not None and msgspec.msgpack.decode(existing.spec, type=ArtifactVersionSpec).digest != digest:
        raise conflict(f"{manifest.artifact} {manifest.version} is published with other content: versions are immutable", shown(existing))
    await _store_blob(services, digest, _once(body), len(body))
    _check_target(metadata, target, digest, len(body))
    try:
        await services.repository.accept("releases", metadata, services.clock.wall())
    except StaleMetadata as error:
        raise conflict(f"{error}: fetch the metadata, sign again, and send it again") from error
    except MetadataRefused as error:
        raise ApiError(422, error.reason, str(error), problems=(Problem(path="metadata", message=str(error)),)) from error
    if existing is not None:
        return existing, False
    spec = ArtifactVersionSpec(manifest=manifest, target=target, digest=digest, length=len(body))
    return await _make_version(services, user, key, spec), True


async def _make_version(services: Services, user: User, key: Key, spec: ArtifactVersionSpec) -> Document:
    manifest, now = spec.manifest, services.clock.wall()
    size = sum({file.digest: file.size for variant in manifest.variants for file in variant.files}.values())
    writes: list[Write] = [create(key, services.randomness.token(16).hex(), spec, ArtifactVersionStatus(size=size))]
    artifact = Key("Artifact", manifest.namespace, manifest.artifact)
    if await services.store.get(artifact) is None:
        uid = services.randomness.token(16).hex()
        writes.append(Put(key=artifact, spec=encode(ArtifactSpec(type=manifest.type)), expect=ABSENT, uid=uid))
    names = ", ".join(variant.name for variant in manifest.variants)
    events: tuple[EventRow, ...] = (audit(now, user.name, "Publish", f"{key.name} ({spec.digest}) with variants {names}", key),)
    try:
        written = await services.runner.commit(Transaction(now=now, writes=tuple(writes), events=events))
    except ConflictError as error:
        raise conflict(f"{key.name} was published by somebody else meanwhile: try again") from error
    return next(change.document for change in written.changes if change.key == key and change.document is not None)


def _check_target(metadata: bytes, target: str, digest: str, length: int) -> None:
    """Refuse metadata that does not vouch for this very manifest. Whether it is rightly signed is checked when it is taken over."""
    try:
        targets = msgspec.json.decode(metadata, type=_Metadata).signed.targets
    except UNREADABLE as error:
        raise invalid(Problem(path="metadata", message=str(error))) from error
    found = targets.get(target)
    if found is None or f"sha256:{found.hashes.get('sha256')}" != digest or found.length != length:
        raise ApiError(422, "WrongTarget", f"the metadata does not sign {target} with this manifest's digest")


class _Target(msgspec.Struct, frozen=True):
    """One signed target."""

    length: int
    hashes: dict[str, str]


class _Signed(msgspec.Struct, frozen=True):
    """The signed part of a role's metadata."""

    targets: dict[str, _Target]


class _Metadata(msgspec.Struct, frozen=True):
    """A role's metadata."""

    signed: _Signed


def _manifest(body: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except UNREADABLE as error:
        raise invalid(Problem(path="manifest", message=str(error))) from error
    wrong = manifest_problems(manifest)
    if wrong:
        raise invalid(*wrong)
    return manifest


async def _check_blobs(services: Services, manifest: Manifest) -> None:
    """Every file that is signed must be here, whole, before a device can be told to fetch it."""
    sizes = {file.digest: file.size for variant in manifest.variants for file in variant.files}
    missing = [digest for digest, size in sizes.items() if await services.blobs.size(digest) != size]
    if missing:
        raise invalid(*(Problem(path="manifest.variants", message=f"blob {digest} was not uploaded") for digest in missing[:20]))


async def _store_blob(services: Services, digest: str, chunks: AsyncIterator[bytes], size: int) -> None:
    try:
        await services.blobs.put(digest, chunks, size)
    except BlobError as error:
        raise ApiError(422, "WrongDigest", str(error)) from error


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _digest(request: AnyRequest) -> str:
    digest: str = request.path_params["digest"]
    if DIGEST.fullmatch(digest) is None:
        raise ApiError(404 if request.method == "HEAD" else 422, "Invalid", "a digest is sha256: and 64 lower-case hexadecimal digits")
    return digest


def _base64(name: str, text: str, limit: int) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise invalid(Problem(path=name, message="is not base64")) from error
    if len(data) > limit:
        raise ApiError(413, "TooLarge", f"{name} has {len(data)} bytes, at most {limit} are allowed")
    return data
