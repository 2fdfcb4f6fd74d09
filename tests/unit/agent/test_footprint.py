"""What the resident agent loads: every module here is memory on every device."""

import importlib.metadata
import subprocess
import sys

import pytest

from edgewise.agent.version import VERSION

FORBIDDEN = {
    "argparse",
    "asyncio",
    "calendar",
    "concurrent",
    "cryptography",
    "ctypes",
    "email",
    "encodings.idna",
    "hashlib",
    "http",
    "importlib.metadata",
    "json",
    "logging",
    "pathlib",
    "psutil",
    "random",
    "securesystemslib",
    "subprocess",
    "tempfile",
    "tuf",
    "unicodedata",
    "urllib",
    "urllib3",
    "yaml",
    "zstandard",
}


def loaded_by(module: str) -> set[str]:
    program = f"import {module}, sys; print('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture(scope="module")
def unavoidable() -> set[str]:
    """What msgspec and h11 load by themselves."""
    return loaded_by("msgspec, h11")


def test_the_resident_agent_loads_nothing_big(unavoidable):
    loaded = loaded_by("edgewise.agent.main") - unavoidable
    assert {each for each in loaded if each in FORBIDDEN or each.partition(".")[0] in FORBIDDEN} == set()


def test_the_resident_agent_loads_no_room_above_or_beside_it():
    rooms = {name.split(".")[1] for name in loaded_by("edgewise.agent.main") if name.startswith("edgewise.")}
    assert rooms == {"agent", "engine", "ports", "resources", "wire"}


def test_what_needs_keys_or_signatures_is_for_the_helper_process():
    loaded = loaded_by("edgewise.agent.main")
    assert not loaded & {
        f"edgewise.agent.{name}" for name in ("fetch", "fetching", "resolve", "renew", "unseal", "join", "declared", "status")
    }
    assert not loaded & {"edgewise.engine.install", "edgewise.engine.resolve"}


def test_the_version_is_the_packages():
    assert importlib.metadata.version("edgewise") == VERSION
