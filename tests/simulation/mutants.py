"""Bugs that a programmer could make, each with the small run in which it breaks a promise.

`MUTANTS` names them: the invariant, the bug, the plan, and `plant`, which puts the bug into the product by monkeypatch. `tune` sets limits
that let a rare thing (a compaction, a full lane) happen in a short run; it holds for the sound product too. `guests` are observers
that come along, to do what no plan can say.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from small_plans import KEY, fault, later, plan, update, workload

from edgewise.controllers import desired, gateway, judging, members, placements, rollouts, waves
from edgewise.controllers.view import FleetView
from edgewise.delivery import rollout
from edgewise.delivery.rollout import Signal, Standing
from edgewise.engine import adoption, converge, garbage, install, journal, lanes, lifecycle, machine, recovery, reports, segments
from edgewise.engine import update as updates
from edgewise.engine.limits import EngineLimits
from edgewise.engine.model import SLOTS, slot_of
from edgewise.engine.records import Cleared, Refusal
from edgewise.engine.tables import SlotPhase
from edgewise.resources.states import AnalysisState, RolloutState, UpdateState
from edgewise.resources.workload import AnalysisMetric, Canary, Shadow, Strategy
from edgewise.twin import control, polling, surroundings
from edgewise.twin.fleet import LinkQuality
from edgewise.twin.link import Request
from edgewise.twin.observers import Observer
from edgewise.twin.plan import Act, Plan
from edgewise.twin.scenario import Behaviour
from edgewise.wire.report import EventReport, LaneItems, Report

Plant = Callable[[object], None]
replace = msgspec.structs.replace


class Mutant(NamedTuple):
    """One planted bug."""

    invariant: str
    bug: str
    plan: Plan
    plant: Plant
    tune: EngineLimits | None = None
    guests: tuple[type[Observer], ...] = ()


MUTANTS: list[Mutant] = []


def mutant(invariant, plan, *, tune=None, guests=()):
    """Register the function that plants a bug; its name says which."""

    def register(plant):
        MUTANTS.append(Mutant(invariant, plant.__name__.replace("_", " "), plan, plant, tune, guests))
        return plant

    return register


def fails(how, number="2", after=1.0, share=1.0):
    """How a bad version behaves."""
    return (Behaviour(version=number, fails=how, fails_after_seconds=after, share=share),)


# ---- on a device ----


@mutant("whole-revision", plan(acts=update()))
def files_are_staged_where_whole_trees_are(patch):
    patch.setattr(install, "STAGING", "trees")


@mutant("whole-revision", plan(acts=update()))
def a_tree_is_named_after_its_paths_and_not_its_contents(patch):
    whole = install.tree_of
    patch.setattr(
        install, "tree_of", lambda variant: whole(replace(variant, files=tuple(replace(file, digest="") for file in variant.files)))
    )


CUT_ON_TRIAL = plan(fault("power-cut", "4s", "5s", "d1", crash="garbage"), acts=update())


@mutant("whole-revision", CUT_ON_TRIAL)
def a_tree_is_named_before_its_files_are_synced(patch):
    patch.setattr(install._Stager, "_sync", lambda _self, _path, _appender: None)


@mutant("one-at-a-time", plan(acts=update()))
def a_process_starts_before_the_old_one_has_stopped(patch):
    def replace_at_once(live, goal, step):
        name = slot_of(live, goal.revision)
        for other in SLOTS:
            if other != name:
                live = converge._leave(live, other, step)
        if name is not None:
            return converge._maintain(live, name, step, is_goal=True)
        free = next((slot for slot in SLOTS if live.slots[slot].phase is SlotPhase.EMPTY), None)
        return live if free is None else converge._begin(live, free, goal, step)

    patch.setattr(converge, "_replace", replace_at_once)


STRANDED = {"acts": update(budget="100%"), "behaviours": fails("crashes-at-start"), "budget": "100%"}
REFUSED_THEN_CUT = plan(fault("power-cut", "40s", "5s"), later("59s"), **STRANDED)
COMPACTING = EngineLimits(journal_compact_bytes=1, journal_compact_growth=1)


@mutant("refused-stays-away", REFUSED_THEN_CUT, tune=COMPACTING)
def refusals_are_left_out_of_the_snapshot(patch):
    _forget_refusals(patch)


@mutant("written-kept", REFUSED_THEN_CUT, tune=COMPACTING)
def a_snapshot_holds_less_than_the_journal(patch):
    _forget_refusals(patch)


def _forget_refusals(patch):
    whole = recovery.snapshot

    def snapshot(state):
        instances = {name: replace(kept, refused={}) for name, kept in state.durable.instances.items()}
        return whole(replace(state, durable=replace(state.durable, instances=instances)))

    patch.setattr(recovery, "snapshot", snapshot)


ALTERED = (*STRANDED["acts"], Act(at=30.0, apply=workload("2", budget="100%", deadline="2m")))


@mutant("refused-stays-away", plan(fault("agent-kill", "50s"), **{**STRANDED, "acts": ALTERED}))
def every_new_document_clears_what_was_refused(patch):
    adopt = adoption.adopt

    def clearing(document, live, step):
        adopt(document, live, step)
        step.record(Cleared())

    patch.setattr(machine, "adopt", clearing)


CUT_OFF = plan(fault("partition", "5s", "3m"), lasts="4m")


@mutant("healthy-runs-on", CUT_OFF)
def every_instance_counts_as_exclusive(patch):
    until = converge.exclusive_until
    patch.setattr(converge, "exclusive_until", lambda live, want, step: until(live, want and replace(want, exclusive=True), step))


@mutant("healthy-runs-on", plan(acts=(Act(at=5.0, apply=workload(deadline="2m")),)))
def a_document_restarts_all_that_it_names(patch):
    take = machine._desired

    def restarting(state, event, step):
        state = take(state, event, step)
        live = {
            name: lifecycle.stop(one, "a", step, restart=True) if one.slots["a"].phase is SlotPhase.UP else one
            for name, one in state.live.items()
        }
        return replace(state, live=live)

    patch.setattr(machine, "_desired", restarting)


@mutant("exclusive-once", plan(fault("partition", "5s", "3m", "d1"), replicas=1, exclusive=True, lost_after="30s", lasts="4m"))
def an_exclusive_copy_stops_after_its_replacement_started(patch):
    patch.setattr(surroundings, "EngineLimits", lambda: EngineLimits(exclusive_share=2.0))


CROWDED = EngineLimits(outbox_telemetry_bytes_max=2_000, outbox_segment_bytes=500)
MEASURED = (Behaviour(metrics={"quality": (0.9, 0.01)}, metric_seconds=2.0),)


@mutant("items-add-up", plan(fault("partition", "5s", "4m", "d1"), behaviours=MEASURED, report=3.0, lasts="5m"), tune=CROWDED)
def what_is_dropped_over_budget_is_not_counted(patch):
    drop = lanes.Lane.drop_segment

    def silently(lane):
        before = lane.dropped
        dropped = drop(lane)
        lane._state = replace(lane._state, dropped=before)
        return dropped

    patch.setattr(lanes.Lane, "drop_segment", silently)


COMPACTED_THEN_CUT = plan(fault("power-cut", "30s", "5s", crash="contents-dropped"), acts=update())


@mutant("journal-readable", COMPACTED_THEN_CUT, tune=COMPACTING)
def a_compacted_journal_is_renamed_before_it_is_synced(patch):
    def make(files, folder, use, number, first):
        appender = files.appender(f"{folder}/new")
        appender.append(segments.header(use, number))
        writer = segments.SegmentWriter(appender, number)
        writer.append(*first)
        files.rename(f"{folder}/new", segments.path_of(folder, number))
        return writer

    patch.setattr(journal.segments, "make", make)


@mutant("written-kept", plan(fault("power-cut", "12s", "5s", crash="dropped"), acts=update()))
def the_journal_is_appended_without_a_sync(patch):
    def append(self, records):
        self.mend()
        self._writer.append(journal._RECORDS, journal._ENCODER.encode(records))
        self._good = self._writer.size

    patch.setattr(journal.Journal, "append", append)


@mutant("items-outlive", plan(fault("power-cut", "1s", "5s", "d1", crash="dropped"), acts=update(), poll=60.0))
def events_are_held_without_a_sync(patch):
    patch.setattr(lanes.Lane, "_synced", lambda _lane, _writer: None)


@mutant("offline-start", plan(fault("partition", "5s", "4m", "d1"), fault("power-cut", "10s", "10s", "d1"), lasts="5m"))
def nothing_starts_before_the_control_plane_was_heard(patch):
    target = converge.target
    patch.setattr(converge, "target", lambda live, want, step: target(live, want, step) if step.contact is not None else None)


@mutant("hot-swap", plan(acts=update(sort="model"), sort="model"))
def a_model_is_replaced_like_any_process(patch):
    patch.setattr(converge, "_swap", converge._replace)


SHADOWED = Strategy(
    shadow=Shadow(devices=1, observe_for="5s"),
    canary=Canary(waves=(1, "100%"), observe_for="3s", failure_budget="10%", device_deadline="1m"),
    analysis=(AnalysisMetric(metric="model.shadow.disagreement", max="2%", min_samples=20, give_up_after="2m"),),
    probation="2s",
)
IN_THE_SHADOW = {"acts": update(sort="model", strategy=SHADOWED), "sort": "model", "report": 5.0, "lasts": "2m"}


@mutant("shadow-never-serves", plan(behaviours=(Behaviour(samples_per_second=10.0),), **IN_THE_SHADOW))
def what_is_held_beside_takes_over_like_any_candidate(patch):
    patch.setattr(converge, "beside", lambda _live, _want, _step: None)


DISAGREES = (Behaviour(version="2", metrics={"model.shadow.disagreement": (0.3, 0.05)}, samples_per_second=10.0),)


@mutant("shadow-first", plan(behaviours=DISAGREES, **IN_THE_SHADOW))
def whatever_a_shadow_says_is_successful(patch):
    patch.setattr(judging, "overall", lambda _verdicts: AnalysisState.SUCCESSFUL)


@mutant("shadow-first", plan(behaviours=DISAGREES, **IN_THE_SHADOW))
def a_shadow_is_told_to_serve(patch):
    whole = waves.Waves._give

    def give(self, instance, offer):
        self.stage = replace(self.stage, traffic=None)
        whole(self, instance, offer)

    patch.setattr(waves.Waves, "_give", give)


SLOW = LinkQuality(latency_seconds=0.01, jitter_seconds=0.0, bandwidth=20_000.0)
FULL = plan(fault("disk-full", "1s", "20s", "d1"), acts=update(budget="100%"), devices=1, link=SLOW)


@mutant("refused-for-cause", FULL)
def whatever_ends_a_fetch_refuses_the_revision(patch):
    patch.setattr(updates, "_interrupted", updates._invalid)


@mutant("says-why", FULL)
def what_is_tried_again_looks_as_if_it_had_just_begun(patch):
    interrupted = updates._interrupted
    patch.setattr(updates, "_interrupted", lambda live, _problem, step: interrupted(live, Refusal(reason=""), step))


@mutant("only-given", plan(acts=(*update(observe="20s"), Act(at=10.0, action="clear-refused", on="d2"))))
def every_device_is_told_the_newest_revision(patch):
    def parts(view, device):
        found = []
        for key, row in view.instances_on(device.key.name):
            spec = replace(row.spec, revision=view.workloads[key].status.revision or row.spec.revision)
            made = desired._rendered(view, key, row.uid, spec, view.revisions[key][spec.revision], stop=device.spec.decommission)
            found += [made] if made is not None else []
        return found

    patch.setattr(desired, "_parts", parts)


THREE = (*update("2"), *update("3", at=30.0), *update("4", at=60.0))


@mutant("trees-go", plan(fault("agent-kill", "9m", "0s", "d1"), acts=THREE, lasts="10m"))
def what_is_installed_stays(patch):
    keep = garbage.keep_trees
    patch.setattr(garbage, "keep_trees", lambda live, step: tuple(sorted({*keep(live, step), *getattr(step, "installed", ())})))


@mutant("truth-is-told", plan(**STRANDED))
def a_device_tells_what_it_should_run(patch):
    status_of = reports.status_of

    def wishful(live, want, step):
        status = status_of(live, want, step)
        return replace(status, revision=want.revision) if want is not None and status.ready else status

    patch.setattr(reports, "status_of", wishful)


# ---- in the control plane ----


@mutant("budget-kept", plan(acts=update(waves=(1, "100%")), behaviours=fails("crashes-at-start")))
def a_budget_in_percent_is_taken_for_a_count(patch):
    patch.setattr(rollout, "over_budget", lambda canary, tally: tally.failed > float(canary.failure_budget[:-1]))


@mutant("waves-kept", plan(acts=update(waves=(1, "100%"))))
def a_wave_needs_twice_what_it_says(patch):
    need = rollout.wave_need
    patch.setattr(waves, "wave_need", lambda size, tally: min(tally.pending, 2 * need(size, tally)))


class _Hostile(Observer):
    """Sends, as the agent of d1, a report about d2."""

    def began(self, world):
        world.kernel.at(60.0, lambda: self._send(world))

    def _send(self, world):
        device = world.devices["d1"]
        lie = EventReport(device="d2", at=world.kernel.wall, type="Warning", reason="Lie", message="d2 is on fire")
        outbox = device.resident.outbox
        report = Report(incarnation=outbox.incarnation, session=outbox.session, lanes={"alerts": LaneItems(first=1, items=(lie,))})
        body = msgspec.msgpack.encode(report)
        request = Request(purpose="report", agent=device.agent, device="d1", key=device.key, body=body)
        device.link.send(request, lambda _outcome: None)


LIED_ABOUT = plan(fault("agent-kill", "1m", "0s", "d3"), lasts="2m")


@mutant("own-devices", LIED_ABOUT, guests=(_Hostile,))
def a_report_may_be_about_anybody(patch):
    take = gateway._Taken.take

    def trusting(self, items):
        mine = self.agent
        self.agent = replace(mine, spec=replace(mine.spec, devices=tuple(self.view.devices)))
        told = take(self, items)
        self.agent = mine
        return told

    patch.setattr(gateway._Taken, "take", trusting)


@mutant("own-devices", plan(acts=update()))
def a_desired_state_holds_the_documents_of_all_devices(patch):
    decide = desired.decide_desired

    def generous(agent, after, view, seal):
        found = decide(agent, after, view, seal)
        if not isinstance(found, desired.DesiredState):
            return found
        everyone = tuple(desired._document(view, row, found.position.n, seal) for row in view.devices.values())
        return replace(found, devices=everyone)

    patch.setattr(polling, "decide_desired", generous)


@mutant("acknowledged-kept", plan(fault("control-kill", "20s", "5s"), acts=update()))
def marks_are_kept_in_memory_only(patch):
    decide = gateway.decide_report

    def forgetful(report, agent, view, now, limits=None):
        decision = decide(report, agent, view, now, limits)
        if not isinstance(decision, gateway.ReportDecision):
            return decision
        for mark in decision.transaction.marks:
            view.apply_mark(mark)
        return replace(decision, transaction=replace(decision.transaction, marks=()))

    patch.setattr(control, "decide_report", forgetful)


DOUBLED = LinkQuality(latency_seconds=0.01, jitter_seconds=0.0, bandwidth=50_000_000.0, duplication=0.5)


@mutant("acknowledged-kept", plan(acts=update(), link=DOUBLED))
def what_comes_twice_takes_effect_twice(patch):
    decide = gateway.decide_report

    def repeating(report, agent, view, now, limits=None):
        kept, view.marks = view.marks, {}
        decision = decide(report, agent, view, now, limits)
        view.marks = kept
        return decision

    patch.setattr(control, "decide_report", repeating)


CORDONED = plan(
    acts=(
        Act(at=1.0, action="cordon", on="d3"),
        Act(at=2.0, delete=KEY),
        Act(at=20.0, apply=workload("1")),
        Act(at=40.0, action="uncordon", on="d3"),
    )
)


@mutant("plan-is-stable", CORDONED)
def placement_does_not_look_again_at_a_device_that_changed(patch):
    patch.setattr(FleetView, "mark_device", lambda _view, _device: None)


AWAY = plan(fault("partition", "5s", "90s", "d1"), fault("partition", "5s", "90s", "d2"), replicas=1, lost_after="20s", lasts="2m")


@mutant("none-too-many", AWAY)
def a_replacement_stays_when_the_lost_copy_is_back(patch):
    patch.setattr(placements, "surplus", lambda _holders, _wanted: [])


@mutant("converges", plan(acts=update(), behaviours=fails("crashes-at-start")))
def the_end_of_a_rollback_is_missing_in_the_table(patch):
    # A copy: what is taken out of the table itself would come back at its end, and other tests look at its order.
    missing = (RolloutState.ROLLING_BACK, Signal.BACK)
    patch.setattr(rollouts, "TABLE", {pair: follows for pair, follows in rollout.TABLE.items() if pair != missing})


@mutant("converges", plan(fault("lost", "2s", "0s", "d1"), acts=update(at=1.0)))
def a_device_out_of_reach_holds_up_its_wave(patch):
    stands = members.standing

    def waiting(spec, seen, to, *, online, overdue):
        found = stands(spec, seen, to, online=online, overdue=overdue)
        return Standing.UPDATING if found is Standing.UNREACHED else found

    patch.setattr(members, "standing", waiting)


@mutant("converges", FULL)
def a_download_that_failed_is_not_tried_again(patch):
    def stuck(live, want, step):
        again = updates._failed(live, want, step)
        return live if again.update.attempt > live.update.attempt else again

    patch.setitem(updates._ADVANCE, UpdateState.FAILED, stuck)


@mutant("converges", plan(acts=update(budget="100%")))
def a_changed_document_keeps_its_number(patch):
    whole = desired.refresh

    def silent(view):
        known = {device: view.numbers[device] for device in view.unrendered if device in view.contents and device in view.numbers}
        woken = whole(view)
        view.numbers.update(known)
        return woken

    patch.setattr(polling, "refresh", silent)
    patch.setattr(desired, "refresh", silent)
