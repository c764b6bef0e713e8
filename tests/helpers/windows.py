"""Builders of usage messages: `Minute("gpu-a").device().usage("pod-a", duty=0.5, sm=0.2)`."""

from gpuwaste.ingest.decode import decode_batch
from gpuwaste.model.units import NS_PER_MINUTE, to_unix_ns
from gpuwaste_agent.wire import usage_pb2 as wire


class Journal:
    """Records of one agent with consecutive sequence numbers."""

    def __init__(self, node="node-a", *, journal_id=None, cluster="test", node_uid=""):
        self.batch = wire.Batch(
            journal_id=journal_id or f"journal-{node}", node=node, node_uid=node_uid, cluster=cluster, first_seq=1
        )

    def _record(self, at, window_ns):
        return self.batch.records.add(
            seq=len(self.batch.records) + 1, window_start_unix_ns=to_unix_ns(at), window_ns=window_ns
        )

    def device(
        self, at, gpu, *, parent=None, weight=(1, 1), replicas=1, unattributed=None, window_ns=NS_PER_MINUTE, **more
    ):
        body = self._record(at, window_ns).device
        body.gpu_uuid, body.parent_id = gpu, parent or gpu
        body.weight_num, body.weight_den = weight
        body.replicas = replicas
        body.sharing = wire.TIME_SLICING if replicas > 1 else wire.EXCLUSIVE
        body.allocatable_ns = more.get("allocatable_ns", window_ns)
        body.unhealthy_ns = more.get("unhealthy_ns", 0)
        if unattributed is not None:
            body.unattributed.sm_ns = round(unattributed * window_ns)
        return self

    def usage(
        self, at, gpu, pod, *, parent=None, slice_id=None, duty=None, sm=None, held=1.0, window_ns=NS_PER_MINUTE, **more
    ):
        body = self._record(at, window_ns).usage
        body.gpu_uuid, body.parent_id = gpu, parent or gpu
        body.slice_id = body.parent_id if slice_id is None else slice_id
        body.resource_name = more.get("resource_name", "nvidia.com/gpu")
        body.namespace, body.pod = more.get("namespace", "team-a"), pod
        body.container = more.get("container", "main")
        body.pod_uid = more.get("pod_uid", f"uid-{pod}")
        body.join = wire.EXACT
        body.held_ns = round(held * window_ns)
        body.held_since_unix_ns = to_unix_ns(more.get("held_since", at))
        if "first_activity" in more:
            body.first_activity_unix_ns = to_unix_ns(more["first_activity"])
        for name, value, origin in (("duty", duty, wire.process), ("sm", sm, wire.gpm)):
            if value is not None:
                setattr(body.figures, f"{name}_ns", round(value * window_ns))
                quality = getattr(body.figures, f"{name}_quality")
                quality.origin, quality.coverage_ppm, quality.resolution_ms = origin, 1_000_000, 1000
        return self

    def table(self):
        self.batch.next_seq = len(self.batch.records) + 1
        return decode_batch(self.batch.SerializeToString(), where="test").windows
