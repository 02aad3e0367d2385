"""SimCLR as lightly's users write it (its PyTorch example), optionally with bfloat16 and channels_last given to it."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from headstart.backbones import build
from headstart.records.names import Stem


class SimCLR(nn.Module):
    """The example's module."""

    def __init__(self, backbone: str, size: int, stem: Stem = "imagenet") -> None:
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        self.backbone = build(backbone, stem=stem, size=size)
        width = int(self.backbone.num_features)  # type: ignore[arg-type]
        self.projection_head = SimCLRProjectionHead(width, width, 128)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection_head(self.backbone(x).flatten(start_dim=1))


class Views(Dataset[Any]):
    """Files (it warns where a folder has no classes) through lightly's SimCLRTransform, which gets `options`."""

    def __init__(self, files: Sequence[Path], size: int, mean: Sequence[float], std: Sequence[float], **options: float):
        from lightly.transforms.simclr_transform import SimCLRTransform
        from PIL import Image

        self.files, self.open = files, Image.open
        normalize = {"mean": list(mean), "std": list(std)}
        self.transform = SimCLRTransform(input_size=size, normalize=normalize, **options)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.open(self.files[index]).convert("RGB"))  # type: ignore[return-value]


def loader(views: Views, batch_size: int, workers: int) -> DataLoader[Any]:
    """As the example has it."""
    return DataLoader(
        views,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


class Trainer:
    """Model, loss and optimiser of the example, and its step."""

    def __init__(
        self, device: str, fast: bool, backbone: str = "resnet34", size: int = 32, stem: Stem = "imagenet"
    ) -> None:
        from lightly.loss import NTXentLoss

        self.device, self.fast = device, fast
        self.model = SimCLR(backbone, size, stem).to(device)
        if fast:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.criterion = NTXentLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.06)

    def step(self, one: Tensor, two: Tensor) -> None:
        """One training step."""
        one, two = one.to(self.device), two.to(self.device)
        if self.fast:
            one, two = (x.contiguous(memory_format=torch.channels_last) for x in (one, two))
        context = torch.autocast(self.device.split(":")[0], torch.bfloat16) if self.fast else contextlib.nullcontext()
        with context:
            loss = self.criterion(self.model(one), self.model(two))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()
