"""Install the public clients that the tests talk to the model server with, each into an environment of its own: their pins fight ours.

`python tests/clients/install.py FOLDER [NAME …]` makes `FOLDER/NAME`. What is installed is locked in `NAME.lock` (name, version and hash). An
environment that is there already is kept until its lock changes. Compiling nothing and resolving nothing makes it quick.

The locks come from `uv pip compile --universal --generate-hashes --no-emit-index-url` of `tritonclient[http]` and `kserve`, less what these
do not import for HTTP from one thread.
"""

import hashlib
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("triton", "kserve")


def install(folder: Path, name: str) -> None:
    """Make one environment, unless it is there."""
    lock, place = HERE / f"{name}.lock", folder / name
    mark, digest = place / ".installed", hashlib.sha256(lock.read_bytes()).hexdigest()
    if mark.is_file() and mark.read_text() == digest:
        return
    shutil.rmtree(place, ignore_errors=True)
    started = time.monotonic()
    venv.create(place, with_pip=True, symlinks=True)
    pip = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(lock)], check=True)
    mark.write_text(digest)
    sys.stdout.write(f"installed the client {name} into {place} in {time.monotonic() - started:.0f} s\n")


def main() -> None:
    """Install what is asked for, or all."""
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(NAMES):
        raise SystemExit(f"usage: python {sys.argv[0]} FOLDER [{' | '.join(NAMES)} …]")
    for name in sys.argv[2:] or NAMES:
        install(Path(sys.argv[1]), name)


if __name__ == "__main__":
    main()
