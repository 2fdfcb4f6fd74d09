"""The harness can fail: every bug planted here breaks the check that is named beside it, and what it prints replays it."""

import msgspec
import pytest

from edgewise.engine import identity, install, journal, lanes, segments, trees
from edgewise.engine.install import InstallTransient
from edgewise.twin import disk as disks
from edgewise.twin._powercut_scenarios import finish
from edgewise.twin.powercuts import KILLED, SCENARIOS, Cut, replay, run_power_cuts


def scenario(name):
    """Return a scenario whose device is prepared before any bug is planted."""
    found = next(one for one in SCENARIOS if one.name == name)
    world, disk = found.base()
    return msgspec.structs.replace(found, base=lambda: (world.copy(), disk.copy()))


def never_synced(below):
    real = disks.RecordingAppender.sync

    def plant(monkeypatch):
        def sync(self):
            if not self._path.startswith(below):
                real(self)

        monkeypatch.setattr(disks.RecordingAppender, "sync", sync)

    return plant


def an_identity_in_two_steps(monkeypatch):
    real = identity.renew

    def renew(files, certificates):
        files.remove(identity.CERTIFICATE_PATH)
        files.sync_folder(identity.FOLDER)
        real(files, certificates)

    monkeypatch.setattr(identity, "renew", renew)


def an_identity_without_its_root(monkeypatch):
    def complete_join(files, certificates, root):
        files.make_folder(identity.FOLDER)
        identity.renew(files, certificates)
        files.replace(identity.ROOT_PATH, root)

    monkeypatch.setattr(identity, "complete_join", complete_join)


def an_outbox_that_says_yes_before_it_wrote(monkeypatch):
    def flush(self):
        self._write_pending()
        return True

    monkeypatch.setattr(lanes.Lane, "flush", flush)


def numbers_that_are_not_reserved(monkeypatch):
    def reserve(self):
        self._durable_ceiling = max(self._durable_ceiling, self._state.last + 6)
        return True

    monkeypatch.setattr(lanes.Lane, "reserve", reserve)


def a_journal_that_removes_the_old_before_the_new_is_there(monkeypatch):
    real = journal.Journal.compact

    def compact(self, records):
        if self._number:
            self._files.remove(segments.path_of(journal.FOLDER, self._number))
            self._files.sync_folder(journal.FOLDER)
        real(self, records)

    monkeypatch.setattr(journal.Journal, "compact", compact)


def a_segment_that_gets_its_name_before_it_is_synced(monkeypatch):
    def make(files, folder, use, number, first):
        new = f"{folder}/new"
        files.remove(new)
        appender = files.appender(new)
        appender.append(segments.header(use, number))
        writer = segments.SegmentWriter(appender, number)
        writer.append(*first)
        files.rename(new, segments.path_of(folder, number))
        writer.sync()
        return writer

    monkeypatch.setattr(segments, "make", make)


def effects_before_their_records(monkeypatch):
    """What was decided is carried out, and written down only with what comes next."""
    real = journal.Journal.append

    def append(self, records):
        pending, self._files.late = getattr(self._files, "late", ()), records
        if pending:
            real(self, pending)

    monkeypatch.setattr(journal.Journal, "append", append)


def a_tree_that_is_removed_where_it_stands(monkeypatch):
    def remove(files, keep_trees, folders=()):
        for folder in (trees.TREES, trees.STAGING, trees.MANIFESTS):
            for entry in files.list(folder):
                if entry.name not in keep_trees:
                    files.remove(f"{folder}/{entry.name}")

    monkeypatch.setattr(trees, "remove", remove)


def a_staged_file_that_is_believed(monkeypatch):
    """A second try takes over what is staged without hashing it."""
    real = install._Stager._fill

    def fill(self, file, path, appender, local):
        return None if appender.size == file.size else real(self, file, path, appender, local)

    monkeypatch.setattr(install._Stager, "_fill", fill)


def an_earlier_life_that_is_remembered(monkeypatch):
    """What was told before a device was decommissioned is believed after it joined again."""
    monkeypatch.setattr(identity, "begin_anew", lambda _files: None)


def a_disk_that_is_full_for_ever(monkeypatch):
    def check(*_):
        raise InstallTransient("DiskFull", "not enough room")

    monkeypatch.setattr(install, "_check_room", check)


MUTANTS = [
    (never_synced("journal/0"), "upgrade", "committed"),
    (never_synced("journal/0"), "upgrade", "damage"),
    (never_synced("journal/0"), "rollback", "refused"),
    (effects_before_their_records, "upgrade", "committed"),
    (a_journal_that_removes_the_old_before_the_new_is_there, "journal compaction", "committed"),
    (a_segment_that_gets_its_name_before_it_is_synced, "journal compaction", "damage"),
    (never_synced("staging/"), "first install", "whole"),
    (a_staged_file_that_is_believed, "first install", "whole"),
    (a_tree_that_is_removed_where_it_stands, "removal and return", "whole"),
    (an_identity_in_two_steps, "renewal", "identity"),
    (an_identity_without_its_root, "join and first install", "identity"),
    (an_outbox_that_says_yes_before_it_wrote, "outbox compaction", "promised"),
    (numbers_that_are_not_reserved, "outbox compaction", "numbers"),
    (an_earlier_life_that_is_remembered, "decommission and return", "outcome"),
    (a_disk_that_is_full_for_ever, "first install", "outcome"),
]


@pytest.mark.parametrize(("plant", "name", "check"), MUTANTS)
def test_a_planted_bug_breaks_its_check(plant, name, check, monkeypatch):
    story = scenario(name)
    plant(monkeypatch)
    failures = run_power_cuts([story], second=0, failures_max=60).failures
    assert check in {failure.check for failure in failures}
    found = next(failure for failure in failures if failure.check == check)
    again = replay(story, found.cuts)
    assert (again.check, again.message) == (found.check, found.message)
    monkeypatch.undo()
    assert replay(story, found.cuts) is None


def test_a_bug_that_only_a_second_cut_shows_is_found_and_replayed(monkeypatch):
    """What was read after a mere crash of the program is believed, and is not brought to the disk first."""

    def resume(files, path, scanned):
        appender = files.appender(path)
        if appender.size > scanned.good:
            appender.truncate(scanned.good)
        return segments.SegmentWriter(appender, scanned.number)

    story = scenario("upgrade")
    monkeypatch.setattr(segments, "resume", resume)
    world, disk = story.base()
    operations = []
    disk.watch = operations.append
    finish(world, disk, story.phases)
    kills = [number for number, what in enumerate(operations) if what.startswith("sync journal/0")]
    pairs = [(Cut(operation=kill, how=KILLED), Cut(operation=cut, how="dropped")) for kill in kills for cut in range(10)]
    found = next(failure for failure in (replay(story, pair) for pair in pairs) if failure is not None)
    assert (found.check, len(found.cuts)) == ("committed", 2)
    assert replay(story, found.cuts[:1]) is None
    monkeypatch.undo()
    assert replay(story, found.cuts) is None
