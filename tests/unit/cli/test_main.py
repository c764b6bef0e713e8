"""The program: what it lists, what it imports, and how errors leave it."""

import errno
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from gpuwaste.cli.main import COMMANDS, CommandGroup, CommandSource, cli
from gpuwaste.model.errors import InputError, InvariantError, UnreachableError

HEAVY = ("pyarrow", "numpy", "duckdb", "ortools", "kopf", "kubernetes", "rich", "yaml", "jinja2", "pydantic")


def test_the_help_imports_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from gpuwaste.cli.main import cli;"
        "result = CliRunner().invoke(cli, ['--help']); assert result.exit_code == 0, result.output;"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


@pytest.mark.parametrize("name", CommandGroup().sources)
def test_every_listed_command_can_be_loaded_and_says_what_it_does(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"Usage: cli {name}" in result.output


def test_a_command_that_is_not_there_is_not_listed():
    group = CommandGroup(sources=(CommandSource("nothing", "Look", "Does not exist."), COMMANDS[0]))
    assert "nothing" not in group.sources


def test_names_are_unique():
    assert len({source.name for source in COMMANDS}) == len(COMMANDS)


def failing(error):
    group = CommandGroup(sources=())

    @group.command()
    def fail():
        raise error

    return CliRunner().invoke(group, ["fail"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("is wrong", where="a.csv, row 2", fix="mend it"), 1, "gpuwaste: a.csv, row 2: is wrong; mend it\n"),
        (InputError("two\nlines"), 1, "gpuwaste: two lines\n"),
        (InvariantError("1 ns is missing"), 1, "gpuwaste: 1 ns is missing\n"),
        (UnreachableError("no answer"), 3, "gpuwaste: no answer\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x.json"),
            1,
            "gpuwaste: x.json: No such file or",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "y"), 1, "gpuwaste: y: Permission denied\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(error, code, line):
    result = failing(error)
    assert result.exit_code == code
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_bug_is_not_hidden():
    result = failing(ZeroDivisionError())
    assert isinstance(result.exception, ZeroDivisionError)


def test_wrong_flags_are_exit_code_2():
    assert CliRunner().invoke(cli, ["--nonsense"]).exit_code == 2
    assert CliRunner().invoke(cli, ["nonsense"]).exit_code == 2


def test_a_reader_that_goes_away_is_no_error_to_read():
    code = "from gpuwaste.cli.main import main; main(['--help'])"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == ""
    child.wait(timeout=20)


def test_the_version():
    result = CliRunner().invoke(cli, ["--version"], prog_name="gpuwaste")
    assert result.output.startswith("gpuwaste 0.")


def test_the_options_of_a_group_are_clicks():
    assert isinstance(cli, click.Group)
