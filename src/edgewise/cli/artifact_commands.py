"""`artifact push`: hash, upload, sign, publish."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edgewise.cli import options
from edgewise.cli.failures import CommandError
from edgewise.cli.session import connected, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgewise.client.fleet import Client
    from edgewise.client.publishing import Progress, Release, VariantSource
    from edgewise.resources.artifact import ArtifactType, ArtifactVersion

_VARIANT_KEYS: Final = ("name", "path", "precision", "runtime")
_RUNTIMES: Final = {".onnx": "onnxruntime", ".xml": "openvino", ".tflite": "litert"}
"""Which runtime runs a model, by the suffix of its file, where none was given."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    artifact = typer.Typer(help="What runs on devices.", no_args_is_help=True, rich_markup_mode=None)
    artifact.command("push")(push)
    artifact.callback()(_group)
    app.add_typer(artifact, name="artifact")


def _group() -> None:
    """Publish what runs on devices."""


def push(
    *,
    path: Annotated[str, typer.Argument(metavar="[FILE|FOLDER]", help="The model file, or a folder, when there is one variant only.")] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the artifact.")] = "",
    version: Annotated[
        str, typer.Option("--version", metavar="VERSION", help="Version to publish; the next whole number if not given.")
    ] = "",
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", metavar="name=…,path=…", help="A variant: name, path, precision, runtime. May be repeated."),
    ] = None,
    filename: Annotated[
        str, typer.Option("--filename", "-f", metavar="FILE", help="artifact.yaml with type, variants, commands, probes, parameters.")
    ] = "",
    signing_key: Annotated[str, typer.Option("--signing-key", metavar="FILE", help="Release key; the context's own if not given.")] = "",
    namespace: options.Namespace = "",
    context: options.ContextName = "",
) -> None:
    """Publish a new version of an artifact: files are hashed and signed here, then uploaded."""
    draft = _Draft(path, name, version, tuple(variant or ()), filename)
    run(_push(draft, signing_key, namespace, context))


class _Draft:
    """What was given on the command line."""

    def __init__(self, path: str, name: str, version: str, variants: tuple[str, ...], file: str) -> None:
        self.path = path
        self.name = name
        self.version = version
        self.variants = variants
        self.file = file


async def _push(draft: _Draft, signing_key: str, namespace: str, context: str) -> None:
    from edgewise.cli import output
    from edgewise.cli.words import size
    from edgewise.client.context import choose_context, contexts_path, read_contexts
    from edgewise.client.publishing import read_signing_key

    _, chosen = choose_context(read_contexts(contexts_path()), context)
    key_file = signing_key or chosen.signing_key
    if not key_file:
        raise CommandError(
            "no signing key", hint="give --signing-key FILE, or name one for good with edgewise context add … --signing-key FILE"
        )
    key = read_signing_key(key_file)
    async with connected(context, namespace) as client:
        release = release_of(draft, client.namespace)
        if not release.version:
            release = await _numbered(client, release)
        for each in release.variants if release.type == "model" else ():
            if not each.runtime:
                output.note(f"warning: no runtime is known for the variant {each.name}: any device may be given it; say runtime=…")
        before = await _published(client, release)
        with _shown_progress() as progress:
            published = await client.push(release, key, progress=progress)
    total = sum(file.size for each in published.spec.manifest.variants for file in each.files)
    count = len(published.spec.manifest.variants)
    what = "published" if before is None else "unchanged"
    output.out(f"artifactversion/{published.metadata.name} {what} ({count} variant{'s' if count > 1 else ''}, {size(total)})\n")


async def _published(client: "Client", release: "Release") -> "ArtifactVersion | None":
    """Return the version as it was published before, or None."""
    from edgewise.client.errors import NotFound
    from edgewise.resources.artifact import ArtifactVersion

    try:
        return await client.get(ArtifactVersion, f"{release.name}:{release.version}", namespace=release.namespace)
    except NotFound:
        return None


