"""The agent's own NVML telemetry on the simulated driver, on a clock that runs faster than the machine's.

Reads every GPU once in a while, adds up what it reads over the time between readings, and prints that as JSON.
Arguments: state file, readings, seconds between them.
"""

import json
import sys
import time
from collections import defaultdict
from pathlib import Path

from tests.sim.nvml.state import SECOND, SimState

from gpuwaste_agent.nvml import RealNvml


def main():
    sim = SimState(Path(sys.argv[1]))
    readings, pause = int(sys.argv[2]), float(sys.argv[3])
    driver = RealNvml(library=None, list_processes=True)
    gpus = driver.gpus()
    before = {}
    begun = {}
    duty, sm, memory = defaultdict(float), defaultdict(float), defaultdict(float)
    parents = defaultdict(lambda: [0.0, 0.0])
    energy = defaultdict(list)
    for number in range(readings):
        for gpu in gpus:
            now = sim.now_ns() / SECOND
            reading = driver.read(gpu.uuid)
            energy[gpu.uuid].append((now, reading.energy_mj))
            since = before.get(gpu.uuid)
            before[gpu.uuid] = now
            if since is None:
                begun[gpu.uuid] = now
                continue
            for parent in reading.parents:
                parents[parent.parent_id][0] += (parent.activity.duty or 0.0) * (now - since)
                parents[parent.parent_id][1] += (parent.activity.sm or 0.0) * (now - since)
                for process in parent.processes:
                    duty[process.pid] += (process.duty or 0.0) * (now - since)
                    memory[process.pid] += process.memory_bytes * (now - since)
        if number + 1 < readings:
            time.sleep(pause)
    refused = driver.refusals()
    driver.close()
    found = {"begun": begun, "ended": before, "parents": parents, "duty": duty, "sm": sm, "memory": memory}
    found["gpus"] = {gpu.uuid: [gpu.product, [p.parent_id for p in gpu.parents]] for gpu in gpus}
    found["energy"] = {uuid: [times[0], times[-1]] for uuid, times in energy.items()}
    found["refused"] = refused
    print(json.dumps(found))


if __name__ == "__main__":
    main()
