"""Faults put into the loop, 20 seeds each: does a broken round ever leave a policy that is worse than the base, and is the reason said?

One round on the point mass with the quickstart's settings scaled down: base, rollouts, 60 answers, alignment under the guard, gate,
choice. Caught, fixed before the first run: the policy that stays is not significantly worse than the base (paired 95% interval over
400 fresh resets not wholly below 0), and where the candidate is significantly worse, the door, the guard, the gate or the choice has
said why.

Run: robopref bench faults. Finished cells are kept in `runs/bench/faults`; remove that folder to measure again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError
from robopref.checkpoint import fingerprint
from robopref.data.files import read_json
from robopref.data.store import TrajectoryStore
from robopref.run import compose
from robopref.stages import pipeline
from robopref.stages.align import rounds_of
from robopref.stages.choosing import BASE
from robopref.stages.environments import roll
from robopref.stages.parallel import single_thread
from robopref.stages.pretrain import demonstrations_at, pretrain
from robopref.stages.units import unit
from robopref.statistics import clustered_bootstrap, paired_bootstrap

from ._faults import FAULTS, FIRST, NONE, SECOND, SEEDS, STEPS, STRESSES, Fault

OUT = Path("runs/bench/faults")
QUICK = 3
"""Seeds of a quick run."""
RESETS = 400
"""Fresh resets on which base, candidate and the policy that stays are run."""
SETTINGS = [
    "env=point_mass", "task=point-mass", "experiment=quickstart", "workers=1", "rounds.count=1", "pairs=60", "policy.width=64",
    "policy.depth=2", "base.clone.steps=500", "base.rounds=2", "rounds.resets=32", f"align.steps={STEPS}", "guard.every=50",
    f"choose.every={STEPS}",
]  # fmt: skip
"""Over the quickstart's: one round, a small network, fewer steps."""
COST = {
    "flipped_30": 3.0, "flipped_30_network": 3.0, "never_equal": 3.0, "never_equal_flipped_30": 3.0, "blurred_flipped_30": 3.0,
    "network": 0.0, "steps_x10": 2.0,
}  # fmt: skip
"""Points of success that a stress may cost, on the mean over seeds, against the same round without it."""
Rows = dict[str, dict[str, Any]]
Config = dict[str, Any]


def run(quick: bool = False, out: Path = OUT) -> Rows:
    """A row per fault: share of seeds in which it was caught; a row per stress: points of success it costs."""
    single_thread()
    seeds = range(FIRST, FIRST + (QUICK if quick else SEEDS))
    cells = {name: [cell(name, seed, out) for seed in seeds] for name in (*FAULTS, *STRESSES)}
    rows = {name: _row(cells[name]) for name in FAULTS}
    return rows | {name: _cost(cells[name], cells[NONE], COST[name]) for name in STRESSES}


def cell(name: str, seed: int, out: Path) -> dict[str, Any]:
    """One fault at one seed, measured once and kept in `out`/seedS/NAME.

    caught_by: door (an error), gate (rolled back), choice (the base was chosen), guard (stopped, then accepted) or nothing; said: its words. base, candidate, stays:
    success per fresh reset (the candidate's is missing where an error came first). gate, choice: what these two saw.
    """
    fault = (FAULTS | STRESSES)[name]
    return unit(out / f"seed{seed}" / name, lambda partial: _measure(fault, seed, out / f"seed{seed}", partial / "run"))


def _measure(fault: Fault, seed: int, place: Path, work: Path) -> dict[str, Any]:
    base, known = _base(seed, place)
    config = settings(seed, fault)
    found: dict[str, Any] = {"caught_by": "", "said": "", "base": known}
    try:
        with fault.inject(place):
            made = rounds_of(config, work, "aligned", base, 1.0)
    except InputError as error:
        return found | {"caught_by": "door", "said": str(error), "stays": known}
    guard, candidate, stays = made["guard"][0], work / "arms/aligned/round-0/align/policy", Path(made["policy"])
    if not guard["accepted"]:
        found |= {"caught_by": "gate", "said": guard["reason"]}
    elif made["choice"]["chosen"] == BASE:
        found |= {
            "caught_by": "choice",
            "said": made["choice"]["doubt"] or f"by the learned reward the base is best: {made['choice']['predicted']}",
        }
    elif guard["stopped"]:
        found |= {"caught_by": "guard", "said": guard["stopped"]}
    found |= {"gate": {key: guard[key] for key in ("sure", "difference", "episodes")}, "choice": made["choice"]}
    found["candidate"] = _success(config, candidate)
    alike = {fingerprint(base): known, fingerprint(candidate): found["candidate"]}
    found["stays"] = alike.get(fingerprint(stays)) or _success(config, stays)
    shutil.rmtree(work)
    return found


