"""dcgm-exporter's text as it really is, and a driver that takes its activity from there."""

from __future__ import annotations

import pytest
from tests.unit.agent.builders import MINUTE, SECOND, START_NS, Rig, a_node, process

from gpuwaste_agent.clock import SteppedClock
from gpuwaste_agent.dcgm import DcgmNvml, DcgmScraper, Profile, parse_exporter
from gpuwaste_agent.sampler import Sampler
from gpuwaste_agent.simulate.kubelet import SimulatedHoldings, SimulatedOwners
from gpuwaste_agent.simulate.nvml import SimulatedNvml
from gpuwaste_agent.wire import usage_pb2 as wire

HEAD = "# HELP DCGM_FI_PROF_SM_ACTIVE x\n# TYPE DCGM_FI_PROF_SM_ACTIVE gauge\n"


def line(family: str, value, **labels) -> str:
    inner = ",".join(f'{name}="{text}"' for name, text in labels.items())
    return f"DCGM_FI_PROF_{family}{{{inner}}} {value}\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (line("SM_ACTIVE", 0.25, gpu="0", UUID="GPU-a", Hostname="n"), {("GPU-a", -1): Profile(sm=0.25)}),
        (line("SM_ACTIVE", 0.25, UUID="GPU-a", hostname="n", exported_pod="p"), {("GPU-a", -1): Profile(sm=0.25)}),
        (line("SM_ACTIVE", 25.0, UUID="GPU-a"), {("GPU-a", -1): Profile(sm=0.25)}),
        (line("SM_ACTIVE_RATIO", 0.5, UUID="GPU-a"), {("GPU-a", -1): Profile(sm=0.5)}),
        (
            line("GR_ENGINE_ACTIVE", 0.5, UUID="GPU-a", GPU_I_PROFILE="1g.10gb", GPU_I_ID="7"),
            {("GPU-a", 7): Profile(duty=0.5)},
        ),
        (line("SM_ACTIVE", 1.2, UUID="GPU-a", GPU_I_ID="3"), {("GPU-a", 3): Profile(sm=1.0)}),
        (line("SM_ACTIVE", 9223372036854775794, UUID="GPU-a"), {}),
        (line("SM_ACTIVE", 2147483632, UUID="GPU-a"), {}),
        (line("SM_ACTIVE", "9.223372036854775794e+18", UUID="GPU-a"), {}),
        (line("SM_ACTIVE", "140737488355330", UUID="GPU-a"), {}),
        (line("SM_ACTIVE", "NaN", UUID="GPU-a"), {}),
        (line("SM_ACTIVE", 0.1, gpu="0"), {}),
        (line("OTHER", 0.1, UUID="GPU-a"), {}),
        (line("SM_ACTIVE", "1e-2 1712345678901", UUID="GPU-a"), {("GPU-a", -1): Profile(sm=0.01)}),
        (
            line("SM_ACTIVE", 0.3, UUID="GPU-a", pod="p", vgpu="0") + line("SM_ACTIVE", 0.3, UUID="GPU-a"),
            {("GPU-a", -1): Profile(sm=0.3)},
        ),
        (line("DRAM_ACTIVE", 0.0, UUID="GPU-a", x='a"b\\'), {("GPU-a", -1): Profile(dram=0.0)}),
    ],
    ids=[
        "ratio", "honorLabels off", "percentages", "new name", "MIG", "above one on MIG", "int64 blank",
        "int32 blank", "int64 blank as a float", "double blank", "NaN", "no UUID", "other family",
        "timestamp", "a copy for each pod", "measured zero",
    ],
)  # fmt: skip
def test_lines(text, wanted):
    assert parse_exporter(HEAD + text, set()) == wanted


