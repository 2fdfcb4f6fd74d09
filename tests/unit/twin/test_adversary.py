"""Every attack on the signed repository, against the code that verifies on devices."""

import pytest

from edgewise.engine.protocol import Failed
from edgewise.engine.resolve import resolution
from edgewise.trust.verify import trusted_set
from edgewise.twin.adversary import EVIL, MANIFEST_BYTES_MAX, RELEASED, Adversary, HostileLink
from edgewise.twin.attacks import ATTACKS
from edgewise.twin.kernel import EPOCH, Kernel
from edgewise.twin.link import Request
from edgewise.twin.plain import PlainDisk
from edgewise.twin.trust import Resolving, SharedChecks

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


def _over_link(adversary: Adversary, disk: PlainDisk, checks: SharedChecks) -> str:
    kernel, results = Kernel(1), []
    steps = resolution(
        disk, adversary.root, adversary.wanted, {}, adversary.now, manifest_bytes_max=MANIFEST_BYTES_MAX, trusting=checks.trusting
    )
    asks = Request(purpose="repository", agent="a", device="a")
    Resolving(kernel, HostileLink(kernel, adversary), asks, steps, results.append)
    assert results == []
    kernel.run(60.0)
    (result,) = results
    return result.reason if isinstance(result, Failed) else adversary.judge(result)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_answered_over_a_simulated_link(name):
    attack, adversary, disk, checks = ATTACKS[name], _adversary(), PlainDisk(), SharedChecks()
    for move, answer in attack.moves[:-1]:
        move(adversary)
        assert _over_link(adversary, disk, checks) == answer
    move, answer = attack.moves[-1]
    move(adversary)
    assert _over_link(adversary, disk, checks) == (attack.on_the_wire or answer)
    _relent(adversary, attack.stolen)
    assert _over_link(adversary, disk, checks) == RELEASED


def test_the_judge_knows_evil():
    """Otherwise no test here could fail."""
    adversary, disk = _adversary(), PlainDisk()
    adversary.released.clear()
    assert adversary.look(disk) == EVIL