def settings(seed: int, fault: Fault) -> Config:
    """The configuration of a round with what the fault changes in it."""
    config = compose([*SETTINGS, f"seed={seed}", *fault.overrides])
    if fault.rater:
        config["labeler"] = {"_target_": f"robopref.benchmarks._faults.{fault.rater}", "labeler": config["labeler"]}
    return config


def _base(seed: int, place: Path) -> tuple[Path, list[int]]:
    """The base of a seed, its success, and beside it a second policy cloned on good demonstrations alone; made once."""
    config = settings(seed, FAULTS[NONE])
    pipeline.collect(config, place)
    pipeline.pretrain(config, place)

    def second(partial: Path) -> dict[str, Any]:
        every = TrajectoryStore(place / "demonstrations" / "store").load()
        half = len(every) // 2
        good = demonstrations_at(0.0, every[:half], every[half:])
        pretrain(config["policy"], good, config["base"]["clone"], 1000 + seed, partial, SECOND)
        return {}

    unit(place / SECOND, second)
    base = place / read_json(place / "base" / "base.json")["policy"]
    return base, unit(place / "evaluation", lambda _: {"success": _success(config, base)})["success"]


def _success(config: Config, policy: Path) -> list[int]:
    begin = config["evaluation"]["first_reset"] + 1000 * config["seed"]
    made = roll(policy, config["env"], list(range(begin, begin + RESETS)), config["seed"], 0, until_success=True)
    return [int(one.succeeded) for one in made]


def _worse(after: Sequence[int], before: Sequence[int]) -> bool:
    """Whether the paired 95% interval lies wholly below 0."""
    return paired_bootstrap(after, before)[2] < 0


def _row(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    harmful = [_worse(one.get("candidate", one["base"]), one["base"]) for one in cells]
    slipped = [_worse(one["stays"], one["base"]) for one in cells]
    caught = [not s and (bool(one["said"]) or not h) for one, h, s in zip(cells, harmful, slipped, strict=True)]
    by = {part: sum(one["caught_by"] == part for one in cells) for part in ("door", "guard", "gate", "choice", "")}
    return {
        "measured": sum(caught) / len(cells), "target": 1.0, "ok": all(caught), "seeds": len(cells), "door": by["door"],
        "guard": by["guard"], "gate": by["gate"], "choice": by["choice"], "accepted": by[""], "candidate_worse": sum(harmful), "stays_worse": sum(slipped),
        "base": _mean(one["base"] for one in cells), "candidate": _mean(one["candidate"] for one in cells if "candidate" in one),
        "stays": _mean(one["stays"] for one in cells), "said": next((one["said"] for one in cells if one["said"]), ""),
    }  # fmt: skip


def _cost(cells: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]], most: float) -> dict[str, Any]:
    lost = [100 * (np.array(p["stays"]) - np.array(c["stays"])) for c, p in zip(cells, plain, strict=True)]
    mean, low, high = clustered_bootstrap(lost)
    return {
        "measured": round(mean, 2), "target": most, "ok": mean <= most, "seeds": len(cells), "ci95": [round(low, 2), round(high, 2)],
        "base": _mean(one["base"] for one in cells), "without": _mean(one["stays"] for one in plain),
        "stays": _mean(one["stays"] for one in cells), "gate": sum(one["caught_by"] == "gate" for one in cells),
    }  # fmt: skip


def _mean(rates: Any) -> float | None:
    each = [float(np.mean(one)) for one in rates]
    return round(float(np.mean(each)), 4) if each else None
