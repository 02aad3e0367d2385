"""`contrastive.compile` without a GPU: a compiler that changes no kernel stands in; tests/device has torch's on one."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from headstart.engine.device import Compute
from headstart.records.config import Config, ContrastiveConfig, hash_of
from headstart.training import step
from tests.device import stages

Compiler = Callable[[torch.fx.GraphModule, list[torch.Tensor]], Callable[..., Any]]
HOST = torch.device("cpu")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Compiler], list[nn.Module]]]:
    """Let every device compile, by the function it is given; the networks that were."""
    given: list[nn.Module] = []
    really = step.compiled

    def use(backend: Compiler) -> list[nn.Module]:
        def compiled(network: nn.Module, config: Config, compute: Compute) -> nn.Module:
            given.append(network)
            asked = replace(config, contrastive=replace(config.contrastive, compile=True))
            return really(network, asked, replace(compute, device=torch.device("cuda")))

        monkeypatch.setattr(step, "compiled", compiled)
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
        return given

    yield use
    torch.compiler.reset()


def losses_of(stage: stages.Stage) -> list[float]:
    """Of three steps."""
    return [stage.step(number).item() for number in range(3)]


def test_a_compiled_network_takes_the_same_steps(compiler: Callable[[Compiler], list[nn.Module]]) -> None:
    """And only the step's passes are compiled: its weights keep their names."""
    plain = stages.simclr(HOST)
    seen: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        seen.append(len(inputs))
        return graph.forward

    given = compiler(counting)
    compiled = stages.simclr(HOST)
    assert losses_of(compiled) == losses_of(plain)
    assert seen
    assert len(given) == 1
    names = [list(stages.stepper(stage).model.state_dict()) for stage in (plain, compiled)]
    assert names[0] == names[1]


def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(
    compiler: Callable[[Compiler], list[nn.Module]], capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, at the first step alone."""

    def failing(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        raise OSError("no compiler on this machine")

    plain = losses_of(stages.simclr(HOST))
    compiler(failing)
    assert losses_of(stages.simclr(HOST)) == plain
    said = capsys.readouterr().err
    assert said.count("the network is not compiled") == 1
    assert "no compiler on this machine" in said


def test_another_error_is_not_taken_for_the_compilers(compiler: Callable[[Compiler], list[nn.Module]]) -> None:
    """What a module raises is its own."""

    def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        def run(*given: torch.Tensor) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        return run

    compiler(broken)
    with pytest.raises(torch.OutOfMemoryError):
        losses_of(stages.simclr(HOST))


def test_only_a_gpu_compiles() -> None:
    """On a CPU the network is the one it was given."""
    network = nn.Linear(2, 2)
    config = Config(contrastive=ContrastiveConfig(compile=True))
    assert step.compiled(network, config, stages.compute(HOST)) is network
    on_a_gpu = step.compiled(network, config, stages.compute(torch.device("cuda")))
    assert on_a_gpu is not network
    assert step.compiled(network, Config(), stages.compute(torch.device("cuda"))) is network


def test_compiling_is_no_setting_of_the_results() -> None:
    """A run that has begun may be gone on with either way."""
    assert hash_of(Config(contrastive=ContrastiveConfig(compile=True)), "") == hash_of(Config(), "")