def release_of(draft: _Draft, namespace: str) -> "Release":
    """Return what is to be published; without a version when none was given. Raises `CommandError` or `Invalid`."""
    from edgewise.client.files import read_bounded
    from edgewise.client.publishing import Release, ReleaseFile
    from edgewise.resources.manifests import load_as

    if draft.file:
        if draft.path or draft.variants:
            raise CommandError("a file and variants on the command line do not go together", hint="put the variants into the file")
        given = load_as(read_bounded(Path(draft.file)), ReleaseFile, draft.file)
        folder = str(Path(draft.file).parent)
    else:
        given, folder = ReleaseFile(type=_type_of(draft), variants=_variants(draft)), ""
    name = draft.name or given.name
    if not name:
        raise CommandError("say what to call it", hint="give --name NAME")
    return Release(
        name=name,
        version=draft.version or given.version,
        variants=given.variants,
        type=given.type,
        namespace=given.namespace or namespace,
        parameters=given.parameters,
        folder=folder,
    )


def _type_of(draft: _Draft) -> "ArtifactType":
    return "model" if draft.variants or draft.path else "bundle"


def _variants(draft: _Draft) -> "tuple[VariantSource, ...]":
    from edgewise.client.publishing import VariantSource

    if draft.path and draft.variants:
        raise CommandError("a path and --variant do not go together", hint="give each variant its own path=…")
    if draft.path:
        return (VariantSource(name="default", path=draft.path, runtime=_runtime_of(draft.path)),)
    if not draft.variants:
        raise CommandError("say what to publish", hint="a file or folder, --variant name=…,path=…, or -f artifact.yaml")
    return tuple(_variant(text) for text in draft.variants)


def _runtime_of(path: str) -> str:
    """Return the runtime of a model file, or of the only one in a folder."""
    place = Path(path)
    files = [each for each in place.iterdir() if each.suffix in _RUNTIMES] if place.is_dir() else [place]
    return _RUNTIMES.get(files[0].suffix, "") if len(files) == 1 else ""


def _variant(text: str) -> "VariantSource":
    import msgspec

    from edgewise.cli.words import pairs_of
    from edgewise.client.publishing import VariantSource

    pairs = pairs_of([text], "part of a variant")
    unknown = sorted(pairs.keys() - set(_VARIANT_KEYS))
    if unknown or not pairs.get("name") or not pairs.get("path"):
        what = f"a variant has no {unknown[0]}" if unknown else "a variant needs name and path"
        raise CommandError(what, f"--variant {text}", f"it may have {', '.join(_VARIANT_KEYS)}; -f artifact.yaml can say more")
    pairs.setdefault("runtime", _runtime_of(pairs["path"]))
    try:
        return msgspec.convert(pairs, VariantSource)
    except msgspec.ValidationError as error:
        raise CommandError(str(error), f"--variant {text}") from None


async def _numbered(client: "Client", release: "Release") -> "Release":
    """Give a release the next whole number as its version."""
    import msgspec

    from edgewise.resources.artifact import ArtifactVersion

    versions = await client.list(ArtifactVersion, namespace=release.namespace)
    taken = [each.spec.manifest.version for each in versions if each.spec.manifest.artifact == release.name]
    newest = max((int(version) for version in taken if version.isascii() and version.isdigit()), default=0)
    return msgspec.structs.replace(release, version=str(newest + 1))


@contextmanager
def _shown_progress() -> "Iterator[Progress]":
    """Show progress on standard error: bars on a terminal, one line per stage elsewhere."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<8}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {stage: bars.add_task(stage, total=None, visible=False) for stage in ("hash", "upload")}

        def show(stage: str, done: int, total: int) -> None:
            if stage in tasks:
                bars.update(tasks[stage], completed=done, total=total, visible=True)

        yield show


def _lines() -> "Progress":
    told: set[str] = set()

    def show(stage: str, done: int, total: int) -> None:
        from edgewise.cli import output
        from edgewise.cli.words import size

        if done >= total and stage not in told:
            told.add(stage)
            output.note(f"{stage}: {size(total)}" if stage != "publish" else "publish: signed and accepted")

    return show
