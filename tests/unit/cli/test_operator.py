"""The operator's command before anything starts."""

import pytest

from .stored import run


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    path = tmp_path / "settings.yaml"
    path.write_text(f"store: {tmp_path / 'store'}\nlivenessPort: 0\nmetricsPort: 0\n")
    return path


def one_line(result, code):
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("gpuwaste: ")
    assert result.stderr.count("\n") == 1
    assert not result.stderr.rstrip().endswith(".")
    return result.stderr


def test_a_kubeconfig_of_the_environment_that_is_missing(settings):
    assert "there is no such file" in one_line(run("operator", "--config", settings), 3)


def test_a_kubeconfig_that_is_missing(settings, tmp_path):
    line = one_line(run("operator", "--config", settings, "--kubeconfig", tmp_path / "none"), 3)
    assert "there is no such kubeconfig" in line


def test_a_kubeconfig_without_a_context(settings, tmp_path):
    broken = tmp_path / "kubeconfig"
    broken.write_text("apiVersion: v1\nkind: Config\n")
    line = one_line(run("operator", "--config", settings, "--kubeconfig", broken), 3)
    assert ".;" not in line


def test_settings_that_are_missing_or_wrong(settings, tmp_path):
    assert "No such file" in one_line(run("operator", "--config", tmp_path / "none"), 1)
    settings.write_text("stor: x\nport: 1")
    result = run("operator", "--config", settings)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == f"gpuwaste: {settings}: 3 settings are wrong"
    assert len(lines) == 4
