"""The files that people copy to real machines are accepted by the programs."""

from pathlib import Path

from veagent.config import load as load_agent
from vecontroller.config import load as load_controller

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def test_the_example_configurations_load() -> None:
    assert load_controller(DEPLOY / "config" / "controller.toml").name == "c1"
    assert load_agent(DEPLOY / "config" / "agent.toml").host == "h1"
