"""Activity from the node's own dcgm-exporter, for products that NVML cannot profile (A100 under MIG, Ampere, …).

Its text as it really is: one series a device and pod (profiling figures are copies of the device's), the host label
in two spellings, MIG instances by `GPU_I_ID`, blank sentinels, ratios from 0 to 1 in some builds and percentages in
others. A family whose help says so, or with a value above 1.5, is taken for percentages from then on; of a MIG
instance, whose ratios are known to read above 1, with one above 8. Links come as bytes a second, in each direction a
family.
"""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, NamedTuple

from gpuwaste_agent.telemetry import Activity, Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gpuwaste_agent.telemetry import DriverFacts, GpuHealth, GpuInfo, GpuReading, Nvml, ParentReading

__all__ = ["DcgmNvml", "DcgmScraper", "Profile", "parse_exporter"]

# Families by what they tell; the second spelling is that of newer DCGM headers.
_FAMILIES = {
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "duty",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE_RATIO": "duty",
    "DCGM_FI_PROF_SM_ACTIVE": "sm",
    "DCGM_FI_PROF_SM_ACTIVE_RATIO": "sm",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "tensor",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE_RATIO": "tensor",
    "DCGM_FI_PROF_DRAM_ACTIVE": "dram",
    "DCGM_FI_PROF_DRAM_ACTIVE_RATIO": "dram",
}
_LINKS = {
    "DCGM_FI_PROF_PCIE_TX_BYTES": "pcie_tx",
    "DCGM_FI_PROF_PCIE_RX_BYTES": "pcie_rx",
    "DCGM_FI_PROF_NVLINK_TX_BYTES": "nvlink_tx",
    "DCGM_FI_PROF_NVLINK_RX_BYTES": "nvlink_rx",
}
_LINE = re.compile(r"^(DCGM_FI_PROF_\w+)\{(.*)\}\s+(\S+)(?:\s+\d+)?\s*$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_HELP = re.compile(r"^# HELP (DCGM_FI_PROF_\w+) (.*)$")
_SAYS_PERCENT = re.compile(r"%|\bpercent", re.IGNORECASE)
# DCGM's blanks: values that stand for "no reading" (int32, double and int64 blanks, and their reasons).
_BLANKS = ((0x7FFFFFF0, 0x7FFFFFFF), (1 << 47, (1 << 47) + 15), (0x7FFFFFFFFFFFFFF0, float("inf")))
_RATIO_LIMIT = 1.5
_INSTANCE_RATIO_LIMIT = 8.0
_PERCENT = 100.0
_SECOND = 1_000_000_000
_TEXT_BYTES = 32 << 20


class Profile(NamedTuple):
    """Activity of one device or instance, 0 to 1, and bytes over its links both ways; None is absent or blank."""

    duty: float | None = None
    sm: float | None = None
    tensor: float | None = None
    dram: float | None = None
    pcie_bytes_per_second: float | None = None
    nvlink_bytes_per_second: float | None = None


def _blank(value: float) -> bool:
    return value != value or value < 0 or any(low <= value <= high for low, high in _BLANKS)  # noqa: PLR0124 - NaN


def parse_exporter(text: str, percentages: set[str]) -> dict[tuple[str, int], Profile]:
    """Read an exporter's text.

    Args:
        text: What `/metrics` answered.
        percentages: Figures known to come as percentages; added to where a value shows it.

    Returns:
        Profiles by GPU UUID and GPU instance id (-1 for a whole GPU).
    """
    raw: dict[tuple[str, int], dict[str, float]] = {}
    for line in text.splitlines():
        told = _HELP.match(line)
        if told and told[1] in _FAMILIES and _SAYS_PERCENT.search(told[2]):
            percentages.add(_FAMILIES[told[1]])
        found = _LINE.match(line)
        figure = (_FAMILIES.get(found[1]) or _LINKS.get(found[1])) if found else None
        if found is None or figure is None:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        labels = dict(_LABEL.findall(found[2]))
        uuid = labels.get("UUID") or labels.get("uuid")
        if not uuid or _blank(value):
            continue
        instance = labels.get("GPU_I_ID", "")
        key = (uuid, int(instance) if instance.isdecimal() else -1)
        raw.setdefault(key, {}).setdefault(figure, value)
        if found[1] in _FAMILIES and value > (_INSTANCE_RATIO_LIMIT if instance else _RATIO_LIMIT):
            percentages.add(figure)
    return {key: _profile(values, percentages) for key, values in raw.items()}


def _profile(values: Mapping[str, float], percentages: set[str]) -> Profile:
    scale = {figure: _PERCENT if figure in percentages else 1.0 for figure in values}
    ratios = {figure: min(1.0, values[figure] / scale[figure]) for figure in _FAMILIES.values() if figure in values}
    return Profile(
        **ratios,
        pcie_bytes_per_second=_both(values, "pcie"),
        nvlink_bytes_per_second=_both(values, "nvlink"),
    )


def _both(values: Mapping[str, float], link: str) -> float | None:
    """Both directions of a link; None where either is unknown."""
    sent, received = values.get(f"{link}_tx"), values.get(f"{link}_rx")
    return None if sent is None or received is None else sent + received


class DcgmScraper:
    """Asks the exporter in a thread of its own, so that a slow one holds up no reading."""

    def __init__(
        self, fetch: Callable[[], str], *, every_seconds: float, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Take how to ask, how often, and a monotonic clock."""
        self._fetch = fetch
        self._every_seconds = every_seconds
        self.now_ns = now_ns
        self._percentages: set[str] = set()
        self._answer: tuple[int, dict[tuple[str, int], Profile]] = (0, {})
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem = "not asked yet"

    @classmethod
    def of_url(cls, url: str, *, every_seconds: float) -> DcgmScraper:
        """A scraper of an exporter's `/metrics` address."""

        def fetch() -> str:
            # Never by a proxy: it is the node's own exporter.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=every_seconds) as answer:
                return str(answer.read(_TEXT_BYTES).decode("utf-8", "replace"))

        return cls(fetch, every_seconds=every_seconds)

    @property
    def resolution_ns(self) -> int:
        """Time between two questions."""
        return round(self._every_seconds * _SECOND)

    def ask(self) -> None:
        """Ask once."""
        try:
            profiles = parse_exporter(self._fetch(), self._percentages)
        except (OSError, ValueError) as error:
            self.problem = f"dcgm-exporter does not answer: {error}"
            return
        self.problem = "" if profiles else "dcgm-exporter answers without DCGM_FI_PROF figures: enable them in its list"
        self._answer = (self.now_ns(), profiles)

    def profiles(self) -> dict[tuple[str, int], Profile]:
        """Return the newest answer; nothing after three missed ones."""
        asked_ns, profiles = self._answer
        return profiles if self.now_ns() - asked_ns <= 3 * self.resolution_ns else {}

    def start(self) -> None:
        """Go on asking until `close`."""
        self.ask()
        self._thread = threading.Thread(target=self._run, name="dcgm-exporter", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._every_seconds):
            self.ask()

    def close(self) -> None:
        """Stop asking."""
        self._stop.set()


def _bytes(bytes_per_second: float | None, seconds: float | None) -> int | None:
    return None if bytes_per_second is None or seconds is None else round(bytes_per_second * seconds)


class DcgmNvml:
    """A driver whose activity figures are the exporter's wherever the driver has no GPM."""

    mode = "dcgm-exporter"

    def __init__(self, inner: Nvml, scraper: DcgmScraper) -> None:
        self._inner = inner
        self._scraper = scraper
        self._instances: dict[str, tuple[str, int]] = {}
        self._read_ns: dict[str, int] = {}

    @property
    def cpu_ns(self) -> int:
        """CPU time inside the driver's calls."""
        return self._inner.cpu_ns

    def driver(self) -> DriverFacts:
        """Return versions and topology."""
        return self._inner.driver()

    def gpus(self) -> Sequence[GpuInfo]:
        """List GPUs and their parents."""
        gpus = self._inner.gpus()
        self._instances = {parent.parent_id: (gpu.uuid, parent.gi_id) for gpu in gpus for parent in gpu.parents}
        return gpus

    def health(self) -> Mapping[str, GpuHealth]:
        """Return what each GPU is like beside its work."""
        return self._inner.health()

    def changed(self) -> bool:
        """Whether the GPUs should be listed again."""
        return self._inner.changed()

    def read(self, gpu_uuid: str) -> GpuReading:
        """Read a GPU, its activity from the exporter where that knows more."""
        reading = self._inner.read(gpu_uuid)
        profiles = self._scraper.profiles()
        now_ns = self._scraper.now_ns()
        before_ns, self._read_ns[gpu_uuid] = self._read_ns.get(gpu_uuid), now_ns
        seconds = None if before_ns is None else (now_ns - before_ns) / _SECOND
        return reading._replace(parents=[self._with_profile(one, profiles, seconds) for one in reading.parents])

    def _with_profile(
        self, parent: ParentReading, profiles: dict[tuple[str, int], Profile], seconds: float | None
    ) -> ParentReading:
        profile = profiles.get(self._instances.get(parent.parent_id, ("", -1)))
        if profile is None or parent.origin is Origin.GPM:
            return parent
        own = parent.activity
        activity = Activity(
            duty=own.duty if profile.duty is None else profile.duty,
            sm=profile.sm,
            tensor=profile.tensor,
            dram=profile.dram,
            enc=own.enc,
            dec=own.dec,
            pcie_bytes=_bytes(profile.pcie_bytes_per_second, seconds),
            nvlink_bytes=_bytes(profile.nvlink_bytes_per_second, seconds),
        )
        return parent._replace(activity=activity, origin=Origin.DCGM_PROF, resolution_ns=self._scraper.resolution_ns)

    def close(self, wait_seconds: float = -1) -> bool:
        """Stop asking the exporter and let the driver go."""
        self._scraper.close()
        return self._inner.close(wait_seconds)
