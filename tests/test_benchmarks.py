"""What the benchmarks measure is the device that they were given, whatever else the machine has."""

from pathlib import Path

import pytest
import torch

from benchmarks import common, gpu


@pytest.fixture(autouse=True)
def _a_gpu_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"GPU {torch.device(device or 0).index}")


def test_the_line_beside_the_figures_names_the_device_they_are_of() -> None:
    assert common.machine("cuda:1").startswith("GPU 1, ")
    assert common.machine().startswith("GPU 0, ")
    assert "GPU" not in common.machine("cpu")


@pytest.mark.parametrize("used", [True, False])
def test_a_gpu_that_is_not_used_is_not_waited_for(used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, waits = [], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    common.steady(lambda: steps.append(1))
    assert (len(steps), len(waits)) == ((common.STEPS, 2) if used else (1, 0))


def test_steps_are_taken_by_their_name_or_by_their_group(tmp_path: Path) -> None:
    steps = gpu.steps_of("cpu", True, tmp_path, "digits")
    assert [step.name for step in gpu.only(["step"], steps)] == ["step"]  # not "step, resnet18" too
    assert gpu.only(["smoke"], steps) == [step for step in steps if step.name.startswith("smoke: ")]
    assert gpu.only(None, steps) == steps
    with pytest.raises(SystemExit, match="no step 'stepp'"):
        gpu.only(["step", "stepp"], steps)
