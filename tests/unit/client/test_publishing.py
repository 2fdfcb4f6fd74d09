"""Publishing: what is hashed, what is refused, what is uploaded once, what is signed."""

import base64
import hashlib
import json
import os
import time

import msgspec
import pytest

import edgewise as ew
from edgewise.client.publishing import ReleaseFile, hash_release, read_signing_key
from edgewise.resources.artifact import ArtifactVersion, ArtifactVersionSpec, Command, Manifest, Parameter, VariantRequirements
from edgewise.resources.manifests import load_as
from edgewise.resources.meta import Metadata
from edgewise.trust.repository import accept_delegated, create_repository, new_key

API = "/apis/v1alpha1"


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def release(folder, path="model.onnx", **changes):
    variant = ew.VariantSource(name="default", path=path, command=changes.pop("command", None))
    return ew.Release(**{"name": "inspector", "version": "1", "variants": (variant,), "folder": str(folder), **changes})


@pytest.mark.parametrize(
    ("kind", "runtime", "asked", "required"),
    [
        ("model", "onnxruntime", {}, {"onnxruntime": ""}),
        ("model", "onnxruntime", {"onnxruntime": "1.20"}, {"onnxruntime": "1.20"}),
        ("model", "onnxruntime", {"cuda": "12"}, {"cuda": "12", "onnxruntime": ""}),
        ("model", "", {}, {}),
    ],
)
def test_a_model_requires_the_runtime_that_it_names(tmp_path, kind, runtime, asked, required):
    (tmp_path / "model.onnx").write_bytes(b"model")
    requirements = VariantRequirements(runtimes=asked)
    variant = ew.VariantSource(name="default", path="model.onnx", runtime=runtime, requirements=requirements)
    manifest = hash_release(release(tmp_path, type=kind, variants=(variant,))).manifest
    assert manifest.variants[0].requirements.runtimes == required


def test_a_file_keeps_its_name_and_a_folder_its_tree(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"model")
    hashed = hash_release(release(tmp_path))
    (file,) = hashed.manifest.variants[0].files
    assert (file.path, file.digest, file.size, file.mode) == ("model.onnx", digest(b"model"), 5, 0o644)
    tree = tmp_path / "tree"
    (tree / "lib").mkdir(parents=True)
    (tree / "main.py").write_bytes(b"print()")
    (tree / "lib" / "run").write_bytes(b"#!")
    (tree / "lib" / "run").chmod(0o700)
    bundle = hash_release(release(tmp_path, "tree", type="bundle", command=Command(argv=("${python}", "main.py"))))
    assert [(file.path, file.mode) for file in bundle.manifest.variants[0].files] == [("lib/run", 0o755), ("main.py", 0o644)]


def test_what_cannot_be_published_is_told_for_all_variants(tmp_path):
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "empty").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "inner").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    variants = tuple(ew.VariantSource(name=f"v{n}", path=path) for n, path in enumerate(["link", "empty", "tree", "pipe", "absent"]))
    with pytest.raises(ew.Invalid) as caught:
        hash_release(release(tmp_path, variants=variants))
    said = [problem.message for problem in caught.value.problems]
    assert len(said) == 5
    assert "links are not followed" in said[0]
    assert "holds no file" in said[1]
    assert "is a link or a device" in said[2]
    assert "neither a file nor a folder" in said[3]
    assert "there is no file or folder" in said[4]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Upper"}, "name: 'Upper' does not fit"),
        ({"version": "a b"}, "version: 'a b' does not fit"),
        ({"type": "bundle"}, "a bundle needs a command"),
        ({"command": Command(argv=("x",))}, "a model has no command"),
        ({"parameters": {"t": Parameter(type="integer", default="x")}}, "must be an integer"),
    ],
)
def test_a_manifest_that_no_device_should_take_is_not_signed(tmp_path, changes, said):
    (tmp_path / "model.onnx").write_bytes(b"model")
    with pytest.raises(ew.Invalid, match=said):
        hash_release(release(tmp_path, **changes))


def test_artifact_yaml_is_strict():
    text = 'type: bundle\nvariants:\n- {name: python, path: camera, command: {argv: ["${python}", main.py]}}\nparameters: {rate: {type: integer}}\n'
    assert load_as(text, ReleaseFile).variants[0].command.argv == ("${python}", "main.py")
    with pytest.raises(ew.Invalid, match="did you mean 'command'"):
        load_as(text.replace("command:", "comand:"), ReleaseFile)


