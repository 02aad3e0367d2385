"""SimCLR in lightly's own loop with Headstart's head:  python lightly_loop.py PICTURES AUTOENCODER.safetensors"""

import sys

import torch
import torchvision
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.transforms.simclr_transform import SimCLRTransform

from headstart.heads import ProjectionHead

pictures, autoencoder = sys.argv[1:]
backbone = torchvision.models.resnet18()
backbone.fc = torch.nn.Identity()
head = ProjectionHead.from_autoencoder(autoencoder, output_dim=128, activation="sigmoid", frozen=True)
model, criterion = torch.nn.Sequential(backbone, head), NTXentLoss(temperature=0.5)
dataset = LightlyDataset(pictures, transform=SimCLRTransform(input_size=32))
loader = torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True, drop_last=True)
optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.06, momentum=0.9)
for epoch in range(2):
    for (first, second), _, _ in loader:
        optimizer.zero_grad()
        loss = criterion(model(first), model(second))
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: loss {loss.item():.3f}")
