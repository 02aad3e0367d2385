"""The projection head g, and where its first layer comes from (paper 3.4; docs/heads.md)."""

from headstart.heads.attention import AttentionHead
from headstart.heads.kinds import check_kind, of_kind, register
from headstart.heads.mlp import ProjectionHead
from headstart.heads.starts import Start, check_directions, check_pretrained, start
from headstart.heads.step_zero import head_statistics, singular_values

__all__ = [
    "AttentionHead",
    "ProjectionHead",
    "Start",
    "check_directions",
    "check_kind",
    "check_pretrained",
    "head_statistics",
    "of_kind",
    "register",
    "singular_values",
    "start",
]
