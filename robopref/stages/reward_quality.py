"""Reward, measured: split a store's answers by episode, flip some training labels on request, fit, and judge on clean pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import save
from robopref.data.files import write_json
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.store import TrajectoryStore
from robopref.data.windows import pair_batch
from robopref.labelers.teacher import CRITERIA, Teacher
from robopref.learners.reward import FitSettings, fit_reward, probabilities, quality
from robopref.progress import track
from robopref.stages import reward_page
from robopref.stages.diagnostics import reliability
from robopref.stages.origin import provenance
from robopref.types import Dims, PreferenceBatch

Config = dict[str, Any]
LONG = 100
"""Segments with more steps than this are thinned to every 4th: neighbouring simulator steps are nearly equal."""


@dataclass(frozen=True)
class Split:
    """Answered pairs for training and for judging; no episode is in both."""

    train: list[Pair]
    held_out: list[Pair]
    episodes: list[int]
    """Episodes that no training pair may touch."""


def split_pairs(pairs: Sequence[Pair], episodes: int, share: float, seed: int, scarce: bool = False) -> Split:
    """By the rows' own `split` where they carry one, else by episode: a `share` of the episodes is held out, unlabelled ones first.

    Pairs between the two parts are left out of both; `scarce` holds out episodes of few answers first, so that fewer are lost.
    """
    if any(p.split for p in pairs):
        train = [p for p in pairs if p.split == "train"]
        held = [p for p in pairs if p.split in ("val", "test")]
        used = {w.episode for p in train for w in (p.first, p.second)}
        return Split(train, held, [e for e in range(episodes) if e not in used])
    answers = Counter(w.episode for p in pairs for w in (p.first, p.second))
    order = np.random.default_rng([seed, 11]).permutation(episodes).tolist()
    order.sort(key=lambda e: answers[e] if scarce else e in answers)  # stable: equal ones stay in random order
    out = set(order[: round(share * episodes)])
    return Split(
        [p for p in pairs if p.first.episode not in out and p.second.episode not in out],
        [p for p in pairs if p.first.episode in out and p.second.episode in out],
        sorted(out),
    )


def flip_labels(prob_first: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Labels (N,) of which each is turned round with probability `share`. Raises `InputError` outside [0, 0.5)."""
    if not 0 <= share < 0.5:
        raise InputError(
            f"label_flips: got {share}, wanted a share from 0 to below 0.5 (at 0.5 nothing can be learned)."
        )
    turned = np.random.default_rng([seed, 13]).random(len(prob_first)) < share
    return np.where(turned, 1 - prob_first, prob_first)


def thinning(pairs: Sequence[Pair]) -> int:
    """Every how many steps windows are looked at: 4 where one of them is long, else 1."""
    return 4 if max((w.end - w.start for p in pairs for w in (p.first, p.second)), default=0) > LONG else 1


def batch_of(
    trajectories: Sequence[Trajectory], pairs: Sequence[Pair], prob_first: np.ndarray | None = None, stride: int | None = None
) -> PreferenceBatch:  # fmt: skip
    """Tensors of answered pairs, every `stride`-th step of them (None: as `thinning` says)."""
    first, second = (
        [trajectories[w.episode].window(w.start, w.end) for w in windows]
        for windows in ([p.first for p in pairs], [p.second for p in pairs])
    )
    labels = np.array([p.prob_first for p in pairs]) if prob_first is None else prob_first
    weight = np.array([p.weight for p in pairs])
    return pair_batch(first, second, labels, weight, stride=thinning(pairs) if stride is None else stride)


def criterion_of(rows: Sequence[Pair]) -> str | None:
    """What the scripted teacher of all rows goes by; None where there are others, or several."""
    found = {p.criterion if p.source == "scripted" else "" for p in rows}
    return found.pop() if len(found) == 1 and found <= set(CRITERIA) else None


def more_questions(trajectories: Sequence[Trajectory], split: Split, wanted: int, seed: int) -> list[Pair]:
    """Questions about held-out episodes, answered by the scripted teacher without its noise: for judging only, never trained on.

    Windows are as long as the labelled ones. People, models and unknown teachers are asked nothing.
    """
    rows = [*split.train, *split.held_out]
    criterion = criterion_of(rows)
    if criterion is None:
        return []
    rng = np.random.default_rng([seed, 17])
    lengths = [p.first.end - p.first.start for p in rows]
    asked: dict[tuple[Window, Window], None] = {}
    for _ in range(20 * wanted):
        if len(asked) == wanted or len(split.episodes) < 2:
            break
        a, b = (int(e) for e in rng.choice(split.episodes, size=2, replace=False))
        length = min(int(rng.choice(lengths)), len(trajectories[a]), len(trajectories[b]))
        first, second = (_window(e, len(trajectories[e]), length, rng) for e in (a, b))
        if (second, first) not in asked:
            asked[first, second] = None
    sides = [[trajectories[w.episode].window(w.start, w.end) for w in side] for side in zip(*asked, strict=True)]
    answers = Teacher(criterion=criterion).label(*sides) if asked else np.zeros(0)
    return [Pair(a, b, float(p)) for (a, b), p in zip(asked, answers, strict=True) if not np.isnan(p)]


