"""The signed repository in the twin: the product's verification over simulated disks and links."""

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.engine.resolve import WantedManifest
from edgewise.ports.files import Full, Missing
from edgewise.resources.device import Capacity
from edgewise.resources.meta import Metadata
from edgewise.resources.workload import ArtifactReference, EveryMatchingDevice, Placement, Workload, WorkloadSpec
from edgewise.trust.verify import Untrusted
from edgewise.twin.adversary import RELEASED, Adversary
from edgewise.twin.disk import Crash, PowerCut, RecordingDisk
from edgewise.twin.fleet import DeviceClass, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.kernel import EPOCH, Kernel
from edgewise.twin.plain import PlainDisk
from edgewise.twin.plan import Plan, Profile
from edgewise.twin.scenario import Scenario
from edgewise.twin.trust import SharedChecks, TwinRepository, verifying
from edgewise.twin.versions import made_version
from edgewise.twin.world import World

REFUSALS = {"BadSignature", "Expired", "Malformed", "MetadataMissing", "Mismatch", "Refused", "RolledBack", "UnknownTarget"}


def _adversary(seed: int = 1) -> Adversary:
    return Adversary(Kernel(seed).stream("adversary"), EPOCH)


def test_a_repository_is_the_same_for_the_same_seed():
    one, same, other = _adversary(), _adversary(), _adversary(2)
    assert one.repository.files == same.repository.files
    assert one.root != other.root


def _resolve(adversary: Adversary, disk, checks=None):
    steps = verifying(adversary.repository.manifests, checks)(disk, adversary.wanted, {}, adversary.now)
    data = None  # the link carries no manifests
    while True:
        try:
            wanted = steps.send(data)
        except StopIteration as ended:
            return ended.value
        data = b"" if isinstance(wanted, WantedManifest) else adversary.get(wanted)


@pytest.mark.parametrize("checks", [None, SharedChecks()], ids=["each", "shared"])
def test_a_device_believes_the_root_on_its_disk(checks):
    adversary, disk = _adversary(), PlainDisk()
    with pytest.raises(Missing):
        _resolve(adversary, disk, checks)
    disk.make_folder("identity")
    disk.replace("identity/root.json", adversary.root)
    assert adversary.judge(_resolve(adversary, disk, checks)) == RELEASED
    disk.replace("identity/root.json", _adversary(2).root)
    with pytest.raises(Untrusted) as refused:
        _resolve(adversary, disk, checks)
    assert refused.value.reason == "BadSignature"


def test_a_repository_keeps_itself_fresh():
    adversary, disk = _adversary(), PlainDisk()
    for _ in range(40):
        adversary.now += 0.9 * 86_400.0
        adversary.repository.keep_fresh(adversary.now)
        adversary.honest()
        assert adversary.look(disk) == RELEASED


def test_a_version_that_is_not_what_its_digest_says_is_not_published():
    repository = TwinRepository(Kernel(1).stream("repository"), EPOCH)
    version = made_version("default", "inspector", "1")
    wrong = msgspec.structs.replace(version, spec=msgspec.structs.replace(version.spec, digest="sha256:" + "0" * 64))
    with pytest.raises(ValueError, match="inspector:1"):
        repository.publish(wrong, EPOCH)


# ---- what a power cut leaves of what was seen ----


def _looked(adversary: Adversary, disk: RecordingDisk) -> RecordingDisk:
    assert adversary.look(disk) == RELEASED
    return disk


@pytest.mark.parametrize("how", [each for each in Crash if each is not Crash.MIXED])
@pytest.mark.parametrize(("seen", "operations"), [(False, 5), (True, 3)], ids=["new", "seen"])
def test_a_device_with_a_cut_at_any_operation_goes_on_and_forgets_no_version(how, seen, operations):
    """Cut while it looks at a newer state, in every place: afterwards it takes the newer state, and once it has, never an older one."""
    adversary = _adversary()
    first = _looked(adversary, RecordingDisk()) if seen else RecordingDisk()
    adversary.release("2")
    adversary.honest()
    adversary.want("2")
    cuts = 0
    while True:
        disk = first.copy()
        disk.cut_after = disk.operations + cuts
        try:
            adversary.look(disk)
        except PowerCut:
            adversary.honest()
            after = _looked(adversary, disk.crash(how))
        else:
            after = disk.crash(how)
        adversary.served = dict(adversary.states[0])
        assert adversary.look(after) == "RolledBack"
        adversary.honest()
        if not disk.dead:
            break
        cuts += 1
    assert cuts == operations


def test_a_disk_that_fills_at_any_operation_is_said_and_passes():
    adversary = _adversary()
    for at in range(1, 30):
        disk = RecordingDisk()
        disk.fail_at = at
        try:
            adversary.look(disk)
        except Full:
            disk.fail_at = None
            _looked(adversary, disk)
        else:
            assert disk.operations < at
            return
    pytest.fail("it never ended")


# ---- checks that are shared by all devices ----