def test_a_help_text_that_says_percent_is_believed_before_any_value_shows_it():
    head = "# HELP DCGM_FI_PROF_SM_ACTIVE SM activity (in %).\n# HELP DCGM_FI_PROF_DRAM_ACTIVE Ratio of cycles.\n"
    text = head + line("SM_ACTIVE", 1, UUID="GPU-a") + line("DRAM_ACTIVE", 1, UUID="GPU-a")
    assert parse_exporter(text, set()) == {("GPU-a", -1): Profile(sm=0.01, dram=1.0)}


@pytest.mark.parametrize("names", [("pod", "namespace"), ("exported_pod", "exported_namespace"), ("pod_name",)])
@pytest.mark.parametrize("host", ["Hostname", "hostname"])
def test_pod_labels_of_any_spelling_are_copies_of_the_device(names, host):
    labels = {**dict.fromkeys(names, "x"), host: "n", "UUID": "GPU-a", "GPU_I_ID": "", "dra_claim_name": "c"}
    text = line("SM_ACTIVE", 0.5, **labels) + line("SM_ACTIVE", 0.5, UUID="GPU-a", **{host: "n"})
    assert parse_exporter(text, set()) == {("GPU-a", -1): Profile(sm=0.5)}


def test_links_are_both_directions_in_bytes_a_second_and_never_percentages():
    seen: set[str] = set()
    text = "".join(
        line(family, value, UUID="GPU-a")
        for family, value in (("PCIE_TX_BYTES", 1000), ("PCIE_RX_BYTES", 500), ("NVLINK_TX_BYTES", 9), ("SM_ACTIVE", 1))
    )
    copies = line("PCIE_TX_BYTES", 1000, UUID="GPU-a", exported_pod="p")
    profile = parse_exporter("# HELP DCGM_FI_PROF_PCIE_TX_BYTES 100 % of them\n" + text + copies, seen)[("GPU-a", -1)]
    assert profile == Profile(sm=1.0, pcie_bytes_per_second=1500.0)
    assert seen == set()
    text += line("NVLINK_RX_BYTES", 9223372036854775794, UUID="GPU-a")
    assert parse_exporter(text, seen)[("GPU-a", -1)].nvlink_bytes_per_second is None


@pytest.mark.parametrize(
    ("values", "wanted"), [((0.4, 1.9), (0.4, 1.0)), ((0.4, 6.9), (0.4, 1.0)), ((40.0, 6.0), (0.4, 0.06))]
)
def test_an_odd_reading_of_an_instance_does_not_make_ratios_percentages(values, wanted):
    """Instances are known to read above 1: what is of a whole GPU, or of no possible instance, tells the scale."""
    seen: set[str] = set()
    text = "".join(line("SM_ACTIVE", value, UUID="GPU-a", GPU_I_ID=str(n)) for n, value in enumerate(values))
    assert [profile.sm for profile in parse_exporter(text, seen).values()] == list(wanted)
    assert parse_exporter(line("SM_ACTIVE", 0.5, UUID="GPU-b"), seen)[("GPU-b", -1)].sm in (0.5, 0.005)
    assert bool(seen) == (values[0] > 1)


def test_percentages_once_seen_are_remembered():
    seen: set[str] = set()
    parse_exporter(line("SM_ACTIVE", 40, UUID="GPU-a"), seen)
    assert parse_exporter(line("SM_ACTIVE", 1, UUID="GPU-a"), seen) == {("GPU-a", -1): Profile(sm=0.01)}
    assert seen == {"sm"}


def test_an_answer_grows_old_and_a_silent_exporter_is_named():
    now = [0]
    answers = [line("SM_ACTIVE", 0.5, UUID="GPU-a")]

    def fetch():
        if not answers:
            raise OSError("connection refused")
        return answers.pop()

    scraper = DcgmScraper(fetch, every_seconds=10, now_ns=lambda: now[0])
    scraper.ask()
    assert scraper.problem == ""
    now[0] = 30 * SECOND
    scraper.ask()
    assert scraper.problem == "dcgm-exporter does not answer: connection refused"
    assert scraper.profiles() == {("GPU-a", -1): Profile(sm=0.5)}
    now[0] += 1
    assert scraper.profiles() == {}


