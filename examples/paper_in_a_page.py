"""The paper on a page: pictures to probe, with Headstart's parts in the order of its sections.

    python paper_in_a_page.py DATA [EPOCHS] [NETWORK] [BATCH]     # defaults: digits 150 resnet34 256

Schliebitz, Tapken, Atzmueller: Improving Nonlinear Projection Heads using Pretrained Autoencoder Embeddings (2024).
Left out: resuming, several processes, reports. `headstart pretrain DATA --preset paper` has them.
"""

import copy
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from headstart import backbones
from headstart.augment import SimCLRAugment
from headstart.autoencoders import Autoencoder
from headstart.data import splits
from headstart.data.images import open_images
from headstart.evaluate import probes
from headstart.heads import ProjectionHead, start
from headstart.ntxent import nt_xent
from headstart.records.config import DataConfig

source, epochs, network, batch = (*sys.argv[1:], *("digits", "150", "resnet34", "256")[len(sys.argv) - 1 :])
EPOCHS, BATCH, HIDDEN, OUTPUT = int(epochs), int(batch), 256, 128
device = "cuda" if torch.cuda.is_available() else "cpu"
draws = torch.Generator().manual_seed(0)

# Table 1: the pictures, at their native size or squashed to 128 x 128, split 70/10/20.
data = DataConfig(sources=(source,))
images = open_images(data)
SIZE = images.training_size("auto")
split = splits.make(images, data)
parts = {"train": split.train, "val": split.val, "test": split.test}
pictures = {name: images.squashed(part, SIZE) for name, part in parts.items()}  # uint8 (n, 3, SIZE, SIZE)


def batches(n: int, size: int, drop_last: bool = False) -> Iterator[Tensor]:
    """Random positions in batches."""
    order = torch.randperm(n, generator=draws).split(size)
    return iter([part for part in order if len(part) == size or not drop_last])


# 3.1 The SimCLR framework: transformations T, feature extractor f, and NT-Xent (Eq. 2), which is `nt_xent`.
mean, std = (torch.from_numpy(part).float() for part in splits.pooled(images, split.train))
augment = SimCLRAugment(size=SIZE, flip=0.0 if source == "digits" else 0.5, mean=mean, std=std).to(device)
backbone = backbones.build(network, generator=draws).to(device)
WIDTH = int(backbone.num_features)  # type: ignore[arg-type]

# 3.2 Autoencoders: encoder and decoder (Eq. 3), each with one hidden layer as wide as f's features.
autoencoder = Autoencoder(3 * SIZE * SIZE, WIDTH, HIDDEN, generator=draws).to(device)

# 3.3 Pretraining the embedding: mean squared error (Eq. 4), Adam, the epoch of the lowest validation loss.
adam = torch.optim.Adam(autoencoder.parameters(), lr=1e-4)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, patience=10, factor=0.5)
lowest, best = float("inf"), autoencoder.state_dict()
for _ in range(min(EPOCHS, 100)):
    for rows in batches(len(pictures["train"]), 100):
        adam.zero_grad()
        autoencoder.loss(autoencoder.prepare(pictures["train"][rows].to(device))).backward()
        adam.step()
    with torch.no_grad():
        val_mse = float(autoencoder.loss(autoencoder.prepare(pictures["val"].to(device))))
    plateau.step(val_mse)
    if val_mse < lowest:
        lowest, best = val_mse, copy.deepcopy(autoencoder.state_dict())
autoencoder.load_state_dict(best)
print(f"autoencoder: validation MSE {lowest:.4f}")


# 3.4 Projectors: the default head g (`mlp`), and the same whose first layer is the embedding, frozen (`ae`).
def projector(init: str) -> ProjectionHead:
    """`mlp` or `ae`; all but the first layer starts equal in both."""
    same = torch.Generator().manual_seed(1)
    head = ProjectionHead(WIDTH, hidden_dim=HIDDEN, output_dim=OUTPUT, activation="sigmoid", generator=same)
    if init == "ae":
        start(head, init="autoencoder", autoencoder=autoencoder.cpu(), frozen=True)
    return head.to(device)


# 3.5 End-to-end training: SGD with momentum, the cosine schedule, temperature 0.5.
def simclr(f: nn.Module, g: nn.Module) -> None:
    """Train f and g in place."""
    moved = [p for p in (*f.parameters(), *g.parameters()) if p.requires_grad]
    sgd = torch.optim.SGD(moved, lr=0.3 * BATCH / 256, momentum=0.9, weight_decay=1e-5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=150, eta_min=0.3 * BATCH / 256 / 50)
    f.train()
    g.train()
    for epoch in range(EPOCHS):
        for rows in batches(len(split.train), BATCH, drop_last=True):
            frames, valid = images.batch(split.train[rows.numpy()])
            views = augment(frames.to(device), views=2, valid=valid.to(device), generator=draws)
            loss = nt_xent(g(f(views)), temperature=0.5)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        cosine.step()
        print(f"  epoch {epoch + 1}: NT-Xent {loss.item():.3f}")


# 3.6 Evaluation: g is discarded; logistic regression on h of the test split, split 70/10/20 again.
@torch.no_grad()
def accuracy(f: nn.Module) -> str:
    """Acc@1 with its 95 % interval."""
    f.eval()
    scaled = ((pictures["test"].float() / 255 - mean[:, None, None]) / std[:, None, None]).split(256)
    h = torch.cat([f(part.to(device)).float().cpu() for part in scaled]).numpy()
    names = [images.names[i] for i in split.test]
    labels = images.labels[split.test]
    found = probes.run({"test": h}, {"test": labels}, {"test": names}, images.classes, which=["paper"])["paper"]
    return f"{100 * found['accuracy']:.1f} % ({100 * found['ci95'][0]:.1f} to {100 * found['ci95'][1]:.1f})"


print(f"untrained: {accuracy(backbone)}")
for init in ("mlp", "ae"):
    trained = copy.deepcopy(backbone)
    simclr(trained, projector(init))
    print(f"{init}: {accuracy(trained)}")
