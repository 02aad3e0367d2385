"""The attention head: the paper's head at step 0, whatever its first layer starts from, and more of it afterwards."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from headstart import heads, ntxent
from headstart.autoencoders import Autoencoder
from headstart.autoencoders import save as save_autoencoder
from headstart.heads import AttentionHead, ProjectionHead
from headstart.records.config import HeadConfig, from_dict
from headstart.records.errors import InputError
from headstart.records.names import HEAD_INITS

IN, HIDDEN, OUT = 48, 24, 10


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(generator: torch.Generator | None = None, **options: object) -> Any:
    settings: dict[str, object] = {"kind": "attention", "hidden_dim": HIDDEN, "output_dim": OUT, "activation": "tanh"}
    head = heads.of_kind(IN, HeadConfig(**{**settings, **options}), generator or seeded())  # type: ignore[arg-type]
    assert isinstance(head, AttentionHead)
    return head


def moved(head: Any) -> Any:
    """As after some training: no layer is zero any more."""
    g = seeded(5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
    return head


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("tokens", [1, 6, 48])
def test_at_step_0_it_is_the_papers_head_with_the_same_two_layers(blocks: int, tokens: int) -> None:
    head = made(blocks=blocks, tokens=tokens)
    plain = ProjectionHead(IN, HIDDEN, OUT, "tanh")
    plain.load_state_dict({name: value for name, value in head.state_dict().items() if "blocks" not in name})
    h = torch.randn(7, IN, generator=seeded(1))
    torch.testing.assert_close(head(h), plain(h))
    assert not torch.allclose(moved(head)(h), plain(h), atol=0.1)


def test_its_attention_is_torchs() -> None:
    """A block whose weights are given to nn.TransformerEncoderLayer computes the same."""
    block = moved(made(activation="relu")).blocks[0]
    theirs = nn.TransformerEncoderLayer(
        HIDDEN, nhead=block.heads, dim_feedforward=2 * HIDDEN, dropout=0, norm_first=True, batch_first=True
    )
    names = {
        "self_attn.in_proj_": "qkv.",
        "self_attn.out_proj.": "gathered.",
        "linear1.": "hidden.",
        "linear2.": "last.",
        "norm1.": "norms.0.",
        "norm2.": "norms.1.",
    }
    state = block.state_dict()
    theirs.load_state_dict({a + kind: state[b + kind] for a, b in names.items() for kind in ("weight", "bias")})
    x = torch.randn(5, 6, HIDDEN, generator=seeded(1))
    torch.testing.assert_close(block(x), theirs(x))


def test_it_is_drawn_from_its_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = made(), made(), made(seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.blocks[0].qkv.weight, other.blocks[0].qkv.weight)


@pytest.mark.parametrize("init", list(HEAD_INITS))
@pytest.mark.parametrize("frozen", [True, False])
def test_every_init_starts_its_first_layer_and_nothing_else(init: str, frozen: bool) -> None:
    features = torch.randn(100, IN, generator=seeded(2))
    source = Autoencoder(20, IN, HIDDEN, generator=seeded(3))
    head, drawn = made(), made()
    heads.start(head, init=init, frozen=frozen, autoencoder=source, features=features, generator=seeded(4))
    options = {"autoencoder": source, "features": features, "frozen": frozen}
    plain = ProjectionHead(IN, HIDDEN, OUT)
    plain.first.load_state_dict(drawn.first.state_dict())
    heads.start(plain, init=init, generator=seeded(4), **options)  # type: ignore[arg-type]
    assert torch.equal(head.first.weight, plain.first.weight)
    if init == "autoencoder":
        assert torch.equal(head.first.weight, source.embedding.weight)
        assert torch.equal(head.first.bias, source.embedding.bias)
    for name, value in head.state_dict().items():
        if not name.startswith("first"):
            assert torch.equal(value, drawn.state_dict()[name]), name

    ntxent.nt_xent(moved(head)(torch.randn(8, IN, generator=seeded(1)))).backward()
    for name, parameter in head.named_parameters():
        moves = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert moves is not (frozen and name.startswith("first")), name


def test_the_whole_head_may_start_from_the_autoencoder() -> None:
    source = Autoencoder(20, IN, HIDDEN, generator=seeded(3))
    head = made()
    heads.start(head, init="autoencoder", autoencoder=source, pretrained="all")
    plain: Any = ProjectionHead.from_autoencoder(source, output_dim=OUT, pretrained="all")
    assert torch.equal(head.output.weight, plain.output.weight)


def test_bfloat16_under_autocast_is_near_float32() -> None:
    head, h = moved(made()), torch.randn(7, IN, generator=seeded(1))
    with torch.autocast("cpu", torch.bfloat16):
        rough = head(h.bfloat16())
    torch.testing.assert_close(rough.float(), head(h), atol=0.15, rtol=0.1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tokens": 7}, r"cannot cut 48 features into 7 equal parts \(head.tokens\)"),
        ({"depth": 3}, "head.depth and head.batch-norm are for head.kind mlp"),
        ({"batch_norm": True}, "head.depth and head.batch-norm are for head.kind mlp"),
        ({"blocks": 3}, "head.blocks is 3; it must be 1 or 2"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        heads.check_kind(IN, HeadConfig(kind="attention", **settings))  # type: ignore[arg-type]


def digits(tmp_path: Path, **sections: object) -> dict[str, Tensor]:
    from headstart.training.run import run

    written = {
        "data": {"sources": ["digits"], "limit": 120},
        "backbone": {"name": "resnet18"},
        "head": {"kind": "attention", "hidden_dim": 16, "output_dim": 8},
        "contrastive": {"epochs": 1, "batch_size": 16, "chunk": 8},
        "stages": "contrastive",
        "augment": {"flip": 0.0},
        "probe": {"names": ["knn"]},
        "threads": 1,
        "precision": "float32",
    }
    config = from_dict({**written, **sections})
    return load_file(run(config, tmp_path / "run", quiet=True, overwrite=True) / "head.safetensors")


def test_a_run_keeps_its_frozen_layer_bit_for_bit_in_chunks_too(tmp_path: Path) -> None:
    source = Autoencoder(20, 512, 16, generator=seeded(3))
    save_autoencoder(source, tmp_path / "own.safetensors")
    state = digits(tmp_path, autoencoder={"weights": str(tmp_path / "own.safetensors")})
    assert {name.partition(".")[0] for name in state} == {"first", "blocks", "output"}
    assert torch.equal(state["first.weight"], source.embedding.weight)
    assert torch.equal(state["first.bias"], source.embedding.bias)
    assert bool(state["blocks.0.last.weight"].abs().sum() > 0)  # it has left its zeros

    head = heads.of_kind(512, HeadConfig(kind="attention", hidden_dim=16, output_dim=8))
    head.load_state_dict(state)