def dcgm_rig(node, text: str) -> Rig:
    rig = Rig(node)
    clock = SteppedClock(START_NS)
    scraper = DcgmScraper(lambda: text, every_seconds=100, now_ns=clock.monotonic_ns)
    scraper.ask()
    rig.clock = clock
    rig.sampler = Sampler(
        nvml=DcgmNvml(SimulatedNvml(node, clock, START_NS), scraper),
        holdings=SimulatedHoldings(node, clock, START_NS),
        owners=SimulatedOwners(node),
        clock=clock,
        window_ns=MINUTE,
        hold_limit_ns=3 * SECOND,
    )
    rig.sampler.tick()
    return rig


def test_a100_under_mig_is_measured_through_the_exporter():
    node = (
        a_node()
        .gpu("A100-80GB", mig=(("3g.40gb", 0), ("2g.20gb", 4)))
        .pod("a", process(1, 0.9, parent="MIG-0-0"), devices=["MIG-0-0"])
        .obj()
    )
    text = line("SM_ACTIVE", 0.25, UUID="GPU-0", GPU_I_ID="1") + line(
        "GR_ENGINE_ACTIVE", 0.5, UUID="GPU-0", GPU_I_ID="1"
    )
    rig = dcgm_rig(node, text).every(1, 60)
    (usage,) = rig.usages("a")
    assert (usage.figures.sm_ns, usage.figures.duty_ns) == (15 * SECOND, 30 * SECOND)
    assert usage.figures.sm_quality.origin == wire.dcgm_prof
    assert usage.figures.sm_quality.resolution_ms == 100_000
    assert not rig.devices("MIG-0-1")[0].figures.HasField("sm_ns")


def test_on_a_shared_gpu_the_exporters_sm_time_is_apportioned():
    node = (
        a_node()
        .gpu("A100-80GB", strategy="time-slicing", replicas=2)
        .pod("a", process(1, 0.6), devices=["GPU-0::0"])
        .pod("b", process(2, 0.2), devices=["GPU-0::1"])
        .obj()
    )
    text = line("SM_ACTIVE", 0.4, UUID="GPU-0") + line("GR_ENGINE_ACTIVE", 0.8, UUID="GPU-0")
    rig = dcgm_rig(node, text).every(1, 60)
    assert [u.figures.sm_ns / SECOND for u in rig.usages()] == [18, 6]
    assert rig.usages("a")[0].figures.sm_quality.origin == wire.apportioned


def test_the_exporters_links_are_bytes_of_the_time_between_readings():
    """At whatever distance they are, and from the second reading on."""
    node = a_node().gpu("A100-80GB").pod("a", process(1, 0.6)).obj()
    text = line("PCIE_TX_BYTES", 700, UUID="GPU-0") + line("PCIE_RX_BYTES", 300, UUID="GPU-0")
    rig = dcgm_rig(node, text + line("NVLINK_TX_BYTES", 0, UUID="GPU-0") + line("NVLINK_RX_BYTES", 0, UUID="GPU-0"))
    rig.at(0.25, 3, 4, 17.5, 40, 60)
    (device,) = rig.devices()
    assert (device.figures.pcie_bytes, device.figures.nvlink_bytes) == (60_000, 0)
    assert device.figures.HasField("nvlink_bytes")
    assert device.figures.pcie_quality.origin == wire.dcgm_prof
    (usage,) = rig.usages("a")
    assert (usage.figures.pcie_bytes, usage.figures.nvlink_bytes) == (60_000, 0)


def test_gpm_is_preferred_to_the_exporter():
    node = a_node().gpu("H100-80GB").pod("a", process(1, 0.5, 0.5)).obj()
    rig = dcgm_rig(node, line("SM_ACTIVE", 0.9, UUID="GPU-0")).every(1, 60)
    assert rig.devices()[0].figures.sm_ns == 15 * SECOND
    assert rig.devices()[0].figures.sm_quality.origin == wire.gpm
