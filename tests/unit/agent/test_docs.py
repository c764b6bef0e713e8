"""What docs/agent.md promises is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from gpuwaste_agent.main import _parser
from gpuwaste_agent.simulate.scenario_file import parse_scenario

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "agent.md").read_text()


def test_the_example_scenario_is_read():
    (example,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    node = parse_scenario(example, "docs/agent.md").nodes[0]
    assert node.containers[0].processes[0].load[1].tensor == 0.2


def test_every_flag_of_the_agent_is_described():
    flags = {option for action in _parser()._actions for option in action.option_strings if option.startswith("--")}
    assert [
        flag for flag in sorted(flags - {"--help", "--version"}) if f"`{flag}" not in TEXT and flag not in TEXT
    ] == []


def test_every_flag_that_is_described_exists():
    parser = _parser()
    known = set()
    stack = [parser]
    while stack:
        for action in stack.pop()._actions:
            known |= set(action.option_strings)
            if isinstance(action.choices, dict):
                stack += action.choices.values()
    assert [flag for flag in re.findall(r"`(--[a-z-]+)", TEXT) if flag not in known] == []
