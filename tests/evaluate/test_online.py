"""The classifier beside SimCLR: it goes on where it was, on whatever device the training runs."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from headstart.evaluate.online import OnlineProbe

LABELS = np.arange(8) % 2
PICTURES = torch.arange(4)


def representations(step: int) -> torch.Tensor:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(step))


def test_goes_on_to_the_bit() -> None:
    whole, first, second = (OnlineProbe(LABELS, 2) for _ in range(3))
    for step in range(6):
        whole.step(representations(step), PICTURES)
    for step in range(3):
        first.step(representations(step), PICTURES)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.state_dict()["weights"], first.state_dict()["weights"])
    for step in range(3, 6):
        second.step(representations(step), PICTURES)
    assert torch.equal(second.state_dict()["weights"], whole.state_dict()["weights"])


def test_follows_the_training_to_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # A checkpoint is read into the CPU's memory wherever it was written; `meta` stands for any other device. It has no
    # autocast.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    first, second = (OnlineProbe(LABELS, 2) for _ in range(2))
    first.step(representations(0), PICTURES)
    second.load_state_dict(first.state_dict())
    second.step(representations(1).to("meta"), PICTURES)
    assert second.state_dict()["weights"].device.type == "meta"