def test_shared_checks_do_not_share_what_each_device_has_seen():
    adversary, checks = _adversary(), SharedChecks()
    new, old = PlainDisk(), PlainDisk()
    assert adversary.look(old, checks.trusting) == RELEASED
    adversary.release("2")
    adversary.honest()
    assert adversary.look(new, checks.trusting) == RELEASED
    adversary.served = dict(adversary.states[0])
    assert adversary.look(old, checks.trusting) == RELEASED
    assert adversary.look(new, checks.trusting) == "RolledBack"
    adversary.now += 3 * 86_400.0
    assert adversary.look(old, checks.trusting) == "Expired"


def test_shared_checks_check_each_signature_once(monkeypatch):
    from securesystemslib.signer import SSlibKey

    adversary, checks, checked = _adversary(), SharedChecks(), []
    check = SSlibKey.verify_signature
    monkeypatch.setattr(SSlibKey, "verify_signature", lambda key, signature, data: (checked.append(data), check(key, signature, data))[1])
    for _ in range(20):
        assert adversary.look(PlainDisk(), checks.trusting) == RELEASED
    assert len(checked) == 3 + 1 + 1 + 1 + 2  # three signed the root, two the releases
    adversary.root = Adversary(Kernel(9).stream("other"), EPOCH).root
    assert adversary.look(PlainDisk(), checks.trusting) == "BadSignature"
    assert adversary.look(PlainDisk(), checks.trusting) == "BadSignature"


@pytest.fixture(scope="module")
def history() -> tuple[Adversary, SharedChecks, list[dict[str, bytes]]]:
    """Four states of a repository, and one of another fleet's."""
    adversary = _adversary()
    for version in "234":
        adversary.now += 3600.0
        adversary.release(version)
    adversary.want("4")
    return adversary, SharedChecks(), [*adversary.states, _adversary(2).states[0]]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("1234"), st.lists(st.integers(0, 5), max_size=3)), min_size=1, max_size=5))
def test_no_mixture_of_true_files_makes_a_device_run_another_thing(history, looks):
    """Mirrors serve any state of the fleet's, or another's, with some files from other states in the place of theirs."""
    adversary, checks, states = history
    disk, newest = PlainDisk(), 0
    everything = {name: data for state in states[:4] for name, data in state.items()}
    names = sorted(everything)
    for state, version, mixed in looks:
        adversary.served = dict(states[state])
        for index, other in enumerate(mixed):
            name = names[(7 * index + 3 * other + state) % len(names)]
            adversary.served[name] = states[other % len(states)].get(name, everything[names[other]])
        adversary.manifests = dict(adversary.repository.manifests)
        adversary.want(version)
        answer = adversary.look(disk, checks.trusting)
        assert answer == RELEASED or answer in REFUSALS
        seen = _timestamp_version(disk)
        assert seen >= newest
        newest = seen


def _timestamp_version(disk: PlainDisk) -> int:
    try:
        return json.loads(disk.read("repository/timestamp.json", 100_000))["signed"]["version"]
    except Missing:
        return 0


# ---- no door for the twin in the product ----


def test_the_process_that_verifies_on_a_device_knows_nothing_of_the_twin():
    program = "import edgewise.agent.fetching, edgewise.agent.resolve, sys; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "edgewise.trust.verify" in loaded
    assert [name for name in loaded if name.startswith("edgewise.twin")] == []


def test_the_twin_registers_no_scheme_of_its_own():
    """What this process can verify is what the library could before: Ed25519 is what counts, in the twin as on a device."""
    program = (
        "from securesystemslib.signer import KEY_FOR_TYPE_AND_SCHEME as known; before = dict(known); "
        "import edgewise.twin.trust, edgewise.twin.attacks; assert known == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def _plan(trust: str) -> Plan:
    version = made_version("default", "inspector", "1")
    workload = Workload(
        metadata=Metadata(name="inspector", namespace="default"),
        spec=WorkloadSpec(
            artifact=ArtifactReference(name="inspector", version="1"), placement=Placement(every_matching_device=EveryMatchingDevice())
        ),
    )
    sort = DeviceClass(name="small", capacity=Capacity(cpu_milli=4000, memory=1 << 32, disk=1 << 36, runtimes={"onnxruntime": "1.20"}))
    fleet = TwinFleet(
        sites=(TwinSite(name="s"),),
        classes=(sort,),
        devices=tuple(TwinDevice(name=f"d{n}", site="s", device_class="small") for n in range(3)),
        versions=(version,),
        workloads=(workload,),
    )
    return Plan(seed=1, fleet=fleet, scenario=Scenario(name="calm"), profile=Profile(trust=trust))


def test_a_run_verifies_what_its_devices_install():
    """Through the whole twin: a story with trust on and one with trust off come to the same end, and only one asks for metadata."""
    ends = {}
    for trust in ("none", "tuf"):
        world, asked = World(_plan(trust)), []
        file = world.control._repository
        world.control._repository = lambda name, file=file, asked=asked: (asked.append(name), file(name))[1]
        world.kernel.run(900.0)
        ends[trust] = {name: device.ready() for name, device in world.devices.items()}
        assert ("timestamp.json" in asked) == (trust == "tuf")
    assert ends["tuf"] == ends["none"]
    assert set(ends["tuf"]) == {"d0", "d1", "d2"}
    assert all(ready == {"default/inspector": "1"} for ready in ends["tuf"].values()), ends
