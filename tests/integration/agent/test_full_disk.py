"""The journal on a real volume that is full: a tmpfs of a few hundred kilobytes, in a mount namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from tests.cluster.pytest_support import skip_or_fail

# Appends windows for ever so long, with a file of somebody else that fills the volume meanwhile.
FILL = """
import json, sys
from pathlib import Path
from gpuwaste_agent.journal import Journal
from gpuwaste_agent.wire.usage_pb2 import Batch, Record
folder = Path(sys.argv[1])
journal = Journal(folder / "journal", segment_bytes=20_000)
refused = written = 0
for window in range(600):
    if window == 300:
        with (folder / "somebody").open("wb", buffering=0) as other:
            try:
                while True:
                    other.write(bytes(4096))
            except OSError:
                pass
    if window == 450:
        (folder / "somebody").unlink()
    records = [Record(window_start_unix_ns=window, window_ns=1) for _ in range(10)]
    for record in records:
        record.usage.pod = "x" * 60
    try:
        journal.append(records)
        journal.sync()
        written += len(records)
    except OSError as error:
        assert error.errno == 28, error
        refused += len(records)
first = journal.read(0, 1).first_seq
after, seqs, newest = 0, [], 0
while True:
    page = journal.read(after, 1000)
    found = Batch.FromString(page.payload).records
    seqs += [record.seq for record in found]
    newest = max([newest, *(record.window_start_unix_ns for record in found)])
    after = page.next_seq - 1
    if not page.more:
        break
dropped = journal.dropped_records
journal.close()
again = Journal(folder / "journal")
kept = again.next_seq - 1
print(json.dumps({"first": first, "seqs": [seqs[0], seqs[-1], len(seqs)], "dropped": dropped, "written": written,
                  "refused": refused, "newest": newest, "kept": kept, "repaired": again.repaired_bytes}))
"""


@pytest.mark.parametrize("size_kib", [200, 600])
def test_a_full_volume_drops_the_oldest_and_goes_on(tmp_path, size_kib):
    if os.geteuid() or shutil.which("unshare") is None:
        skip_or_fail("a volume of its own needs root and unshare")
    script = f"mount -t tmpfs -o size={size_kib}k none {tmp_path} && exec {sys.executable} -c '{FILL}' {tmp_path}"
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, last, count = found["seqs"]
    assert first == found["first"] == found["dropped"] + 1
    assert last == found["written"] == found["kept"]
    assert count == last - first + 1, "no number is missing or given twice"
    assert found["dropped"] > 0
    assert found["newest"] == 599, "it goes on once there is room"
    assert found["repaired"] == 0
