"""Stored inputs on disk, small but with everything that makes a replay hard."""

from datetime import timedelta

from click.testing import CliRunner
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal

from gpuwaste.cli.main import cli
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store


def store_inputs(folder, *, cluster="test", node="node-a", agents_know_it=True):
    """Four hours with a hole in between; a price learned late, a pod whose end was learned later."""
    inputs = InputStore(open_store(str(folder)), cluster)
    journal = Journal(node, cluster=cluster if agents_know_it else "")
    for hour in (0, 1, 3):
        for minute in (0, 1, 30, 59):
            at = HOUR + timedelta(hours=hour, minutes=minute)
            journal.device(at, f"{node}-gpu-1", replicas=2, unattributed=0.1).device(at, f"{node}-gpu-2")
            journal.usage(at, f"{node}-gpu-1", "web", slice_id=f"{node}-gpu-1::0", duty=0.5, sm=0.2)
            journal.usage(at, f"{node}-gpu-1", "train", slice_id=f"{node}-gpu-1::1", duty=0.9, namespace="team-b")
    inputs.append_windows(journal.table())
    gpus = [fact.gpu(f"{node}-gpu-1", on=node, replicas=2), fact.gpu(f"{node}-gpu-2", on=node)]
    for hour in range(5):
        late = [] if hour == 0 else [fact.price(on=node)]
        end = None if hour < 2 else HOUR + timedelta(hours=2)
        pods = [fact.pod("web", on=node), fact.pod("train", on=node, namespace="team-b", end=end)]
        inputs.write_facts(HOUR + timedelta(hours=hour), [fact.node(node, gpus=2), *gpus, *pods, *late])
    return folder


def run(*arguments):
    """The result of a command; its exit code is that of the program."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def files(folder):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
