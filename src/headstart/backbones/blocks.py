"""A backbone's blocks, from the pictures to the features: what is frozen, and what learns more slowly."""

from torch import nn


def block_of(name: str) -> str:
    """The block that a parameter belongs to: its name up to the first part with a number (`layer3`, `features.7`,
    `encoder.layers.encoder_layer_2`), or its layer's where no part has one."""
    parts = name.split(".")
    numbered = next((i for i, part in enumerate(parts[:-1]) if any(c.isdigit() for c in part)), len(parts) - 2)
    return ".".join(parts[: numbered + 1])


def freeze(backbone: nn.Module, share: float) -> list[str]:
    """Keep the first blocks of a backbone as they are: that share of them, counted from the pictures.

    Blocks count in the order in which the network registers them, which is that of its forward pass. Returns their
    names.
    """
    named = list(backbone.named_parameters())
    blocks = list(dict.fromkeys(block_of(name) for name, _ in named))
    frozen = blocks[: round(share * len(blocks))]
    for name, parameter in named:
        if block_of(name) in frozen:
            parameter.requires_grad_(False)
    return frozen
