"""Fetching, verifying and installing 200 MB, beside curl over the same TLS, sha256sum and a sync of the file."""

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks._device import Place, control_plane, join
from benchmarks.row import Row
from edgewise.agent.helper import COMMAND
from edgewise.agent.jobs import FetchEnded, FetchJob
from edgewise.agent.jobs import Place as DevicePlace
from edgewise.engine.identity import CERTIFICATE_PATH, KEY_PATH, read_identity
from edgewise.engine.protocol import Fetched
from edgewise.ports.disk import DiskFiles
from edgewise.resources.artifact import ArtifactVersion
from edgewise.wire.desired import ArtifactTarget

_BYTES = 200_000_000
_ROUNDS = 3
_RATIO_MAX = 2.0
_MEMORY_MB_MAX = 64.0


def measure() -> Iterator[Row]:
    """Yield the rows: the best of several rounds of each, taken in turn."""
    with tempfile.TemporaryDirectory(prefix="edgewise-bench-") as folder, control_plane(Path(folder)) as place:
        target = _publish(place)
        data = join(place, "fetcher")
        baselines, values, peaks = [], [], []
        for round_number in range(_ROUNDS):
            baselines.append(_baseline(place, data, target, round_number))
            seconds, peak = _fetch(place, data, target)
            values.append(seconds)
            peaks.append(peak)
    best, base = min(values), min(baselines)
    yield Row(
        name="fetch, verify and install of 200 MB",
        unit="s",
        value=best,
        baseline=base,
        ratio=best / base,
        target=f"at most {_RATIO_MAX:g} x curl, sha256sum and fsync",
        met=best <= _RATIO_MAX * base,
        note=f"start of the process, signatures and staging included; best of {_ROUNDS}",
    )
    yield Row(
        name="fetch process, peak resident memory",
        unit="MB",
        value=max(peaks),
        target=f"under {_MEMORY_MB_MAX:g}",
        met=max(peaks) < _MEMORY_MB_MAX,
    )


def _publish(place: Place) -> ArtifactTarget:
    """Push a bundle with one big file, as an operator would."""
    bundle = place.folder / "bundle"
    bundle.mkdir()
    (bundle / "main.py").write_text("print('hello')\n")
    with (bundle / "weights.bin").open("wb") as file:
        for _ in range(_BYTES // 1_000_000):
            file.write(os.urandom(1_000_000))
    manifest = place.folder / "artifact.yaml"
    manifest.write_text(
        "type: bundle\nname: big\nvariants:\n  - name: plain\n    path: bundle\n    command:\n"
        '      argv: ["${python}", "${bundle}/main.py"]\n'
    )
    place.run("artifact", "push", "-f", str(manifest), "--version", "1")
    listed = place.run("get", "artifactversion", "big:1", "-o", "json")
    version = msgspec.json.decode(listed, type=ArtifactVersion).spec
    variant = version.manifest.variants[0]
    return ArtifactTarget(
        target=version.target,
        digest=version.digest,
        length=version.length,
        type=version.manifest.type,
        variant=variant.name,
        size=sum(each.size for each in variant.files),
    )


def _baseline(place: Place, data: Path, target: ArtifactTarget, number: int) -> float:
    identity = read_identity(DiskFiles(str(data)))
    assert identity is not None
    authority = place.folder / "authority.pem"
    authority.write_text(identity.certificates.authority)
    copy = place.folder / f"copy-{number}"
    listed = place.run("get", "artifactversion", "big:1", "-o", "json")
    files = msgspec.json.decode(listed, type=ArtifactVersion).spec.manifest.variants[0].files
    digest = max(files, key=lambda each: each.size).digest
    curl = ["curl", "-sf", "--cacert", str(authority), "--cert", str(data / CERTIFICATE_PATH), "--key", str(data / KEY_PATH)]
    began = time.monotonic()
    subprocess.run([*curl, "-o", str(copy), f"{place.gateway}/v1/blobs/{digest}"], check=True)
    subprocess.run(["sha256sum", str(copy)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["sync", str(copy)], check=True)
    seconds = time.monotonic() - began
    copy.unlink()
    assert target.size >= _BYTES
    return seconds


def _fetch(place: Place, data: Path, target: ArtifactTarget) -> tuple[float, float]:
    """Return (seconds, peak megabytes of the process)."""
    job = FetchJob(place=DevicePlace(data=str(data), addresses=(place.gateway,)), artifact=target)
    began = time.monotonic()
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=place.environment)
    assert process.stdin is not None
    assert process.stdout is not None
    peak = _Peak(process.pid)
    process.stdin.write(msgspec.json.encode(job))
    process.stdin.close()
    last = process.stdout.read().splitlines()[-1]
    process.stdout.close()
    process.wait()
    seconds = time.monotonic() - began
    result = msgspec.json.decode(last, type=FetchEnded).result
    assert isinstance(result, Fetched), result
    subprocess.run(["rm", "-rf", *(str(data / name) for name in ("trees", "staging", "manifests"))], check=True)
    return seconds, peak.end()


class _Peak:
    """Watches a process's own high-water mark (VmHWM), which goes with it."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/status")
        self._most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> float:
        """Return megabytes."""
        self._ended.set()
        self._thread.join()
        return self._most * 1024 / 1e6

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            with contextlib.suppress(OSError):
                marks = [line.split()[1] for line in self._path.read_text().splitlines() if line.startswith("VmHWM:")]
                self._most = max([self._most, *map(int, marks)])


if __name__ == "__main__":
    for row in measure():
        print(f"{row.name}: {row.value:.2f} {row.unit}, ratio {row.ratio} ({row.target}: {'met' if row.met else 'NOT met'})")
