"""Metrics: sums, series that end with their container, names, and the table in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.unit.agent.builders import Rig, a_node, process

from gpuwaste_agent.journal import Journal
from gpuwaste_agent.metrics import METRICS, Metrics

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def metrics(tmp_path):
    journal = Journal(tmp_path)
    yield Metrics(journal)
    journal.close()


def scraped(metrics, accept="application/openmetrics-text; version=1.0.0"):
    content_type, body = metrics.render(accept)
    return content_type, {f.name: f for f in text_string_to_metric_families(body.decode())}


def test_windows_become_counters_in_base_units(metrics):
    node = a_node().gpu("H100-80GB").pod("a", process(1, 0.5, 0.5)).obj()
    for _ in range(2):
        metrics.add(Rig(node).every(1, 60).records)
    _, families = scraped(metrics)
    (sample,) = families["gpuwaste_container_sm_seconds"].samples
    assert sample.value == pytest.approx(30)
    assert sample.labels == {
        "gpu": "GPU-0", "parent": "GPU-0", "slice": "GPU-0", "namespace": "ns", "pod": "a", "container": "c",
    }  # fmt: skip
    assert families["gpuwaste_device_duty_seconds"].samples[0].value == pytest.approx(60)
    assert families["gpuwaste_container_held_seconds"].samples[0].value == pytest.approx(120)


def test_what_is_unmeasured_has_no_series_and_a_measured_zero_has(metrics):
    node = a_node().gpu("T4-16GB").pod("a").obj()
    metrics.add(Rig(node).every(1, 60).records)
    _, families = scraped(metrics)
    assert families["gpuwaste_container_sm_seconds"].samples == []
    assert families["gpuwaste_container_duty_seconds"].samples[0].value == 0


def test_containers_that_hold_nothing_are_one_series_a_device(metrics):
    """A device is what its containers, its guests and the unknown did."""
    node = a_node().gpu("H100-80GB").pod("holder").pod("x", process(1, 0.3, 0.5), devices=())
    metrics.add(Rig(node.pod("y", process(2, 0.2, 0.5), devices=()).obj()).every(1, 60).records)
    _, families = scraped(metrics)
    (guests,) = families["gpuwaste_guests_duty_seconds"].samples
    assert guests.labels == {"gpu": "GPU-0", "parent": "GPU-0", "profile": ""}
    assert guests.value == pytest.approx(30)
    parts = [families[f"gpuwaste_{part}_duty_seconds"].samples for part in ("container", "guests", "unattributed")]
    total = sum(sample.value for samples in parts for sample in samples)
    assert total == pytest.approx(families["gpuwaste_device_duty_seconds"].samples[0].value)


def test_series_of_a_container_end_with_it(metrics):
    node = a_node().gpu("T4-16GB").pod("a", until_s=60).pod("b", from_s=60).obj()
    records = Rig(node).every(1, 120).records
    for start in sorted({record.window_start_unix_ns for record in records}):
        metrics.add([record for record in records if record.window_start_unix_ns == start])
    _, families = scraped(metrics)
    assert [s.labels["pod"] for s in families["gpuwaste_container_held_seconds"].samples] == ["b"]


def test_the_agent_tells_about_itself(metrics):
    metrics.tick(0.25, 3_000_000_000)
    _, families = scraped(metrics)
    assert families["gpuwaste_agent_ticks"].samples[0].value == 1
    assert families["gpuwaste_agent_driver_cpu_seconds"].samples[0].value == 3
    assert families["gpuwaste_agent_info"].samples[0].value == 1


def test_both_formats_are_served(metrics):
    assert scraped(metrics)[0].startswith("application/openmetrics-text")
    assert metrics.render("text/plain")[0].startswith("text/plain")


def test_names_and_labels_keep_the_conventions():
    for spec in METRICS:
        assert re.fullmatch(r"gpuwaste_[a-z_]+", spec.name)
        assert spec.exposed.endswith("_total") == (spec.kind == "counter")
        assert not {"pod_uid", "pid", "container_id"} & set(spec.labels)
        assert spec.help.endswith(".")
    assert len({spec.name for spec in METRICS}) == len(METRICS)


def test_what_is_served_is_what_the_docs_list(metrics):
    node = (
        a_node()
        .gpu("H100-80GB", strategy="time-slicing", replicas=2)
        .gpu("H100-80GB", mig=(("3g.40gb", 0), ("1g.10gb", 4)))
        .pod("a", process(1, 0.5, 0.5), devices=["GPU-0::0"])
        .fault("xid", gpu="GPU-1", from_s=10, until_s=20, xid=31)
        .obj()
    )
    metrics.add(Rig(node).every(1, 60).records)
    metrics.tick(0.1, 1)
    _, families = scraped(metrics)
    assert {(f.name, f.type) for f in families.values()} == {(spec.name, spec.kind) for spec in METRICS}
    specs = {spec.name: spec for spec in METRICS}
    for family in families.values():
        assert family.documentation == specs[family.name].help
        assert all(set(sample.labels) == set(specs[family.name].labels) for sample in family.samples)
    (xid,) = families["gpuwaste_device_xids"].samples
    assert (xid.labels, xid.value) == ({"gpu": "GPU-1", "xid": "31"}, 1)
    table = (ROOT / "docs" / "agent.md").read_text()
    assert all(f"| `{spec.exposed}` | {spec.kind} |" in table for spec in METRICS)


def test_series_are_bounded_by_what_is_on_the_node_now(metrics):
    """A thousand pods that came and went leave no series behind."""
    for start in range(0, 1000, 50):
        node = a_node().gpu("T4-16GB")
        for number in range(50):
            node.pod(f"p{start + number}", from_s=number, until_s=number + 1)
        metrics.add(Rig(node.obj()).every(1, 60).records)
    _, families = scraped(metrics)
    held = families["gpuwaste_container_held_seconds"].samples
    assert {sample.labels["pod"] for sample in held} <= {f"p{number}" for number in range(950, 1000)}
    assert max(len(family.samples) for family in families.values()) <= 50


def test_series_of_mig_instances_end_with_them(metrics):
    """A layout that changes every hour leaves nothing behind."""
    for layout in range(3):
        node = a_node().gpu("H100-80GB", mig=(("3g.40gb", 0), ("1g.10gb", 4))).obj()
        records = Rig(node).every(1, 60).records
        for record in records:
            record.device.parent_id = f"{record.device.parent_id}-{layout}"
        metrics.add(records)
    _, families = scraped(metrics)
    devices = families["gpuwaste_device_duty_seconds"].samples
    assert {sample.labels["parent"] for sample in devices} == {"MIG-0-0-2", "MIG-0-1-2"}
    assert {len(family.samples) for family in families.values() if "device_" in family.name} <= {0, 2}


def test_whatever_version_is_asked_for_the_answer_is_kept_once(metrics):
    asked = [f"{kind}; version={n}.0.0" for kind in ("application/openmetrics-text", "text/plain") for n in range(50)]
    answers = {metrics.render(accept)[0] for accept in asked}
    assert answers == {
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "text/plain; version=0.0.4; charset=utf-8",
    }
    assert len(metrics._written) == 2
