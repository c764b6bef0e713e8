"""Entry point: which commands there are, and how errors become one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from gpuwaste import __version__
from gpuwaste.model.errors import GpuwasteError, UnreachableError
from gpuwaste.settings.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "CommandGroup", "CommandSource", "cli", "main"]

_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class CommandSource:
    """Where a command is written, so that listing it imports nothing.

    Attributes:
        name: as it is typed, and of its module below `gpuwaste.cli`, and of the command in that module.
        section: heading in the help.
        help: one line.
    """

    name: str
    section: str
    help: str


COMMANDS: tuple[CommandSource, ...] = (
    CommandSource("demo", "Look", "One simulated day of a dozen GPU nodes through every stage."),
    CommandSource("doctor", "Look", "Say what gpuwaste can see of a cluster, and how to see the rest."),
    CommandSource("scan", "Look", "Waste by team and workload from a kubeconfig and a Prometheus."),
    CommandSource("top", "Look", "Workloads whose waste is dearest, first."),
    CommandSource("report", "Look", "What was paid, used and wasted, as a table or one HTML page."),
    CommandSource("pack", "Plan", "Place the pods of a CSV file on nodes, with a proven bound."),
    CommandSource("drain", "Plan", "Which nodes to empty within a number of moves, in order."),
    CommandSource("plan", "Plan", "The plan of a cluster: actions, saving, bound and gap."),
    CommandSource("mig", "Plan", "Fewest GPUs whose MIG layouts meet a demand."),
    CommandSource("share", "Plan", "Groups of pods that can share a GPU within a promise."),
    CommandSource("slowdown", "Plan", "How likely two pods on one GPU slow each other down."),
    CommandSource("levers", "Plan", "What each way of saving would bring by itself."),
    CommandSource("compare", "Plan", "Two plans, or a plan and what came of it, side by side."),
    CommandSource("focus", "Bill", "Write and verify FOCUS split records."),
    CommandSource("reserved", "Bill", "Requests, quotas and purchases against what is held and used."),
    CommandSource("ledger", "Bill", "List, show and verify the hourly ledger; export its inputs."),
    CommandSource("replay", "Bill", "Compute the ledger again from stored inputs or from files."),
    CommandSource("team", "Bill", "Which team owns a workload's cost, and by which rule."),
    CommandSource("policy", "Act", "Check rightsizing policies and say what they would allow."),
    CommandSource("apply", "Act", "Carry out an approved action."),
    CommandSource("approve", "Act", "Approve an action of a plan."),
    CommandSource("reject", "Act", "Reject an action of a plan."),
    CommandSource("pause", "Act", "Stop all actions."),
    CommandSource("resume", "Act", "Allow actions again."),
    CommandSource("rollback", "Act", "Undo an action from what was stored before it."),
    CommandSource("operator", "Run", "Run the operator in this process."),
)


class _Refused(click.ClickException):
    """One line on stderr that starts with the program's name, and perhaps details after it; exit code 1."""

    def __init__(self, message: str, more: Sequence[str] = ()) -> None:
        super().__init__(" ".join(message.split()))
        self.more = more

    def show(self, file: Any = None) -> None:
        for line in (f"gpuwaste: {self.message}", *self.more):
            click.echo(line, file=file, err=file is None)


class _Unreachable(_Refused):
    exit_code = 3


class CommandGroup(click.Group):
    """Commands that are imported when they are run; those not installed are not listed."""

    def __init__(self, *args: Any, sources: Sequence[CommandSource] = COMMANDS, **more: Any) -> None:
        super().__init__(*args, **more)
        self.sources = {source.name: source for source in sources if find_spec(f"gpuwaste.cli.{source.name}")}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Names in the order of the help."""
        return list(self.sources)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command; the attribute named like the command is it."""
        source = self.sources.get(cmd_name)
        if source is None:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(f"gpuwaste.cli.{source.name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """One list a section."""
        width = max((len(name) for name in self.sources), default=0)
        for section in dict.fromkeys(source.section for source in self.sources.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(s.name.ljust(width), s.help) for s in self.sources.values() if s.section == section]
                )

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and turn what gpuwaste raises on purpose into one line and its exit code."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise _Refused(error.lines[0], error.lines[1:]) from error
        except GpuwasteError as error:
            raise (_Unreachable if isinstance(error, UnreachableError) else _Refused)(str(error)) from error
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(_INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE or error.strerror is None:
                raise
            raise _Refused(f"{error.filename}: {error.strerror}" if error.filename else error.strerror) from error


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 a check failed or input was refused, 2 wrong flags, 3 something was unreachable.",
)
@click.version_option(__version__, prog_name="gpuwaste", message="%(prog)s %(version)s")
def cli() -> None:
    """Measure, price, pack and bill the GPU time of a Kubernetes cluster."""


def main(args: Sequence[str] | None = None) -> None:
    """Run `gpuwaste` with `args` (default: those of the process) and exit."""
    program = "kubectl gpuwaste" if os.path.basename(sys.argv[0]).startswith("kubectl-") else "gpuwaste"  # noqa: PTH119
    cli.main(args=None if args is None else list(args), prog_name=program)
