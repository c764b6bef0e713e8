"""The journal: sequence, pages, damage, retention, a full disk."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwaste_agent.journal import Journal, JournalError
from gpuwaste_agent.journal_frames import OVERHEAD
from gpuwaste_agent.wire.usage_pb2 import Batch, Record

MINUTE = 60_000_000_000


def window(number: int, count: int = 3) -> list[Record]:
    records = [Record(window_start_unix_ns=number * MINUTE, window_ns=MINUTE) for _ in range(count)]
    for index, record in enumerate(records):
        record.usage.pod = f"pod-{number}-{index}"
        record.usage.held_ns = index
    return records


def fill(journal: Journal, windows: int, count: int = 3) -> None:
    for number in range(windows):
        journal.append(window(number, count))
    journal.sync()


def read_all(journal: Journal, limit: int = 7, after: int = 0) -> list[Record]:
    records: list[Record] = []
    while True:
        page = journal.read(after, limit)
        records += Batch.FromString(page.payload).records
        after = page.next_seq - 1
        if not page.more:
            return records


@given(counts=st.lists(st.integers(1, 9), max_size=12), limit=st.integers(1, 20), after=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_pages_join_without_holes_or_repeats(tmp_path_factory, counts, limit, after):
    journal = Journal(tmp_path_factory.mktemp("journal"), segment_bytes=200)
    for number, count in enumerate(counts):
        journal.append(window(number, count))
    journal.sync()
    seqs = [record.seq for record in read_all(journal, limit, after)]
    assert seqs == list(range(after + 1, sum(counts) + 1))
    journal.close()


def test_nothing_is_served_before_it_is_durable(tmp_path):
    journal = Journal(tmp_path)
    journal.append(window(0))
    page = journal.read(0, 10)
    assert (page.count, page.more, page.next_seq) == (0, False, 1)
    journal.sync()
    assert journal.read(0, 10).count == 3
    journal.close()


def test_a_journal_opened_again_goes_on(tmp_path):
    first = Journal(tmp_path)
    fill(first, 4)
    first.close()
    again = Journal(tmp_path)
    assert again.journal_id == first.journal_id
    assert again.next_seq == 13
    assert again.newest_window_end_ns == 4 * MINUTE
    again.append(window(4))
    again.sync()
    assert [record.seq for record in read_all(again)] == list(range(1, 16))
    again.close()


@pytest.mark.parametrize("cut", [1, 5, 19, 27, 40])
def test_a_torn_tail_is_cut_away_and_its_numbers_are_given_again(tmp_path, cut):
    journal = Journal(tmp_path)
    fill(journal, 3)
    journal.close()
    (segment,) = tmp_path.glob("*.seg")
    os.truncate(segment, segment.stat().st_size - cut)
    again = Journal(tmp_path)
    assert again.repaired_bytes > 0
    assert again.next_seq == 7
    again.append(window(2))
    again.sync()
    assert [record.usage.pod for record in read_all(again)][-3:] == ["pod-2-0", "pod-2-1", "pod-2-2"]
    again.close()


def test_a_damaged_frame_is_left_out_and_the_next_page_begins_behind_it(tmp_path):
    journal = Journal(tmp_path, segment_bytes=1)
    fill(journal, 4)
    journal.close()
    segments = sorted(tmp_path.glob("*.seg"))
    journal = Journal(tmp_path, segment_bytes=1)
    data = bytearray(segments[1].read_bytes())
    data[-3] ^= 0xFF
    segments[1].write_bytes(data)
    page = journal.read(3, 100)
    assert page.first_seq == 7
    assert [r.seq for r in Batch.FromString(page.payload).records] == list(range(7, 13))
    before = journal.read(0, 100)
    assert (before.next_seq, before.more) == (4, True)
    journal.close()


def damage(segment, offset):
    data = bytearray(segment.read_bytes())
    data[offset] ^= 0xFF
    segment.write_bytes(data)


def seqs_by_pages(journal, limit=100):
    """Every record's number as a caller meets it, who goes on from page to page; at most twenty of them."""
    seqs, after = [], 0
    for _ in range(20):
        page = journal.read(after, limit)
        found = [record.seq for record in Batch.FromString(page.payload).records]
        assert found == list(range(page.first_seq, page.next_seq))
        seqs += found
        after = page.next_seq - 1
        if not page.more:
            return seqs
    raise AssertionError("the journal never ends")


