"""Schedules: the same on every machine, undisturbed by what does not concern them, and never longer than their scenario."""

import itertools
import os
import subprocess
import sys

import msgspec
import pytest

from edgewise.resources.errors import Invalid
from edgewise.twin.fleet import DeviceClass, History, LinkQuality, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.generate import made_fleet
from edgewise.twin.scenario import FaultRule, Scenario, Select
from edgewise.twin.schedule import ANONYMOUS, MOMENTARY, ScheduleLimits, kept, schedule, selected

FLEET = made_fleet(100, seed=4)


def with_rules(*rules, lasts="30m"):
    return Scenario(name="test", lasts=lasts, faults=rules)


def draw(*rules, fleet=FLEET, seed=1, lasts="30m", **limits):
    return schedule(with_rules(*rules, lasts=lasts), fleet, seed, ScheduleLimits(**limits))


def with_history(**fields):
    devices = tuple(
        TwinDevice(name=f"d{number}", site="here", device_class="pi", history=History(**fields) if number == 0 else History())
        for number in range(3)
    )
    return TwinFleet(sites=(TwinSite(name="here"),), classes=(DeviceClass(name="pi"),), devices=devices)


OFTEN = FaultRule(fault="power-cut", every="2m", until="25m", together=False, select=Select(share=0.5))

_ELSEWHERE = """
import hashlib, msgspec
from edgewise.twin.chaos import chaos_plan
from edgewise.twin.generate import made_fleet
from edgewise.twin.library import names, scenario
from edgewise.twin.schedule import schedule
fleet = made_fleet(60, seed=3)
drawn = [schedule(scenario(name), fleet, 7) for name in names()]
plans = [chaos_plan(seed) for seed in range(20)]
drawn += [schedule(plan.scenario, plan.fleet, plan.seed) for plan in plans]
print(hashlib.sha256(msgspec.msgpack.encode([drawn, plans])).hexdigest())
"""


def test_nothing_hangs_on_the_hash_seed():
    def told(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run([sys.executable, "-c", _ELSEWHERE], env=environment, capture_output=True, check=True).stdout

    assert told("0") == told("1") != b""


def test_the_same_seed_gives_the_same_and_another_one_does_not():
    assert draw(OFTEN) == draw(OFTEN)
    assert draw(OFTEN) != draw(OFTEN, seed=2)


def test_numbers_count_up_in_the_order_of_time():
    faults = draw(FaultRule(fault="reboot", at="5m"), OFTEN, FaultRule(fault="heat", amount=20, at="1m"))
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)


def test_a_rule_more_moves_no_fault_of_the_others():
    alone = [(fault.at, fault.devices) for fault in draw(OFTEN)]
    beside = [(fault.at, fault.devices) for fault in draw(OFTEN, FaultRule(fault="reboot", every="1m", until="20m")) if fault.rule == OFTEN]
    assert beside == alone


def test_a_device_more_moves_no_fault_of_the_others():
    smaller = msgspec.structs.replace(FLEET, devices=FLEET.devices[:-1])
    last = FLEET.devices[-1].name
    assert [(f.at, f.devices) for f in draw(OFTEN) if f.devices != (last,)] == [(f.at, f.devices) for f in draw(OFTEN, fleet=smaller)]


def test_what_comes_once_hits_all_at_its_moment():
    (fault,) = draw(FaultRule(fault="partition", at="90s", lasts="5m"))
    assert (fault.at, fault.lasts, fault.devices) == (90.0, 300.0, tuple(device.name for device in FLEET.devices))


def test_a_share_is_counted_and_drawn_anew_each_time():
    faults = draw(FaultRule(fault="reboot", every="1m", until="29m", select=Select(share=0.2)))
    assert len(faults) > 10
    assert {len(fault.devices) for fault in faults} == {20}
    assert len({fault.devices for fault in faults}) == len(faults)
    same = draw(FaultRule(fault="reboot", every="1m", until="29m", select=Select(share=0.2, same=True)))
    assert len({fault.devices for fault in same}) == 1 < len(same)


def test_a_small_share_hits_one_device_at_least():
    (fault,) = draw(FaultRule(fault="lost", select=Select(share=0.0001)))
    assert len(fault.devices) == 1


def test_a_share_is_spread_over_the_fleet():
    hit = [0] * 100
    for seed in range(200):
        for name in draw(FaultRule(fault="lost", select=Select(share=0.1)), seed=seed)[0].devices:
            hit[int(name.removeprefix("device-")) - 1] += 1
    assert sum(hit) == 2_000
    assert min(hit) >= 5
    assert max(hit) <= 45


def test_whole_sites_fall_together():
    (fault,) = draw(FaultRule(fault="partition", select=Select(share=0.5, whole_sites=True)))
    sites = {device.site for device in FLEET.devices if device.name in fault.devices}
    assert len(sites) == 2
    assert set(fault.devices) == {device.name for device in FLEET.devices if device.site in sites}


def test_apart_means_each_at_its_own_moment():
    faults = draw(FaultRule(fault="reboot", at="1m", until="20m", together=False))
    assert sorted(fault.devices for fault in faults) == [(device.name,) for device in FLEET.devices]
    assert len({fault.at for fault in faults}) > 90
    assert all(60 <= fault.at < 1200 for fault in faults)


