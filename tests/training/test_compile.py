"""`contrastive.compile` without a GPU: a compiler that changes no kernel stands in; tests/device has torch's on one."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from headstart.engine.device import Compute
from headstart.records.config import Config, ContrastiveConfig, hash_of
from headstart.training import resolving, step
from headstart.training.step import SimCLR
from tests.device import stages
from tests.runs import small

HOST, GPU = torch.device("cpu"), torch.device("cuda")
Use = Callable[[Any], list[nn.Module]]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Let every device compile, with the backend that it is given; the networks that were."""
    given: list[nn.Module] = []
    really = step.compiled

    def compiled(network: nn.Module, config: Config, compute: Compute) -> nn.Module:
        given.append(network)
        asked = replace(config, contrastive=replace(config.contrastive, compile=True))
        return really(network, asked, replace(compute, device=GPU))

    def with_backend(backend: Any) -> list[nn.Module]:
        plain = torch.compile
        without = {"options": None}  # which are inductor's
        monkeypatch.setattr(
            torch, "compile", lambda network, **named: plain(network, backend=backend, **named | without)
        )
        monkeypatch.setattr(step, "compiled", compiled)
        return given

    yield with_backend
    torch.compiler.reset()


def losses_of(stage: stages.Stage) -> list[float]:
    """Of three steps."""
    return [stage.step(number).item() for number in range(3)]


class Counting:
    """A backend that changes nothing; the shapes it was asked to compile for."""

    def __init__(self) -> None:
        self.asked: list[list[Any]] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        """The graph as it is."""
        self.asked.append(inputs)
        return graph.forward


def test_a_compiled_network_takes_the_same_steps(use: Use) -> None:
    """And only the step's passes are compiled: its weights keep their names."""
    plain = stages.simclr(HOST)
    counting = Counting()
    given = use(counting)
    compiled = stages.simclr(HOST)
    assert losses_of(compiled) == losses_of(plain)
    assert counting.asked
    assert len(given) == 1
    names = [list(stages.stepper(stage).model.state_dict()) for stage in (plain, compiled)]
    assert names[0] == names[1]


def test_every_run_of_a_process_is_compiled_for_its_own_sizes(use: Use) -> None:
    """torch compiles the second for sizes of any kind, and of the ninth nothing, unless it forgets those before."""
    counting = Counting()
    use(counting)
    config = Config(contrastive=ContrastiveConfig(compile=True))
    for number in range(10):
        before = len(counting.asked)
        model = SimCLR(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), nn.Linear(4, 2))
        network = step.compiled(model, config, stages.compute(GPU))
        network(torch.randn(2 + number, 3, 2, 2))
        new = counting.asked[before:]
        assert new
        assert not [value for inputs in new for value in inputs if isinstance(value, torch.SymInt)]


def assertion(*given: Any, **named: Any) -> Any:
    """Fails without a word."""
    raise AssertionError


def missing(*given: Any, **named: Any) -> Any:
    """Fails as a machine without a compiler does."""
    raise OSError("no compiler on this machine")


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (missing, "no compiler on this machine"),
        (assertion, "AssertionError"),
        (
            aot_autograd(fw_compiler=lambda graph, inputs: graph.forward, bw_compiler=missing),
            "no compiler on this machine",
        ),
    ],
    ids=["forward", "without a word", "backward"],
)
def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(
    backend: Any, words: str, use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, at the first step alone."""
    plain = losses_of(stages.simclr(HOST))
    use(backend)
    assert losses_of(stages.simclr(HOST)) == plain
    said = capsys.readouterr().err
    assert said.count("the network is not compiled") == 1
    assert words in said


def test_a_later_error_is_not_taken_for_the_compilers(use: Use) -> None:
    """What a step raises once the first was taken is its own."""
    use(Counting())
    stage = stages.simclr(HOST)
    stage.step(0)

    def broken(views: torch.Tensor) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    stages.stepper(stage).network = broken  # type: ignore[assignment]
    with pytest.raises(torch.OutOfMemoryError):
        stage.step(1)


def test_only_a_gpu_compiles() -> None:
    """Elsewhere the network is the one it was given."""
    network = nn.Linear(2, 2)
    asked = Config(contrastive=ContrastiveConfig(compile=True))
    assert step.compiled(network, asked, stages.compute(HOST)) is network
    assert step.compiled(network, asked, stages.compute(GPU)) is not network
    assert step.compiled(network, Config(), stages.compute(GPU)) is network


@pytest.mark.parametrize(
    ("device", "chunk", "words"),
    [(HOST, None, "left out on this cpu"), (GPU, 8, "left out of chunks"), (GPU, 16, None), (GPU, None, None)],
)
def test_where_it_is_left_out_that_is_said(device: torch.device, chunk: int | None, words: str | None) -> None:
    """And nothing where it is not, or was not asked for."""
    asked = small(contrastive={"batch_size": 16, "chunk": chunk, "compile": True})
    notes = resolving._not_compiled(asked, stages.compute(device))
    assert [words in note for note in notes if words] == [True] * bool(words)
    assert bool(notes) == bool(words)
    plain = small(contrastive={"batch_size": 16, "chunk": chunk})
    assert not resolving._not_compiled(plain, stages.compute(device))


def test_it_is_no_setting_of_the_results() -> None:
    """A run that has begun may be gone on with either way."""
    assert hash_of(Config(contrastive=ContrastiveConfig(compile=True)), "") == hash_of(Config(), "")