@pytest.mark.parametrize("segment_bytes", [1, 1 << 20])
@pytest.mark.parametrize(("frame", "part"), [(0, 30), (1, 30), (2, 30), (3, 30), (0, 8), (2, 9), (1, 16)])
def test_a_damaged_frame_costs_only_itself_and_its_numbers_are_not_given_again(tmp_path, segment_bytes, frame, part):
    """Whatever lies damaged on the disk when the journal is opened was served: its numbers are spent."""
    journal = Journal(tmp_path, segment_bytes=segment_bytes)
    fill(journal, 4)
    segment, begin = [(s.path, f.offset - OVERHEAD) for s in journal._segments for f in s.frames][frame]
    journal.close()
    damage(segment, begin + part)
    again = Journal(tmp_path, segment_bytes=segment_bytes)
    assert again.next_seq == 13
    again.append(window(4))
    again.sync()
    lost = set(range(3 * frame + 1, 3 * frame + 4))
    wanted = [seq for seq in range(1, 16) if seq not in lost]
    assert seqs_by_pages(again) == seqs_by_pages(again, limit=2) == wanted
    again.close()
    last = Journal(tmp_path, segment_bytes=segment_bytes)
    assert (last.next_seq, seqs_by_pages(last)) == (16, wanted)
    last.close()


def test_a_journal_whose_newest_frame_is_damaged_ends_behind_it(tmp_path):
    journal = Journal(tmp_path)
    fill(journal, 2)
    journal.close()
    damage(next(tmp_path.glob("*.seg")), -3)
    again = Journal(tmp_path)
    page = again.read(3, 10)
    assert (page.first_seq, page.next_seq, page.more, page.count) == (7, 7, False, 0)
    again.close()


def test_a_segment_without_frames_keeps_the_count(tmp_path):
    """Killed between beginning a segment and its first frame, and all older ones were dropped for want of space."""
    journal = Journal(tmp_path, segment_bytes=1)
    fill(journal, 3)
    journal.close()
    for segment in tmp_path.glob("*.seg"):
        segment.unlink()
    (tmp_path / f"{10:020d}.seg").touch()
    again = Journal(tmp_path, segment_bytes=1)
    assert again.next_seq == 10
    again.append(window(3))
    again.sync()
    assert [record.seq for record in read_all(again)] == [10, 11, 12]
    again.close()


def test_old_and_too_large_segments_go_first(tmp_path):
    journal = Journal(tmp_path, retention_hours=1, segment_bytes=1)
    fill(journal, 100, count=1)
    assert journal.read(0, 1).first_seq == 40
    assert journal.dropped_records == 0
    journal.close()
    small = Journal(tmp_path / "small", limit_bytes=600, segment_bytes=1)
    fill(small, 30, count=1)
    assert small.size_bytes <= 700
    assert small.dropped_records == small.read(0, 1).first_seq - 1 > 0
    assert read_all(small)[-1].seq == 30
    small.close()


class FullDisk:
    """A file on a volume with room for so many more bytes."""

    def __init__(self, handle, room):
        self._handle, self.room = handle, room

    def write(self, data):
        if len(data) > self.room:
            self._handle.write(bytes(data[: self.room]))
            self.room = 0
            raise OSError(28, "No space left on device")
        self.room -= len(data)
        return self._handle.write(data)

    def truncate(self, size):
        """Somebody makes room meanwhile."""
        self.room = 1 << 20
        return self._handle.truncate(size)

    def __getattr__(self, name):
        return getattr(self._handle, name)


def test_a_full_disk_drops_the_oldest_and_leaves_no_half_window(tmp_path):
    journal = Journal(tmp_path, segment_bytes=400)
    fill(journal, 8)
    size = journal.read(0, 100).count
    journal._segment_bytes = 1 << 20
    journal._handle = FullDisk(journal._handle, 30)
    journal._handle.truncate = lambda n: (
        os.truncate(journal._segments[-1].path, n),
        setattr(journal._handle, "room", 9999),
    )
    journal.append(window(8))
    journal.sync()
    assert journal.dropped_records > 0
    records = read_all(journal)
    assert records[-1].seq == 27
    assert len(records) == size + 3 - journal.dropped_records
    journal.close()
    assert [r.seq for r in read_all(Journal(tmp_path))] == [r.seq for r in records]


def test_one_process_writes_and_others_read_without_repairing(tmp_path):
    writer = Journal(tmp_path)
    fill(writer, 2)
    writer._handle.write(b"half a frame")
    reader = Journal(tmp_path)
    assert not reader.writable
    assert len(read_all(reader)) == 6
    assert reader.repaired_bytes == 0
    with pytest.raises(JournalError, match="another process writes this journal"):
        reader.append(window(2))
    reader.close()
    writer.close()
    again = Journal(tmp_path)
    assert again.writable
    assert again.repaired_bytes == len(b"half a frame")
    again.close()


def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file/journal: the journal cannot be opened"):
        Journal(tmp_path / "file" / "journal")
    journal = Journal(tmp_path / "j")
    journal.append(window(0))
    journal.close()
    (tmp_path / "j" / "journal.json").unlink()
    with pytest.raises(JournalError, match=r"without journal\.json"):
        Journal(tmp_path / "j")
