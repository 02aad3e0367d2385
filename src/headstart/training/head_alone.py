"""The whole projector pretrained as a projector: g trained alone before f moves (paper section 6).

Comes in: a backbone as it was given, and a head. Goes out: the same head, trained with the contrastive loss on features
of augmented views, the backbone frozen. A head that begins at random sends gradients into a backbone that already knows
something, and spoils it; this one has learned what it can from the features as they are. The features of a few sets of
views are computed once and serve all epochs, so that an epoch costs next to nothing.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from headstart.augment import SimCLRAugment
from headstart.data.images import Images
from headstart.engine import progress
from headstart.engine.checkpoint import State
from headstart.engine.device import Compute, sent
from headstart.engine.randomness import generator, order
from headstart.evaluate.views import pair_features
from headstart.records.config import Config
from headstart.training import optimizers
from headstart.training.feed import count_steps
from headstart.training.loop import Epoch, Step, Training
from headstart.training.step import SimCLR, loss_of

STAGE = "head"
SETS = 4
"""Pairs of views of every picture whose features are kept."""
PICTURES_AT_ONCE = 64
"""Pictures whose views are drawn together."""
BYTES = 2**28
"""Of features that are kept; of a larger set, as many pictures as fit."""


def features_of_views(
    backbone: nn.Module,
    images: Images,
    pictures: Tensor,
    augment: SimCLRAugment,
    compute: Compute,
    seed: int,
    quiet: bool = True,
) -> Tensor:
    """h of `SETS` pairs of augmented views: (SETS, n, 2, num_features) float32 on the device, f in evaluation mode."""
    sets: list[list[Tensor]] = [[] for _ in range(SETS)]
    with progress.stage("views for the head", SETS * len(pictures), 0, quiet) as bar:
        for s in range(SETS):
            for start in range(0, len(pictures), PICTURES_AT_ONCE):
                chosen = pictures[start : start + PICTURES_AT_ONCE]
                draws = generator(seed, "head-views", s, start)
                h = pair_features(backbone, images, chosen, augment, compute, draws)
                sets[s].append(torch.stack(h.chunk(2), dim=1))
                bar.advance(len(chosen))
                if s == start == 0:
                    pictures = pictures[: max(2, BYTES // (SETS * 2 * 4 * h.shape[1]))]
    return torch.stack([torch.cat(parts) for parts in sets])


class HeadAlone(Training):
    """What a step of the head alone is."""

    stage, title, unit = STAGE, "head alone", "pairs"
    if_diverged = "A lower --contrastive.head-lr usually helps"
    if_out_of_memory = "a smaller --contrastive.batch-size needs less"

    def __init__(
        self, head: nn.Module, bank: Tensor, config: Config, compute: Compute, group: dist.ProcessGroup | None
    ) -> None:
        settings = config.contrastive
        assert settings.batch_size is not None
        self.head, self.bank, self.config, self.group = head.train(), bank, config, group
        self.device, self.epochs = compute.device, settings.head_epochs
        self.batch_size = min(settings.batch_size, bank.shape[1])
        self.steps = count_steps(bank.shape[1], self.batch_size)
        self.optimizer = optimizers.build(head.named_parameters(), settings)
        self.lr = settings.head_lr or settings.lr
        assert self.lr is not None
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.lr

    @classmethod
    def of(
        cls,
        model: SimCLR,
        images: Images,
        pictures: Tensor,
        config: Config,
        augment: SimCLRAugment,
        compute: Compute,
        group: dist.ProcessGroup | None,
        quiet: bool,
    ) -> "HeadAlone":
        """The training of `model.head` on `pictures` (n,); `group`: this process alone where there are several, which
        all do the same."""
        bank = features_of_views(model.backbone, images, pictures, augment, compute, config.seed, quiet)
        return cls(model.head, bank, config, compute, group)

    def batches(self, epoch: int, first: int) -> Iterable[Tensor]:
        """Features (2b, num_features) of one kept pair of views of each picture, in an order of the epoch's own."""
        seed, n = self.config.seed, self.bank.shape[1]
        permuted = order(seed, "head-order", epoch, n)
        which = torch.randint(len(self.bank), (n,), generator=generator(seed, "head-sets", epoch))
        for step in range(first, self.steps):
            chosen = permuted[step * self.batch_size : (step + 1) * self.batch_size]
            pairs = self.bank[sent(which[chosen], self.device), sent(chosen, self.device)]
            yield torch.cat(pairs.unbind(dim=1))

    def step(self, batch: Tensor, epoch: int, step: int) -> Step:
        """One step of the head."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_of(self.head(batch), self.config, (epoch, step), self.group)
        loss.backward()
        self.optimizer.step()
        assert self.lr is not None
        return Step(loss.detach(), self.lr, len(batch) // 2)

    def validate(self) -> float | None:
        """Nothing is held out: what comes of it is judged after the backbone has learned too."""
        return None

    def end_epoch(self, epoch: Epoch) -> dict[str, float]:
        """No more than the loss."""
        return {}

    def state(self) -> State:
        """Head and optimiser."""
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
