"""Processes and their containers: what is asked, what is ambiguous, MPS."""

from __future__ import annotations

import pytest

from gpuwaste_agent.accumulate import ParentWindow
from gpuwaste_agent.holdings import ContainerKey, ProcessOwner
from gpuwaste_agent.process_table import ParentProcesses, ProcessTable
from gpuwaste_agent.telemetry import NO_ACTIVITY, Origin, ParentReading, ProcessSample


class Owners:
    def __init__(self, owners: dict[int, ProcessOwner]):
        self.owners, self.asked = owners, []

    def owner(self, pid):
        self.asked.append(pid)
        return self.owners.get(pid)

    def forget(self, pid):
        self.owners.pop(pid, None)


class Rig:
    def __init__(self, owners: Owners, *holders: ContainerKey):
        self.owners, self.holders = owners, holders
        self.hints = 0
        self.table = ProcessTable(owners, self._hint)
        self.seen, self.window = ParentProcesses(), ParentWindow()

    def _hint(self):
        self.hints += 1

    def read(self, *samples: ProcessSample, servers=()):
        reading = ParentReading(
            "p", NO_ACTIVITY, Origin.DEVICE, None, samples, mps=bool(servers), mps_servers=frozenset(servers)
        )
        return self.table.uses(self.seen, reading, self.holders, self.window)


def sample(pid: int, duty: float | None = 0.5) -> ProcessSample:
    return ProcessSample(pid, duty, 0.0, 0.0, 100)


WEB = ContainerKey("ns", "web", "uid-web", "main")
SIDE = ContainerKey("ns", "web", "uid-web", "side")
DB = ContainerKey("ns", "db", "uid-db", "main")


def test_a_living_process_is_resolved_once():
    rig = Rig(Owners({1: ProcessOwner("uid-web", "id1")}), WEB)
    for _ in range(5):
        uses = rig.read(sample(1), sample(2))
    assert rig.owners.asked.count(1) == 1
    assert uses.by_owner[WEB].duty == 0.5
    assert uses.by_owner[None].memory_bytes == 100
    assert rig.table.container_ids == {WEB: "id1"}


def test_a_new_holder_makes_every_process_be_looked_at_again():
    rig = Rig(Owners({1: ProcessOwner("uid-web", "id1")}))
    assert rig.read(sample(1)).by_owner.keys() == {ContainerKey("", "", "uid-web", "", "id1")}
    assert rig.hints == 1
    rig.holders = (WEB,)
    assert rig.read(sample(1)).by_owner.keys() == {WEB}


def test_a_process_that_ended_is_missed_and_forgotten():
    rig = Rig(Owners({1: ProcessOwner("uid-web", "id1")}), WEB)
    rig.read(sample(1))
    rig.read()
    assert rig.window.missed == {WEB: 1}
    assert rig.owners.owners == {}


@pytest.mark.parametrize(
    ("owner", "found"),
    [
        (ProcessOwner("uid-web", "id1", "side"), SIDE),
        (ProcessOwner("uid-web", "known"), WEB),
        (ProcessOwner("uid-web", "new"), None),
    ],
    ids=["by name", "by an id seen before", "not to be told"],
)
def test_two_containers_of_one_pod_on_one_parent(owner, found):
    rig = Rig(Owners({1: owner}), WEB, SIDE)
    rig.table.container_ids[WEB] = "known"
    assert rig.read(sample(1)).by_owner.keys() == {found}
    assert rig.window.uncertain == (set() if found else {WEB, SIDE})


def test_an_init_containers_work_is_its_pods_and_its_id_is_not_taken_for_the_holders():
    """The kubelet lists a pod's containers and sidecars; what an init container runs is on the same devices."""
    rig = Rig(
        Owners({1: ProcessOwner("uid-web", "id-init", "init"), 2: ProcessOwner("uid-web", "id-main", "main")}), WEB
    )
    assert rig.read(sample(1)).by_owner.keys() == {WEB}
    assert rig.table.container_ids == {}
    rig.read(sample(2))
    assert rig.table.container_ids == {WEB: "id-main"}


def test_processes_of_an_instance_that_is_gone_are_forgotten_since_their_numbers_come_again():
    rig = Rig(Owners({1: ProcessOwner("uid-web", "id1")}), WEB)
    rig.read(sample(1))
    rig.table.ended(rig.seen, rig.window)
    assert (rig.owners.owners, rig.seen.owners, rig.window.missed) == ({}, {}, {WEB: 1})


def test_a_holder_without_a_uid_claims_no_process():
    nameless = ContainerKey("ns", "web", "", "main")
    rig = Rig(Owners({1: ProcessOwner("", "id1"), 2: ProcessOwner("uid-x", "id2")}), nameless)
    assert rig.read(sample(1), sample(2)).by_owner.keys() == {None, ContainerKey("", "", "uid-x", "", "id2")}


def test_an_mps_server_is_no_user_and_its_clients_are_told_apart_where_the_driver_does():
    owners = {1: ProcessOwner("uid-web", "a"), 2: ProcessOwner("uid-db", "b")}
    rig = Rig(Owners(owners), WEB, DB)
    uses = rig.read(sample(1, 0.6), sample(2, 0.3), sample(9, 0.0), servers=[9])
    assert (uses.mps, uses.readable) == (True, True)
    assert {key: use.duty for key, use in uses.by_owner.items()} == {WEB: 0.6, DB: 0.3}


def test_an_mps_server_that_works_for_silent_clients_leaves_them_unmeasured():
    owners = {1: ProcessOwner("uid-web", "a"), 2: ProcessOwner("uid-db", "b")}
    rig = Rig(Owners(owners), WEB, DB)
    uses = rig.read(sample(1, 0.0), sample(2, 0.0), sample(9, 0.8), servers=[9])
    assert (uses.mps, uses.readable) == (True, False)


def test_without_a_list_nothing_is_said():
    rig = Rig(Owners({}), WEB)
    reading = ParentReading("p", NO_ACTIVITY, Origin.DEVICE, None, None)
    assert rig.table.uses(rig.seen, reading, rig.holders, rig.window) is None