def test_a_signing_key_must_be_its_users_own(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("KEY")
    path.chmod(0o644)
    with pytest.raises(ew.Error, match="type chmod 600"):
        read_signing_key(str(path))
    path.chmod(0o600)
    assert read_signing_key(str(path)) == "KEY"
    with pytest.raises(ew.Error, match="cannot be read"):
        read_signing_key(str(tmp_path / "none"))


class Repository:
    """The control plane's part of publishing, with a real signed repository."""

    def __init__(self, script, tools):
        self.files, self.keys = create_repository(time.time())
        self.blobs, self.manifests, self.raced = {}, [], 0
        self._script, self._tools = script, tools
        self._serve()
        script.on("POST", f"{API}/releases", self._publish)

    def _serve(self):
        for name, data in self.files.items():
            self._script.on("GET", f"{API}/repository/{name}", self._tools.answer(data))

    def blob(self, data):
        path = f"{API}/blobs/{digest(data)}"

        def put(request):
            self.blobs[digest(request.content)] = request.content
            self._script.on("HEAD", path, self._tools.answer(b""))
            return self._tools.answer(b"{}", 201)(request)

        self._script.on("PUT", path, put)

    def accept(self, metadata):
        self.files |= accept_delegated(self.files, "releases", metadata, self.keys.online, time.time())
        self._serve()

    def _publish(self, request):
        if self.raced:
            self.raced -= 1
            return self._tools.refusal(409, "Conflict", "somebody else was first")(request)
        body = json.loads(request.content)
        manifest = base64.b64decode(body["manifest"])
        self.accept(base64.b64decode(body["metadata"]))
        self.manifests.append(manifest)
        parsed = msgspec.json.decode(manifest, type=Manifest)
        spec = ArtifactVersionSpec(
            manifest=parsed,
            target=f"releases/{parsed.namespace}/{parsed.artifact}/{parsed.version}.json",
            digest=digest(manifest),
            length=len(manifest),
        )
        made = ArtifactVersion(metadata=Metadata(name=f"{parsed.artifact}:{parsed.version}", namespace=parsed.namespace), spec=spec)
        return self._tools.answer(made, 201)(request)


@pytest.fixture
def repository(script, tools):
    return Repository(script, tools)


async def test_a_release_is_uploaded_signed_and_published(client, script, repository, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"model" * 1000)
    repository.blob(b"model" * 1000)
    told = []
    published = await client.push(release(tmp_path), repository.keys.releases[0], progress=lambda *each: told.append(each))
    assert published.metadata.name == "inspector:1"
    assert repository.blobs == {digest(b"model" * 1000): b"model" * 1000}
    metadata = json.loads(repository.files["2.releases.json"])
    target = metadata["signed"]["targets"]["releases/default/inspector/1.json"]
    assert f"sha256:{target['hashes']['sha256']}" == digest(repository.manifests[0])
    assert {stage for stage, _, _ in told} == {"hash", "upload", "publish"}
    assert told[-1] == ("publish", 1, 1)
    assert all(0 <= done <= total for _, done, total in told)


async def test_what_is_there_is_not_uploaded_again_and_publishing_again_is_no_error(client, script, repository, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"model")
    repository.blob(b"model")
    await client.push(release(tmp_path), repository.keys.releases[0])
    await client.push(release(tmp_path), repository.keys.releases[0])
    assert sum(path.startswith("PUT") for path in script.paths) == 1
    assert repository.manifests[0] == repository.manifests[1]


async def test_other_content_under_the_same_version_is_a_conflict(client, script, repository, tmp_path):
    for content in (b"one", b"two"):
        repository.blob(content)
    (tmp_path / "model.onnx").write_bytes(b"one")
    await client.push(release(tmp_path), repository.keys.releases[0])
    (tmp_path / "model.onnx").write_bytes(b"two")
    with pytest.raises(ew.Conflict, match="versions are immutable"):
        await client.push(release(tmp_path), repository.keys.releases[0])


async def test_a_race_with_another_publisher_is_signed_on_top_of_it(client, repository, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"model")
    repository.blob(b"model")
    repository.raced = 2
    assert (await client.push(release(tmp_path), repository.keys.releases[0])).metadata.name == "inspector:1"
    repository.raced = 99
    with pytest.raises(ew.Conflict):
        await client.push(release(tmp_path), repository.keys.releases[0])


async def test_nothing_is_signed_on_top_of_metadata_that_this_key_never_signed(client, script, repository, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"model")
    repository.blob(b"model")
    key = new_key()
    with pytest.raises(ew.Error, match="was not signed by this key") as caught:
        await client.push(release(tmp_path), key)
    assert key not in str(caught.value)
    assert not any(path.startswith("POST") for path in script.paths)


async def test_metadata_that_is_none_is_an_error_of_ours(client, script, repository, tools, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"model")
    repository.blob(b"model")
    for name, data in (("1.releases.json", b"{}"), ("1.snapshot.json", b'{"signed": {"meta": {}}}'), ("timestamp.json", b"no")):
        script.on("GET", f"{API}/repository/{name}", tools.answer(data))
        with pytest.raises(ew.Error):
            await client.push(release(tmp_path), repository.keys.releases[0])
