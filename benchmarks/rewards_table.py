"""docs/results_rewards.md from the committed metrics of rewards and transfer: `python -m robopref.benchmarks.rewards_table`.

Reads docs/results/{noise,noise_network,regret,cpl}/TASK-seedK/metrics.json, rapl/seedK, pearl/SOURCE-TARGET, pearl_policies/SOURCE-TARGET-seedK, human_labels/FILE and bench/{iql,reward}. What was
not run stays visibly empty.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopref.data.files import read_json, write_text

TASKS = ("button-press-topdown", "door-open", "sweep-into", "plate-slide", "bin-picking", "drawer-open")
EMPTY = "not run"
Found = Mapping[str, Mapping[str, Any]]
"""Folder name -> metrics."""


def main(arguments: Sequence[str]) -> None:
    """Write the page beside the results folder (default docs/results -> docs/results_rewards.md)."""
    folder = Path(arguments[0] if arguments else "docs/results")
    path = folder.with_name(f"{folder.name}_rewards.md")
    write_text(path, document(folder))
    print(path)


def document(folder: Path) -> str:
    """The whole page."""
    parts = [
        "# Rewards and transfer: results\n",
        "Made by `python -m robopref.benchmarks.rewards_table` from the files in `docs/results/`. How they came about and what is open: "
        "[rewards.md](rewards.md).\n",
        noise(_found(folder / "noise")),
        noise_before(_found(folder / "noise_network")),
        transfer(_found(folder / "pearl")),
        policies(
            "pearl", "Policies from carried labels", _found(folder / "pearl_policies"), "source=[TASK] target=TASK"
        ),
        human(_found(folder / "human_labels")),
        films(_found(folder / "rapl")),
        policies("regret", "Labels by return and by regret", _found(folder / "regret")),
        policies("cpl", "Contrastive preference learning", _found(folder / "cpl")),
        speed({name: _bench(folder / "bench" / name / "bench.json") for name in ("iql", "reward")}),
    ]
    return "\n".join(parts)


def noise(found: Found) -> str:
    """Flipped labels: one row per task and seed, the six tasks first, and what was reached."""
    lines = [
        "## Flipped labels\n",
        "500 training pairs, 30% of them turned round, against the same pairs clean; judged on 2,000 clean pairs of episodes that no "
        "training pair touches. Differences are in points of accuracy with 95% intervals over the held-out episodes; they speak of these "
        "fitted models, not of other flips. Plain: Bradley-Terry (`partial_return`) on the state; `gaussian` also has distances of hand, thing and goal.\n",
        "| task, seed | gaussian, clean | gaussian, flipped | ECE | plain, flipped | ECE | gaussian flipped - clean | gaussian - plain, flipped | Brier, the same |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    cells = list(dict.fromkeys([*(f"{task}-seed1" for task in TASKS), *found]))
    lines += [
        f"| {name.replace('-seed', ', ')} | {_noise_row(found[name]) if name in found else EMPTY + ' |' * 7} |"
        for name in cells
    ]
    lines.append(f"\n{len(cells) - len(found)} of {len(cells)} cells are empty.\n")
    if found:
        lines.append(_noise_verdict(found))
    return "\n".join([*lines, _commands(found, "robopref run experiment=noise task=TASK seed=S out=DIR")])


def noise_before(found: Found) -> str:
    """The cells of the time when `gaussian` was networks trained by gradient."""
    lines = [
        "### The same with networks\n",
        "`reward=gaussian_network`, which was `gaussian` when these cells ran: `experiment=noise` now makes the table above. With "
        "`noise.rewards.gaussian._target_=robopref.rewards.gaussian.Gaussian` it makes this one.\n",
        "| task, seed | network, clean | network, flipped | ECE | plain, flipped | ECE | network flipped - clean | network - plain, flipped | Brier, the same |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {name.replace('-seed', ', ')} | {_noise_row(one)} |" for name, one in found.items()]
    return "\n".join([*lines, "", _noise_verdict(found) if found else EMPTY + "\n"])


def _noise_row(metrics: Mapping[str, Any]) -> str:
    held = {name: one["held_out"] for name, one in metrics["cells"].items()}
    clean, ours, plain = (held[name] for name in ("gaussian_clean", "gaussian_flipped", "partial_return_flipped"))
    loss, gain = (
        metrics["differences"][f"gaussian_flipped - {name}"] for name in ("gaussian_clean", "partial_return_flipped")
    )
    return " | ".join(
        [
            f"{clean['accuracy']:.1%}", f"{ours['accuracy']:.1%}", f"{ours['ece']:.3f}", f"{plain['accuracy']:.1%}",
            f"{plain['ece']:.3f}", _points(loss["accuracy"]), _points(gain["accuracy"]), _small(gain["brier"]),
        ]
    )  # fmt: skip


def _noise_verdict(found: Found) -> str:
    losses = [m["differences"]["gaussian_flipped - gaussian_clean"]["accuracy"]["difference"] for m in found.values()]
    gains = [m["differences"]["gaussian_flipped - partial_return_flipped"] for m in found.values()]
    errors = [m["cells"]["gaussian_flipped"]["held_out"]["ece"] for m in found.values()]
    accurate = sum(g["accuracy"]["ci95"][0] > 0 for g in gains)
    worse = sum(g["accuracy"]["ci95"][1] < 0 for g in gains)
    sharper = sum(g["brier"]["ci95"][1] < 0 for g in gains)
    return (
        f"Over {len(found)} cells: flips cost the Gaussian reward {-100 * float(np.mean(losses)):.1f} points on the mean (target: at most 2; reached in "
        f"{sum(x >= -0.02 for x in losses)} cells), ECE at most 0.05 in {sum(e <= 0.05 for e in errors)} (largest {max(errors):.3f}). "
        f"Against plain Bradley-Terry the accuracy is higher with an interval above 0 in {accurate}, lower with one below 0 in {worse}; "
        f"the Brier score is lower with an interval below 0 in {sharper}.\n"
    )


def transfer(found: Found) -> str:
    """Zero-shot label accuracy of every source and target."""
    lines = [
        "## Transfer\n",
        "Accuracy of carried labels over all decided pairs of the target; no label, reward or success of it is read.\n",
        "| source to target | accuracy | confident half | smoother wins | raw observations | CPU seconds | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found.values():
        t = one["transfer"]
        lines.append(
            f"| {_between(one['command'], 'source=[', ']')} to {one['task']} | {t['accuracy']:.3f} | {t['confident_half_accuracy']:.3f} | "
            f"{t['jitter_rule']:.3f} | {t['raw_observations']:.3f} | {t['cpu_seconds']} | `{one['command']}` |"
        )
    if not found:
        return "\n".join([*lines, f"| {EMPTY} |" + " |" * 6, ""])
    rows = {
        k: [one["transfer"][k] for one in found.values()]
        for k in ("accuracy", "confident_half_accuracy", "jitter_rule")
    }
    lines.append(
        f"\nMean {np.mean(rows['accuracy']):.3f} (target 0.90), worst {min(rows['accuracy']):.3f} (target 0.80), confident half "
        f"{np.mean(rows['confident_half_accuracy']):.3f} on the mean (target 0.97), {len(found)} pairs of tasks, one seed; the smoother "
        f"one wins in {np.mean(rows['jitter_rule']):.3f}, at most {max(rows['jitter_rule']):.3f} (limit 0.60).\n"
    )
    return "\n".join(lines)


def human(found: Found) -> str:
    """Leak-free accuracy of each reward on each file."""
    lines = [
        "## Human labels\n",
        "Mean of five leak-free repartitions, settings fixed before the first look. Intervals draw components of shared frames anew (Wilson's "
        "over pairs where there is one component, which is too sure of itself).\n",
        "| file | reward | accuracy | 95% interval | ECE | decided pairs | commoner side | smoother wins |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        rule = one["baselines"]
        for reward, made in one["cross_validation"].items():
            label = f"{reward} (headline)" if reward == one["headline"] else reward
            lines.append(
                f"| {name} | {label} | {made['accuracy']:.3f} | {made['ci95'][0]:.3f} to {made['ci95'][1]:.3f} | {made['ece']:.3f} | "
                f"{made['decided']} | {rule['commoner_side']:.3f} | {rule['jitter_rule']:.3f} |"
            )
    if not found:
        lines.append(f"| {EMPTY} |" + " |" * 7)
    return "\n".join([*lines, "", _commands(found, "robopref run experiment=human_labels dataset=FILE.npz out=DIR")])


def films(found: Found) -> str:
    """Rewards from films: rank correlation with the hidden score, and the means over seeds."""
    lines = [
        "## Rewards from films\n",
        "Spearman's correlation between the reward of held-out films and their hidden preference score (Meta-World's reach with a zone to keep "
        "out of), with 95% intervals over films. RAPL: the triplets train the encoder's head, optimal transport to the nearest demonstration "
        "gives the reward. Plain: Bradley-Terry on the same eyes and the same answers, read as pairs. Untaught: RAPL before any answer. Other "
        "arm: the same kinematics drawn as thin sticks, no other robot. Diagonality: of the couplings of the best and the worst third.\n",
        "| seed | triplets | demonstrations | films | RAPL | plain | untaught | RAPL, other arm | plain, other arm | untaught, other arm | diagonality |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_film_row(name.removeprefix("seed"), one) for name, one in found.items()]
    if not found:
        lines.append(f"| {EMPTY} |" + " |" * 10)
    else:
        keys = [f"{kind}spearman{arm}" for arm in ("", "_other_arm") for kind in ("", "rlhf_", "untaught_")]
        means = [float(np.mean([one["reward"][k] for one in found.values()])) for k in keys]
        lines.append(
            f"\nMean over {len(found)} seeds: RAPL {means[0]:.2f} (target 0.75), plain {means[1]:.2f}, untaught {means[2]:.2f}; on the other arm "
            f"{means[3]:.2f} (target 0.6), {means[4]:.2f}, {means[5]:.2f}.\n"
        )
    return "\n".join([*lines, _commands(found, "robopref run experiment=rapl seed=S out=DIR")])


def _film_row(seed: str, metrics: Mapping[str, Any]) -> str:
    one, shape = metrics["reward"], metrics["diagonality"]["diagonality"]
    keys = [f"{kind}spearman{arm}" for arm in ("", "_other_arm") for kind in ("", "rlhf_", "untaught_")]
    shown = [f"{one[k]:.2f} [{one[k + '_ci95'][0]:.2f}, {one[k + '_ci95'][1]:.2f}]" for k in keys]
    count = f"{one['held_out_films']} + {one['other_films']}"
    cells = [
        seed,
        one["triplets"],
        one["demonstrations"],
        count,
        *shown,
        f"{shape['best_third']:.2f}, {shape['worst_third']:.2f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def policies(experiment: str, title: str, found: Found, about: str = "task=TASK") -> str:
    """Success of every arm of an experiment that learns policies from stored episodes."""
    command = f"robopref run experiment={experiment} {about} seed=S out=DIR"
    if not found:
        return f"## {title}\n\n{EMPTY}: `{command}`\n"
    names = list(dict.fromkeys(name for one in found.values() for name in one["policies"]))
    lines = [
        f"## {title}\n",
        "Success on held-out resets with 95% intervals.\n",
        f"| task, seed | episodes | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for key, one in found.items():
        cells = [_rate(one["policies"][name]) if name in one["policies"] else EMPTY for name in names]
        episodes = max(p["episodes"] for p in one["policies"].values())
        lines.append(f"| {key.replace('-seed', ', ')} | {episodes} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _commands(found, command)])


def speed(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Ratios against named peers."""
    lines = [
        "## Speed\n",
        "Circumstances: [benchmarks.md](benchmarks.md).\n",
        "| row | ratio | target | ours | peer | command |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        if not rows:
            lines.append(f"| {name} | {EMPTY} | | | | `robopref bench {name} out=DIR` |")
        for row, one in rows.items():
            target = "none" if one["target"] is None else one["target"]
            lines.append(
                f"| {row} | {one['measured']} | {target} | {one['ours']} | {one['peer']} | `robopref bench {name} out=DIR` |"
            )
    return "\n".join([*lines, ""])


def _found(folder: Path) -> Found:
    return {path.parent.name: read_json(path) for path in sorted(folder.glob("*/metrics.json"))}


def _bench(path: Path) -> Mapping[str, Any]:
    made: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    return made


def _commands(found: Found, template: str) -> str:
    rows = [f"- `{one['command']}`" for one in found.values()] or [f"- `{template}`"]
    return "\n".join([*rows, ""])


def _between(text: str, begin: str, end: str) -> str:
    return text.partition(begin)[2].partition(end)[0]


def _points(one: Mapping[str, Any]) -> str:
    low, high = one["ci95"]
    return f"{100 * one['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _small(one: Mapping[str, Any]) -> str:
    low, high = one["ci95"]
    return f"{one['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _rate(one: Mapping[str, Any]) -> str:
    low, high = one["ci95"]
    return f"{one['success_rate']:.0%} [{low:.0%}, {high:.0%}]"


if __name__ == "__main__":
    main(sys.argv[1:])
