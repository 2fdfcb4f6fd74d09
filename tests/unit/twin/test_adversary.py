"""Every attack on the signed repository, against the code that verifies on devices."""

import msgspec
import pytest
from device_rig import NAME, Control

from edgewise.engine.install import tree_of
from edgewise.engine.resolve import unresolved
from edgewise.resources.device import Capacity
from edgewise.trust.verify import FetchMissing, Untrusted, trusted_set
from edgewise.twin.adversary import EVIL, RELEASED, Adversary, HostileLink
from edgewise.twin.attacks import ATTACKS
from edgewise.twin.device import SimDevice, Surroundings
from edgewise.twin.fleet import DeviceClass, TwinDevice
from edgewise.twin.kernel import EPOCH, Kernel
from edgewise.twin.link import Answered
from edgewise.twin.plain import PlainDisk
from edgewise.twin.plan import Profile
from edgewise.twin.trust import SharedChecks, verifying
from edgewise.wire.desired import DeviceDesired, InstanceDesired, Position
from edgewise.wire.enrolment import JoinAnswer

THREATS = {
    "arbitrary installation",
    "endless data",
    "extraneous dependencies",
    "fast-forward",
    "indefinite freeze",
    "key compromise",
    "malicious mirrors",
    "mix-and-match",
    "rollback",
    "slow retrieval",
    "wrong software installation",
}
"""The specification's list (1.5.2)."""


def _adversary() -> Adversary:
    return Adversary(Kernel(7).stream("adversary"), EPOCH)


def _relent(adversary: Adversary, stolen: bool) -> None:
    if stolen:
        adversary.replace_online_key()
    adversary.repository.keep_fresh(adversary.now)
    adversary.honest()
    adversary.want(max(adversary.released))


def test_every_threat_of_the_specification_has_an_attack():
    assert {attack.threat for attack in ATTACKS.values()} == THREATS


@pytest.mark.parametrize("shared", [False, True], ids=["each", "shared"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_answered_and_leaves_nothing_behind(name, shared):
    attack, adversary, disk = ATTACKS[name], _adversary(), PlainDisk()
    trusting = SharedChecks().trusting if shared else trusted_set
    for number, (move, answer) in enumerate(attack.moves):
        move(adversary)
        assert adversary.look(disk, trusting) == answer, number
    _relent(adversary, attack.stolen)
    assert adversary.look(disk, trusting) == RELEASED


class Attacked(Control):
    """A control plane that only remembers, with the adversary between it and the device."""

    def __init__(self, kernel: Kernel, adversary: Adversary) -> None:
        super().__init__(kernel, adversary)
        self.adversary = adversary
        self.hostile = HostileLink(kernel, adversary)

    def send(self, request, done):
        hostile = request.purpose == "repository" or (request.purpose == "blob" and request.path in self.adversary.names)
        return self.hostile.send(request, done) if hostile else super().send(request, done)

    def _answer(self, request):
        if request.purpose != "join":
            return super()._answer(request)
        joined = JoinAnswer(agent="agent", certificate="c", authority="a", repository_root=self.adversary.root)
        return Answered(body=msgspec.msgpack.encode(joined))

    def _blob(self, request):
        return Answered(size=1000)


class Attackable(Adversary):
    """What the device's surroundings ask of what is published."""

    @property
    def names(self) -> set[str]:
        return {self.wanted.digest, *self.manifests}

    def manifest(self, digest):
        raise AssertionError("a device that verifies asks for no manifest that it did not check")

    def content(self, digest):
        raise AssertionError("the adversary's answers carry their bytes")


class Victim:
    """A simulated device that is told again and again what to run, each time as a new revision."""

    def __init__(self) -> None:
        self.kernel = Kernel(1)
        self.adversary = Attackable(self.kernel.stream("adversary"), EPOCH)
        self.control = Attacked(self.kernel, self.adversary)
        self.answers: list[str] = []
        verify = verifying({}, SharedChecks())

        def resolve(*asked):
            try:
                resolved = yield from verify(*asked)
            except (Untrusted, FetchMissing) as error:
                self.answers.append(unresolved(error).reason)
                raise
            self.answers.append(self.adversary.judge(resolved))
            return resolved

        around = Surroundings(
            self.kernel,
            Profile(disk="plain", install="modelled", trust="tuf", report_seconds=0.0),
            contents=self.adversary,
            make_disk=lambda _name, _size: PlainDisk(),
            resolve=resolve,
        )
        capacity = Capacity(disk=1 << 40, memory=1 << 30)
        sort = DeviceClass(name="c", capacity=capacity, clock_drift_ppm=0.0)
        self.device = SimDevice(around, TwinDevice(name="dev", site="s", device_class="c"), sort, self.control, token="secret")
        self.device.power_on()
        self.kernel.run(60.0)

    def look(self) -> str:
        """Tell the device what is wanted, give it time, and return what it said of it."""
        self.kernel.run(max(self.kernel.now, self.adversary.now - EPOCH))
        self.control.n += 1
        revision = f"rev-{self.control.n}"
        wanted = InstanceDesired(name=NAME, uid="u", epoch=1, revision=revision, artifact=self.adversary.wanted)
        self.control.tell(DeviceDesired(device="dev", uid="u", position=Position(1, self.control.n), instances=(wanted,)))
        self.answers.clear()
        self.kernel.run(self.kernel.now + 400.0)
        self.adversary.now = EPOCH + self.kernel.now
        released = {tree_of(variant) for each in self.adversary.released.values() for variant in each.spec.manifest.variants}
        assert {each.tree for each in self.device.running()} <= released
        said = self.control.statuses()[NAME].status
        answer = self.answers[-1] if self.answers else said.reason
        assert answer != RELEASED or [each.revision for each in self.device.running()] == [revision]
        return answer


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_answered_by_a_simulated_device(name):
    attack, victim = ATTACKS[name], Victim()
    for number, (move, answer) in enumerate(attack.moves):
        move(victim.adversary)
        assert victim.look() == answer, number
    _relent(victim.adversary, attack.stolen)
    assert victim.look() == RELEASED


def test_the_judge_knows_evil():
    """Otherwise no test here could fail."""
    adversary, disk = _adversary(), PlainDisk()
    adversary.released.clear()
    assert adversary.look(disk) == EVIL