def test_every_is_a_mean():
    faults = draw(FaultRule(fault="reboot", every="10m", until="23h", together=False), lasts="24h")
    assert 0.95 < len(faults) / (100 * 23 * 6) < 1.05
    thinned = draw(FaultRule(fault="reboot", every="10m", until="23h", together=False, select=Select(share=0.25)), lasts="24h")
    assert 0.9 < len(thinned) / (100 * 23 * 6 * 0.25) < 1.1


def test_until_and_the_scenario_bound_what_comes():
    rule = FaultRule(fault="partition", every="30s", until="10m", lasts="20m")
    faults = draw(rule, lasts="15m")
    assert faults
    assert max(fault.at for fault in faults) < 600
    assert all(fault.at + fault.lasts <= 900 for fault in faults)
    assert draw(FaultRule(fault="partition", at="20m"), lasts="15m") == ()


@pytest.mark.parametrize("kind", sorted(MOMENTARY))
def test_what_is_over_at_once_lasts_no_time(kind):
    assert {fault.lasts for fault in draw(FaultRule(fault=kind, lasts="60s"))} == {0.0}


@pytest.mark.parametrize("kind", sorted(ANONYMOUS))
def test_the_control_plane_is_no_device(kind):
    (fault,) = draw(FaultRule(fault=kind, at="2m", lasts="60s", seconds=1))
    assert fault.devices == ()
    assert (fault.at, fault.lasts) == (120.0, 60.0)


def test_select_takes_what_is_all_of_it():
    one = FLEET.devices[30]
    assert selected(Select(devices=(one.name,), sites=(one.site,), classes=(one.device_class,)), FLEET) == (one,)
    assert selected(Select(devices=(one.name,), sites=("elsewhere",)), FLEET) == ()
    labelled = msgspec.structs.replace(FLEET, devices=(msgspec.structs.replace(one, labels={"line": "3"}), *FLEET.devices[:5]))
    assert [device.name for device in selected(Select(labels={"line": "3"}), labelled)] == [one.name]


def test_what_selects_nobody_hits_nobody():
    assert draw(FaultRule(fault="reboot", select=Select(sites=("elsewhere",)))) == ()


def test_outages_of_the_past_come_again():
    faults = draw(fleet=with_history(outages_per_day=24, outage_seconds=120), lasts="10d")
    assert {fault.devices for fault in faults} == {("d0",)}
    assert {fault.rule.fault for fault in faults} == {"partition"}
    assert 180 < len(faults) < 290
    assert 80 < sum(fault.lasts for fault in faults) / len(faults) < 170
    ends = [(fault.at, fault.at + fault.lasts) for fault in faults]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))


def test_restarts_of_the_past_come_again():
    faults = draw(fleet=with_history(restarts_per_day=12), lasts="10d")
    assert {(fault.rule.fault, fault.lasts) for fault in faults} == {("reboot", 0.0)}
    assert 90 < len(faults) < 150


def test_what_was_offline_stays_so_until_the_faults_end():
    (fault,) = draw(fleet=with_history(offline=True, outages_per_day=100), lasts="30m")
    assert (fault.rule.fault, fault.at, fault.lasts, fault.devices) == ("partition", 0.0, 1800.0, ("d0",))


def test_the_past_moves_no_fault_of_the_rules():
    rule = FaultRule(fault="heat", amount=10, every="3m", until="20m")
    calm, shaken = with_history(), with_history(restarts_per_day=100)
    assert [f.at for f in draw(rule, fleet=calm)] == [f.at for f in draw(rule, fleet=shaken) if f.rule == rule]


def test_only_keeps_numbers():
    faults = draw(OFTEN)
    assert kept(faults, None) == faults
    assert kept(faults, ()) == ()
    assert [fault.number for fault in kept(faults, (5, 2, 10**9))] == [2, 5]


def test_there_is_a_bound():
    rule = FaultRule(fault="reboot", together=False)
    assert len(draw(rule, faults_max=100)) == 100
    with pytest.raises(Invalid, match="more than 99 faults"):
        draw(rule, faults_max=99)
    together = FaultRule(fault="reboot")
    assert len(draw(together, hits_max=100)) == 1
    with pytest.raises(Invalid, match="99 devices"):
        draw(together, hits_max=99)


def test_a_share_of_the_batteries_is_drawn_from_the_devices_that_have_one():
    fleet = made_fleet(200)
    powered = {device.name for device in fleet.devices if device.device_class == "solar-camera"}
    (all_of_them,) = draw(FaultRule(fault="battery", amount=0.1), fleet=fleet)
    assert set(all_of_them.devices) == powered
    (half,) = draw(FaultRule(fault="battery", amount=0.1, select=Select(share=0.5)), fleet=fleet)
    assert len(half.devices) == round(len(powered) / 2)
    assert set(half.devices) < powered
    mains = msgspec.structs.replace(fleet, devices=tuple(device for device in fleet.devices if device.name not in powered))
    assert draw(FaultRule(fault="battery", amount=0.1), fleet=mains) == ()


def test_a_fault_carries_its_rule():
    rule = FaultRule(fault="link", quality=LinkQuality(loss=0.3), lasts="10s")
    assert draw(rule)[0].rule == rule
