"""Watches a SimCLR training, and says once, by name, when it is `diverging`, `collapsing` or has `stopped learning`.

Comes in: `contrastive.EpochEnd` after each epoch. Goes out: figures of h and z for metrics.jsonl, and warnings that say
what was seen and what usually helps.

How each is told from a healthy training (the thresholds hold on the trainings of tests/evaluate/test_health.py):

diverging: h or z has become huge or not finite (a network with batch norm keeps |h| below some hundreds), or the
    training loss has been a tenth above its lowest for three epochs.
collapsing: projections of different pictures point in one direction (mean squared distance below 0.01; 2 is an even
    spread), or the features of z repeat one another (mean squared correlation above 0.9), and this has not been
    getting better for three epochs without warm-up. A healthy head may start like that, above all one with sigmoid,
    but then spreads from epoch to epoch.
stopped learning: over a window of a tenth of the epochs (at least ten) neither has the training loss fallen, compared
    with the window before, nor have projections spread, while the learning rate is at least half of its peak.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from headstart.engine.observer import EpochEnd
from headstart.engine.progress import say as to_screen
from headstart.evaluate import geometry

HUGE = 1e4
"""Mean norm of h or z from which a training counts as diverging."""
NARROW = 0.01
"""Spread of z (0 to 2) below which its directions count as one."""
REPEATED = 0.9
"""Mean squared correlation of the features of z from which they count as one."""
PATIENCE = 3
"""Epochs over which a bad sign must last."""

VERB = {
    "diverging": "the training is diverging",
    "collapsing": "the training is collapsing",
    "stopped learning": "the training has stopped learning",
}
HELP = {
    "diverging": "a lower --contrastive.lr, a longer --contrastive.warmup-epochs or --precision float32",
    "collapsing": "a lower --contrastive.lr, {apart}, another --head.activation or --head.init; look at "
    "samples/pairs.png, too: views that all look alike cannot be told apart",
    "stopped learning": "a higher --contrastive.lr, another --head.activation, or fewer --contrastive.epochs if the "
    "accuracy is what you need",
}
NEGATIVES = "a larger --contrastive.batch-size (more negatives)"
"""What keeps projections apart under NT-Xent."""
APART = {
    "variance": ("the variance term is {:.2g} of at most 1", "a larger --vicreg.variance"),
    "redundancy": ("the redundancy is {:.3g}", "a larger --barlow.off-diagonal"),
    "statistic": ("SIGReg's statistic is {:.3g} where a Gaussian has about 1", "a larger --sigreg.weight"),
}
"""The term that does so under each other objective: how its value is said, and which coefficient weighs it."""


class Health:
    """An observer of `contrastive.train`.

    Args:
        say: gets one line for each warning; each name is said once.

    Attributes:
        history: one record an epoch.
        said: names of the warnings given, in order.
    """

    def __init__(self, say: Callable[[str], object] = to_screen) -> None:
        self.say = say
        self.history: list[dict[str, float]] = []
        self.said: list[str] = []

    def step(self, h: Tensor, indices: Tensor) -> None:
        """Nothing: looking at every step would make a GPU wait."""

    def epoch_end(self, event: EpochEnd) -> dict[str, Any]:
        """Figures of h and z, and `warning`, the name of what was seen, in the epoch in which it was."""
        found = geometry.of_epoch(event.h, event.z)
        figures: dict[str, Any] = dict(found or {})
        self.history.append(
            {
                "loss": event.train_loss,
                "lr": event.lr,
                "norm": max(found["h_mean_norm"], found["z_mean_norm"]) if found else math.inf,
                "spread": figures.pop("spread", 0.0),
                "repetition": figures.pop("repetition", 0.0),
            }
        )
        for name, sign in (
            ("diverging", self._diverging),
            ("collapsing", self._collapsing),
            ("stopped learning", self._stopped),
        ):
            if name in self.said:  # what is less grave follows from it
                break
            if seen := sign(event):
                self.said.append(name)
                apart = next((helps for term, (_, helps) in APART.items() if term in event.terms), NEGATIVES)
                helps = HELP[name].format(apart=apart)
                self.say(f"epoch {event.epoch}: {VERB[name]}: {seen}. What usually helps: {helps}")
                figures["warning"] = name
                break
        return figures

    def _diverging(self, event: EpochEnd) -> str | None:
        norm = self.history[-1]["norm"]
        if not norm < HUGE:
            return f"representations have grown to a mean norm of {norm:.3g}"
        losses = [record["loss"] for record in self.history]
        lowest = min(losses)
        if min(losses[-PATIENCE:]) > lowest + 0.1 * abs(lowest):
            return f"the loss is {losses[-1]:.4g} and was {lowest:.4g}"
        return None

    def _collapsing(self, event: EpochEnd) -> str | None:
        last = self.history[-PATIENCE:]
        spreads = [record["spread"] for record in last]
        repeats = [record.get("repetition", 0.0) for record in last]
        warming_up = last[-1]["lr"] > last[0]["lr"]
        own = "".join(f"; {says.format(event.terms[t])}" for t, (says, _) in APART.items() if t in event.terms)
        if len(last) < PATIENCE or warming_up:
            return None
        if max(spreads) < NARROW and spreads[-1] <= 1.05 * spreads[0]:
            return f"projections of different pictures are nearly the same (spread {spreads[-1]:.2g} of 2{own})"
        if min(repeats) > REPEATED and 1 - repeats[-1] <= 1.05 * (1 - repeats[0]):
            return f"the features of z repeat one another (mean squared correlation {repeats[-1]:.2g} of 1{own})"
        return None

    def _stopped(self, event: EpochEnd) -> str | None:
        window = max(10, event.epochs // 10)
        before, after = self.history[-2 * window : -window], self.history[-window:]
        if len(before) < window or after[-1]["lr"] < max(record["lr"] for record in self.history) / 2:
            return None
        was, now = (sum(record["loss"] for record in part) / window for part in (before, after))
        if now < was or after[-1]["spread"] > 1.2 * before[-1]["spread"]:
            return None
        return f"the loss has not fallen in {2 * window} epochs (mean {was:.4g}, then {now:.4g})"

    def state_dict(self) -> dict[str, Any]:
        """History and what was said, so that a resumed run does not say it again."""
        return {"history": [dict(record) for record in self.history], "said": list(self.said)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.history, self.said = [dict(record) for record in state["history"]], list(state["said"])
