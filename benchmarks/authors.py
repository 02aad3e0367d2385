"""The authors' way of SimCLR, written plainly: PIL transforms in a DataLoader, two float32 passes, a broadcast loss."""

from pathlib import Path
from typing import Any

import torch
import torchvision.transforms as T
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from headstart.backbones import build
from headstart.data.decode import FORMATS
from headstart.records.names import Stem

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def transform(size: int) -> T.Compose:
    """SimCLR's augmentation of one PIL picture."""
    return T.Compose(
        [
            T.RandomResizedCrop(size),
            T.RandomHorizontalFlip(),
            T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            T.RandomGrayscale(0.2),
            T.RandomApply([T.GaussianBlur(int(0.1 * size) | 1, (0.1, 2.0))], 0.5),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )


class Pairs(Dataset[Any]):
    """Two views of each file; with `in_memory` the files are decoded once before."""

    def __init__(self, folder: Path, size: int, in_memory: bool = False) -> None:
        self.files = sorted(folder.rglob("*.jpg"))
        self.transform = transform(size)
        self.decoded = [self._open(i) for i in range(len(self.files))] if in_memory else None

    def _open(self, index: int) -> Image.Image:
        return Image.open(self.files[index], formats=FORMATS).convert("RGB")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture = self.decoded[index] if self.decoded else self._open(index)
        return self.transform(picture), self.transform(picture)


def loader(dataset: Dataset[Any], batch_size: int, workers: int) -> DataLoader[Any]:
    """As their settings have it."""
    return DataLoader(
        dataset, batch_size, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )


def network(
    name: str = "resnet34", size: int = 32, hidden_dim: int = 256, output_dim: int = 128, stem: Stem = "imagenet"
) -> nn.Module:
    """A backbone with the projection head in place of its classifier."""
    backbone = build(name, stem=stem, size=size)
    width = int(backbone.num_features)  # type: ignore[arg-type]
    return nn.Sequential(backbone, nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, output_dim))


def nt_xent(one: Tensor, two: Tensor, temperature: float = 0.5) -> Tensor:
    """Equation 2 by cosine similarity broadcast over every pair of rows."""
    z = torch.cat([one, two])
    similarity = nn.functional.cosine_similarity(z[:, None], z[None], dim=-1) / temperature
    similarity = similarity.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    return nn.functional.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(one)))


def plain_nt_xent(z: Tensor, temperature: float = 0.5) -> Tensor:
    """Equation 2 as one matrix of all products."""
    u = nn.functional.normalize(z, dim=1)
    logits = (u @ u.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    return nn.functional.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, one: Tensor, two: Tensor) -> None:
    """One training step: a pass for each view."""
    loss = nt_xent(model(one), model(two))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loss.item()
