"""A plugin: first layers of low rank, the embedding layer's or a random one's nearest (Eckart and Young)."""

import torch

from headstart.heads.starts import Layer, Start
from headstart.records.names import HEAD_INITS, HeadInit

RANK = 16


def nearest(start: Start) -> Layer:
    """Of all layers of rank RANK the nearest to the one given; its biases as they are."""
    left, values, right = torch.linalg.svd(start.weight.double(), full_matrices=False)
    return left[:, :RANK] * values[:RANK] @ right[:RANK], start.bias


HEAD_INITS.register(
    HeadInit(
        name="low_rank", help="the embedding layer's leading directions", make="low_rank:nearest", from_embedding=True
    )
)
HEAD_INITS.register(
    HeadInit(name="low_rank_random", help="a random layer's leading directions", make="low_rank:nearest")
)