def _window(episode: int, steps: int, length: int, rng: np.random.Generator) -> Window:
    start = int(rng.integers(0, steps - length + 1))
    return Window(episode, start, start + length)


def questions(
    config: Config, trajectories: Sequence[Trajectory], pairs: Sequence[Pair], most: int | None
) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, at most `most` of them, and clean pairs of held-out episodes to judge on."""
    seed = config["seed"]
    share = config["held_out"]["episodes"]
    split = split_pairs(pairs, len(trajectories), share, seed)
    if (most is None or len(split.train) < most) and criterion_of(pairs):  # its teacher can be asked about any episode
        split = split_pairs(pairs, len(trajectories), share, seed, scarce=True)
    train = split.train
    if most is not None and most < len(train):
        chosen = np.random.default_rng([seed, 19]).permutation(len(train))[:most]
        train = [train[i] for i in sorted(chosen)]
    if not train:
        raise InputError(
            f"reward: got {len(pairs)} answered pairs, none of them between two training episodes, wanted at least one.\n"
            "Label more pairs, or lower held_out.episodes."
        )
    wanted = config["held_out"]["pairs"] - len(split.held_out)
    return train, [*split.held_out, *more_questions(trajectories, split, wanted, seed)]


def fit_and_judge(
    config: Config, trajectories: Sequence[Trajectory], pairs: Sequence[Pair], most: int | None
) -> tuple[Any, dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """A fitted reward model, its `held_out` measures with the counts behind them, and the curves of its reliability diagram."""
    from hydra.utils import instantiate

    seed = config["seed"]
    train, judged = questions(config, trajectories, pairs, most)
    labels = flip_labels(np.array([p.prob_first for p in train]), config["label_flips"], seed)
    stride = thinning([*train, *judged])
    batch = batch_of(trajectories, train, labels, stride)
    torch.manual_seed(seed)
    model = instantiate(config["reward"], _partial_=True)(
        dims=Dims(batch.first.observation.shape[-1], batch.first.action.shape[-1])
    )
    settings = FitSettings(**config["reward_protocol"])
    generator = torch.Generator().manual_seed(seed)
    steps = sum(1 for _ in track(fit_reward(model, batch, settings, generator), "reward", settings.steps))
    prob = probabilities(model, batch)
    curves = {"training labels": (prob, labels)}
    found: dict[str, Any] = {"train": quality(prob, labels), "held_out": None}
    if judged:
        clean = np.array([p.prob_first for p in judged])
        unseen = probabilities(model, batch_of(trajectories, judged, stride=stride))
        curves["held out"] = (unseen, clean)
        found["held_out"] = quality(unseen, clean)
    found |= {
        "steps": steps, "label_flips": config["label_flips"],
        "flip_estimate": float(model.calibration.flip), "scale": float(model.calibration.scale),
    }  # fmt: skip
    return model, found, curves


def reward_of_store(config: Config, store: TrajectoryStore, out: Path, most: int | None) -> str:
    """Fit and judge on a store's answers; writes a model folder with metrics.json, calibration.png and
    report.html; says what was found."""
    trajectories = store.load()
    pairs = [p for p in PreferenceStore(store).pairs() if p.answered]
    if not pairs:
        raise InputError(
            f"reward: got no answered pair in {store.root}, wanted at least one. Run `robopref label` first."
        )
    model, found, curves = fit_and_judge(config, trajectories, pairs, most)
    save(model, out, provenance(config, trajectories, answers=found["train"]["pairs"]))
    write_json(out / "metrics.json", found)
    picture = reliability(out / "calibration.png", curves)
    held = found["held_out"]
    judged = {"training labels": found["train"]} | ({} if held is None else {"held out": held})
    table = reward_page.quality_table("Quality", judged)
    reward_page.write(out, f"Reward model of {store.root.name}", [table], [picture], config["command"])
    if held is None:
        return f"reward model in {out}; nothing held out to judge it on (no pair between two held-out episodes)"
    accuracy = "undecided" if held["accuracy"] is None else f"accuracy {held['accuracy']:.1%}"
    return (
        f"reward model in {out}: {accuracy} on {held['decided']} decided held-out pairs, "
        f"ECE {held['ece']:.3f}, Brier {held['brier']:.3f} on {held['pairs']}"
    )
