"""What is known of a pair loss beside its formula. Each module of losses keeps a table; the contract tests hold every loss to its row."""

from typing import Literal, NamedTuple

from torch import Tensor

from robopref.arrays import InputError


class Facts(NamedTuple):
    """How a pair loss behaves where it matters to whoever runs it unattended."""

    zero: float | None
    """Value at rho_first = rho_second = 0 (policy = reference) with default arguments; None where it depends on the label."""
    start: Literal["both", "loser", "reversed"]
    """What the first step does: raises the winner and lowers the loser, lowers the loser alone, or the reverse of both."""
    shift: Literal["free", "held", "rewarded"]
    """What it costs when the scores of winner and loser fall together: nothing, something, or it pays (then anchor the winners)."""
    tie: Literal["equal", "zero", "silent", "falls", "rises", "apart"]
    """What a label of 0.5 does: pulls the two scores together, pulls each to 0, nothing, lowers both, raises both, or drives them apart."""


def mixed(first_wins: Tensor, second_wins: Tensor, prob_first: Tensor) -> Tensor:
    """The two directions of a loss under a soft label, (B,): loss(p) = p loss(1) + (1 - p) loss(0)."""
    return prob_first * first_wins + (1 - prob_first) * second_wins


def check_share(name: str, value: float, least: float = 0.0) -> None:
    """Raise `InputError` unless a share of wrong labels lies in [least, 0.5): from a half on, labels say the opposite or nothing."""
    if not least <= value < 0.5:
        raise InputError(
            f"loss.{name}: got {value}, wanted {f'{least:g} or more' if least else '0 or more'} and below 0.5."
        )
