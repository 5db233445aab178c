"""Runs beside TRL, in an environment of its own: TRL's trainers compute their losses on given numbers, ours on the same ones.

A trainer is made without a model: its `_compute_loss` asks a stand-in for the log-probabilities that the test chose. Every pair is a
batch of its own, so that TRL's mean is the pair's value. Prints one line per comparison.
"""

import inspect
import re
from collections import defaultdict
from types import SimpleNamespace as Bag

import torch
from trl import DPOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from robopref.losses import absolute, divergences, optimal_transport, pairwise, reference_free

PAIRS, PROMPT, MOST = 24, 2, 7
GENERATOR = torch.Generator().manual_seed(0)
LENGTH = torch.randint(2, MOST + 1, (2, PAIRS), generator=GENERATOR)  # tokens of chosen and rejected
LIVE = torch.arange(MOST) < LENGTH[..., None]  # (2, P, MOST)
POLICY, REFERENCE = -(torch.randn(2, 2, PAIRS, MOST, generator=GENERATOR).abs()) * LIVE
S_W, S_L = POLICY.sum(-1)
R_W, R_L = REFERENCE.sum(-1)
RHO_W, RHO_L = S_W - R_W, S_L - R_L
MEAN_W, MEAN_L = (POLICY - REFERENCE).sum(-1) / LENGTH
ONE = torch.ones(PAIRS)
BETA = 0.37


class Answers:
    """A model that knows its log-probabilities."""

    training = False

    def __init__(self, log_probs):
        self.log_probs = log_probs

    def __call__(self, **_):
        flat = self.log_probs.reshape(-1, MOST)
        padded = torch.cat([torch.zeros(len(flat), PROMPT - 1), flat], dim=1)
        zeros = torch.zeros_like(padded)
        return Bag(log_probs=padded, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), aux_loss=None)


class Untouched(torch.nn.Module):
    """The model that a trainer holds: looked at (is it one of peft's?), never called."""

    is_gradient_checkpointing = False


