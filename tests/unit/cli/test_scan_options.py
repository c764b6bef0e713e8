"""Wrong flags of `scan` and `doctor` are refused before anything is asked."""

import pytest
from click.testing import CliRunner

from gpuwaste.cli.main import cli

URL = ("--prometheus", "http://127.0.0.1:9")


def run(*arguments):
    result = CliRunner().invoke(cli, list(arguments), env={"KUBECONFIG": "/nowhere/config", "GPUWASTE_PROMETHEUS": ""})
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing option '--prometheus'"),
        (("--prometheus", "localhost:9090"), "--prometheus must be an http or https URL with a host"),
        (("--prometheus", "http://me:pw@host"), "must not hold a password"),
        ((*URL, "--match", "cluster=a"), "--match must be label matchers"),
        ((*URL, "--username", "me"), "must name --username and --password-file together"),
        ((*URL, "--certificate", "c.pem"), "must name --certificate and --key together"),
        ((*URL, "--username", "me", "--password-file", "p", "--bearer-token-file", "t"), "must not name both"),
        ((*URL, "--timeout", "0"), "--timeout"),
        ((*URL, "--hours", "0"), "--hours"),
        ((*URL, "--flavour", "influx"), "--flavour"),
    ],
)
def test_wrong_flags(arguments, words):
    code, output = run("scan", *arguments)
    assert code == 2, output
    assert words in " ".join(output.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (URL, 3, "KUBECONFIG=/nowhere/config: there is no such file"),
        ((*URL, "--kubeconfig", "/nowhere/else"), 3, "no such kubeconfig"),
        ((*URL, "--without-cluster", "--bearer-token-file", "/nowhere/token"), 1, "/nowhere/token: cannot be read"),
        ((*URL, "--without-cluster", "--prices", "/nowhere/prices"), 2, "does not exist"),
    ],
)
def test_files_that_are_not_there(arguments, code, words):
    found, output = run("scan", *arguments)
    assert found == code, output
    assert words in " ".join(output.split())


def test_doctor_takes_the_same_options():
    code, output = run("doctor", "--without-cluster", "--prometheus", "ftp://x")
    assert code == 2
    assert "--prometheus must be an http or https URL" in output
