import pytest

from edgewise.ports.disk import DiskFiles
from edgewise.trust.authority import Authority, Issuer, create_authority
from edgewise.trust.repository import RepositoryKeys, accept_delegated, add_release, create_repository, delegated_metadata
from edgewise.trust.verify import FetchMissing, verified_target

NOW = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture(scope="session")
def now() -> float:
    return NOW


@pytest.fixture(scope="session")
def authority() -> Authority:
    return create_authority("test", NOW)


@pytest.fixture(scope="session")
def issuer(authority: Authority) -> Issuer:
    return Issuer(authority.issuing_key_pem, authority.issuing_cert_pem, authority.root_cert_pem)


class Fleet:
    """A repository, its keys, and a device that looks at it."""

    def __init__(self, folder, options=None) -> None:
        self.now = NOW
        self.folder = folder
        self.disk = DiskFiles(folder.parent)
        self.files, self.keys = create_repository(NOW, options) if options else create_repository(NOW)
        self.root = self.files["1.root.json"]
        self.asked: list[str] = []

    def release(self, path: str, digit: str = "a", key: str | None = None) -> None:
        metadata = add_release(delegated_metadata(self.files), path, "sha256:" + digit * 64, 10, key or self.keys.releases[0], self.now)
        self.files.update(accept_delegated(self.files, "releases", metadata, self.keys.online, self.now))

    def fetch(self, name: str, limit: int) -> bytes:
        self.asked.append(name)
        if name not in self.files:
            raise FetchMissing(name)
        return self.files[name]

    def look(self, path: str = "releases/default/inspector/1.json", *, now: float | None = None, **more):
        return verified_target(self.disk, self.root, self.fetch, path, self.now if now is None else now, **more)


@pytest.fixture
def make_fleet(tmp_path):
    made: list[Fleet] = []

    def make(options=None) -> Fleet:
        made.append(Fleet(tmp_path / "repository", options))
        return made[-1]

    yield make
    for each in made:
        each.disk.close()


@pytest.fixture
def fleet(make_fleet) -> Fleet:
    made = make_fleet()
    made.release("releases/default/inspector/1.json")
    return made


@pytest.fixture
def keys(fleet: Fleet) -> RepositoryKeys:
    return fleet.keys