def trainer(kind, **attributes):
    made = object.__new__(kind)
    accelerator = Bag(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    shared = {
        "accelerator": accelerator, "model": Untouched().eval(), "aux_loss_enabled": False, "ld_alpha": None,
        "precompute_ref_logps": False, "args": Bag(gradient_checkpointing=False, gradient_checkpointing_kwargs=None, discopop_tau=0.05),
        "ref_model": None, "beta": BETA, "use_weighting": False, "f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 1.0,
        "label_smoothing": 0.0, "loss_weights": [1.0], "alpha": 0.0,
        "_metrics": {"eval": defaultdict(list), "train": defaultdict(list)}, "_total_train_tokens": 0,
    }  # fmt: skip
    for name, value in (shared | attributes).items():
        object.__setattr__(made, name, value)
    return made


def inputs(rows):
    """TRL's batch [chosen, rejected] for some pairs: completion_mask covers the prompt with zeros."""
    live = LIVE[:, rows].reshape(-1, MOST)
    mask = torch.cat([torch.zeros(len(live), PROMPT, dtype=torch.long), live.long()], dim=1)
    return {"input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}


def dpo(loss_type, whole=False, **attributes):
    """TRL's DPO loss of each pair, (P,), or the mean over the batch."""
    values = []
    for rows in [list(range(PAIRS))] if whole else [[i] for i in range(PAIRS)]:
        made = trainer(DPOTrainer, loss_types=[loss_type], ref_model=Answers(REFERENCE[:, rows]), **attributes)
        values.append(made._compute_loss(Answers(POLICY[:, rows]), inputs(rows), return_outputs=False))
    return torch.stack(values) if not whole else values[0]


def pair(loss, first=RHO_W, second=RHO_L, **options):
    return loss(first, second, ONE, **{"beta": BETA, **options})


COMPARED = {
    "sigmoid": (lambda: dpo("sigmoid"), lambda: pair(pairwise.sigmoid)),
    "hinge": (lambda: dpo("hinge"), lambda: pair(pairwise.hinge)),
    "exo_pair": (lambda: dpo("exo_pair", label_smoothing=1e-3), lambda: pair(pairwise.exo, flip=1e-3)),
    "robust": (lambda: dpo("robust", label_smoothing=0.1), lambda: pair(pairwise.robust, flip=0.1)),
    "discopop": (lambda: dpo("discopop"), lambda: pair(pairwise.discopop, tau=0.05)),
    "nca_pair": (lambda: dpo("nca_pair"), lambda: pair(absolute.nca)),
    "bco_pair": (lambda: dpo("bco_pair"), lambda: pair(absolute.bco)),
    "apo_zero": (lambda: dpo("apo_zero"), lambda: pair(absolute.apo_zero)),
    "apo_down": (lambda: dpo("apo_down"), lambda: pair(absolute.apo_down)),
    # Ours are scaled by beta^2, so that their size does not follow beta.
    "sppo_hard": (lambda: dpo("sppo_hard"), lambda: pair(absolute.sppo) / BETA**2),
    "ipo": (lambda: dpo("ipo"), lambda: pair(pairwise.ipo, MEAN_W, MEAN_L) / BETA**2),
    "sigmoid_norm": (lambda: dpo("sigmoid_norm"), lambda: pair(pairwise.sigmoid, MEAN_W, MEAN_L)),
    "aot": (lambda: dpo("aot", whole=True), lambda: optimal_transport.aot(S_W, S_L, R_W, R_L, beta=BETA).mean()),
    "aot_unpaired": (
        lambda: dpo("aot_unpaired", whole=True, label_smoothing=0.1),
        lambda: optimal_transport.aot_unpaired(RHO_W, RHO_L, beta=BETA, smoothing=0.1).mean(),
    ),
    # The anchor of this package: cloning of winners, here per element of the whole batch as TRL means it.
    "sft": (lambda: dpo("sft", whole=True), lambda: -S_W.sum() / LENGTH[0].sum()),
    "f forward_kl": (
        lambda: dpo("sigmoid", f_divergence_type="forward_kl"),
        lambda: pair(divergences.forward_kl),
    ),
    "f js_divergence": (
        lambda: dpo("sigmoid", f_divergence_type="js_divergence"),
        lambda: pair(divergences.jensen_shannon),
    ),
    "f alpha_divergence": (
        lambda: dpo("sigmoid", f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.4),
        lambda: pair(divergences.alpha_divergence, alpha=0.4),
    ),
    "CPO simpo": (
        lambda: trainer(CPOTrainer, loss_type="simpo", simpo_gamma=0.5).cpo_loss(S_W / LENGTH[0], S_L / LENGTH[1])[0],
        lambda: reference_free.simpo(S_W / LENGTH[0], S_L / LENGTH[1], ONE, beta=BETA, target=0.5),
    ),
    "CPO sigmoid": (
        lambda: trainer(CPOTrainer, loss_type="sigmoid").cpo_loss(S_W, S_L)[0],
        lambda: reference_free.cpo(S_W, S_L, ONE, beta=BETA, anchor=0.0),
    ),
    "ORPO odds ratio": (
        lambda: -trainer(ORPOTrainer).odds_ratio_loss(S_W / LENGTH[0], S_L / LENGTH[1])[0],
        lambda: reference_free.orpo(S_W / LENGTH[0], S_L / LENGTH[1], ONE, beta=BETA) + S_W / LENGTH[0],
    ),
}  # fmt: skip

TRL_PAIR_LOSSES = {
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero",
    "apo_down", "discopop", "sft", "sigmoid_norm",
}  # fmt: skip


def main():
    known = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer._compute_loss)))
    assert known == TRL_PAIR_LOSSES == known & COMPARED.keys(), known ^ TRL_PAIR_LOSSES
    for name, (theirs, ours) in COMPARED.items():
        wanted, got = theirs(), ours()
        assert wanted.shape == got.shape, name
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        print("equal", name, wanted.numel())


if __name__ == "__main__":
    main()
