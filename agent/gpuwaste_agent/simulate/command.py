"""`gpuwaste-agent simulate`: a made-up cluster's day into journals, and then served on loopback."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from gpuwaste_agent.journal import Journal
from gpuwaste_agent.server import Identity, WindowsServer
from gpuwaste_agent.simulate.build import build_cluster
from gpuwaste_agent.simulate.objects import kubernetes_objects
from gpuwaste_agent.simulate.run import journal_identity, run_node
from gpuwaste_agent.simulate.scenario_file import dump_scenario

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gpuwaste_agent.simulate.build import Cluster
    from gpuwaste_agent.simulate.scenario import ScenarioNode

__all__ = ["serve_journals", "simulate"]

_SECOND = 1_000_000_000
_PARENT_CHECK_SECONDS = 1.0


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def simulate(
    *,
    nodes: int,
    start_unix_s: int,
    until_unix_s: int,
    interval_s: float,
    window_s: int,
    seed: int,
    directory: Path,
    progress: Callable[[int, int], None],
) -> Cluster:
    """Make up a cluster and sample it into one journal a node; the same bytes for the same arguments.

    Writes `scenario.json`, `objects.jsonl` and `<node>/` into `directory`. `progress` is called with the nodes
    done and their total number. Nodes run side by side, one process a core.
    """
    length_s = until_unix_s - start_unix_s
    cluster = build_cluster(nodes=nodes, start_unix_s=start_unix_s, length_s=length_s, seed=seed)
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "scenario.json", dump_scenario(cluster.scenario))
    objects = [json.dumps(value, separators=(",", ":")) + "\n" for value in kubernetes_objects(cluster)]
    _write(directory / "objects.jsonl", "".join(objects))
    run = partial(
        _run_node,
        directory=directory,
        seed=seed,
        start_ns=start_unix_s * _SECOND,
        until_ns=until_unix_s * _SECOND,
        interval_ns=round(interval_s * _SECOND),
        window_ns=window_s * _SECOND,
    )
    workers = min(nodes, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        for done, _ in enumerate(pool.map(run, cluster.scenario.nodes), start=1):
            progress(done, nodes)
    return cluster


def _run_node(
    node: ScenarioNode,
    *,
    directory: Path,
    seed: int,
    start_ns: int,
    until_ns: int,
    interval_ns: int,
    window_ns: int,
) -> str:
    return run_node(
        node,
        directory / node.name,
        journal_id=journal_identity(seed, node.uid),
        start_ns=start_ns,
        until_ns=until_ns,
        interval_ns=interval_ns,
        window_ns=window_ns,
        progress=lambda _: None,
    )


def serve_journals(cluster: Cluster, directory: Path) -> int:
    """Serve every node's journal on a free loopback port until SIGTERM, SIGINT or the parent's end.

    Writes `endpoints.json` once everything listens.
    """
    stop = threading.Event()
    parent = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    servers, endpoints = [], []
    for node in cluster.scenario.nodes:
        journal = Journal(directory / node.name)
        identity = Identity(node=node.name, node_uid=node.uid)
        server = WindowsServer(("127.0.0.1", 0), journal=journal, identity=identity, tls=None)
        server.start(f"windows {node.name}")
        servers.append(server)
        url = f"http://127.0.0.1:{server.port}"
        endpoints.append({"node": node.name, "node_uid": node.uid, "url": url, "journal_id": journal.journal_id})
    _write(directory / "endpoints.json", json.dumps(endpoints, indent=1) + "\n")
    while not stop.wait(_PARENT_CHECK_SECONDS) and os.getppid() == parent:
        pass
    for server in servers:
        server.stop()
    return 0


def json_progress(done: int, total: int) -> None:
    """One JSON line a step on stderr, for a caller that draws a bar."""
    sys.stderr.write(json.dumps({"done": done, "total": total}) + "\n")
    sys.stderr.flush()


def no_progress(done: int, total: int) -> None:
    """Say nothing."""
    del done, total
