"""Run folders as the pipeline leaves them, made in milliseconds: known success rates, curves, pairs, pictures, films."""

import json
from pathlib import Path

import av
import numpy as np

from robopref.statistics import paired_bootstrap, paired_test, wilson

RATES = {"base": 0.42, "cloned": 0.44, "filtered": 0.55, "plain_dpo": 0.08, "aligned_no_pairs": 0.5, "aligned": 0.81}


def outcomes(rates, episodes, seed):
    """Success per policy on shared resets: a hard reset is hard for everyone, as in real evaluations."""
    generator = np.random.default_rng(seed)
    hardness = generator.random(episodes)
    return {
        name: [
            int(x)
            for x in (0.6 * hardness + 0.4 * generator.random(episodes)) < np.quantile(hardness, rate) * 0.6 + 0.2
        ]
        for name, rate in rates.items()
    }


def make_run(path, task="drawer-open-v3", seed=1, rates=None, episodes=100, films=False, **changed):
    """Write a run folder and return its path; `changed` replaces keys of metrics.json."""
    path = Path(path)
    (path / "evaluation").mkdir(parents=True)
    success = outcomes(RATES if rates is None else rates, episodes, seed)
    length = {name: [200 if x else 500 for x in values] for name, values in success.items()}
    returns = {name: [1000.0 * x + 10 for x in values] for name, values in success.items()}
    resets = list(range(30_000, 30_000 + episodes))
    shared = {"seeds": resets, "success": success, "return": returns, "length": length}
    (path / "evaluation" / "outcomes.json").write_text(json.dumps(shared))
    others = [name for name in success if name != "aligned"] if "aligned" in success else []
    metrics = {
        "task": task,
        "seed": seed,
        "experiment": "align_metaworld",
        "command": f"robopref run experiment=align_metaworld task={task} seed={seed} out=runs/{task}",
        "labels_asked": 60,
        "episodes_judged": 120,
        "policies": {name: _policy(values, returns[name], length[name]) for name, values in success.items()},
        "tests": [
            *(_test(name, "base", success) for name in others if name != "base"),
            *(_test("aligned", name, success) for name in others),
        ],
        "seconds": {"collect": 41.2, "pretrain": 75.9, "label": 0.4, "reward": 22.0, "align": 160.3, "evaluate": 88.1},
        "base_search": [
            {"level": level, "success_rate": rate, "episodes": 30, "in_band": rate < 0.6}
            for level, rate in ((0.2, 0.93), (0.4, 0.7), (0.6, 0.43))
        ],
        "guard": [
            _guard(1, True, "success rose on the guard's resets", 0.43, 0.6),
            _guard(2, False, "winners became less likely while pair accuracy rose; step size halved", 0.6, 0.35),
            _guard(3, True, "success rose on the guard's resets", 0.6, 0.79),
        ],
        "notes": ["demonstrations: scripted expert with action noise"],
    }
    (path / "metrics.json").write_text(json.dumps(metrics | changed))
    _log(path)
    _pairs(path, task)
    if films:
        (path / "videos").mkdir()
        for reset in resets[:3]:
            for name, hue in (("base", 0), ("aligned", 1)):
                film(path / "videos" / f"{name}_{reset}.mp4", hue)
    return path


def _policy(success, returns, length):
    n = len(success)
    interval = list(wilson(sum(success), n))
    mean = float(np.mean(returns)), float(np.mean(length))
    return {"success_rate": sum(success) / n, "ci95": interval, "episodes": n, "return": mean[0], "length": mean[1]}


def _test(a, b, success):
    difference, lo, hi = paired_bootstrap(success[a], success[b])
    p = paired_test(success[a], success[b])
    return {"a": a, "b": b, "difference": difference, "ci95": [lo, hi], "p_value": p}


def _guard(number, accepted, reason, before, after):
    return {"round": number, "accepted": accepted, "reason": reason, "success_before": before, "success_after": after}


def _log(path):
    generator = np.random.default_rng(0)
    lines = [
        {"stage": "pretrain", "arm": "base", "round": 0, "step": step, "clone/loss": float(np.exp(-step / 300) + 0.1)}
        for step in range(0, 2000, 20)
    ]
    for number in (1, 2, 3):
        for step in range(0, 300, 3):
            t = (number - 1) + step / 300
            noise = generator.normal(0, 0.15, 2)
            lines.append({
                "stage": "align", "arm": "aligned", "round": number, "step": step,
                "align/loss": float(0.69 * np.exp(-t / 2) + 0.03 * noise[0]),
                "align/rho_winner": float(0.5 * (t % 1) + noise[0] / 3), "align/rho_loser": float(-1.1 * (t % 1) + noise[1] / 3),
                "align/pair_accuracy": float(np.clip(0.5 + 0.15 * t + 0.1 * noise[0], 0, 1)),
            })  # fmt: skip
            if step % 60 == 30:
                lines.append({
                    "stage": "align", "arm": "aligned", "round": number, "step": step,
                    "guard/rho_winner": 0.3 * (t % 1), "guard/rho_loser": -0.6 * (t % 1), "guard/pair_accuracy": 0.5 + 0.1 * t,
                })  # fmt: skip
        lines.append(
            {"stage": "reward", "arm": "aligned", "round": number, "step": 200, "reward/accuracy": 0.7 + 0.05 * number}
        )
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _pairs(path, task):
    (path / "thumbs").mkdir()
    pairs = []
    for index in range(8):
        for side in ("first", "second"):
            _picture(path / "thumbs" / f"{index}_{side}.png", index + (side == "first"))
        sides = {
            side: {"store": "round_1", "episode": 2 * index + k, "task": task, "seed": 100 + index}
            for k, side in enumerate(("first", "second"))
        }
        thumbs = {f"{side}_thumb": f"thumbs/{index}_{side}.png" for side in sides}
        pairs.append({"round": 1 + index // 3, **sides, "prob_first": [1.0, 0.0, 0.5, None][index % 4], **thumbs})
    (path / "pairs.json").write_text(json.dumps(pairs))


def _image(phase, hue, size=128):
    y, x = np.mgrid[0:size, 0:size] / size
    ball = ((x - 0.5 - 0.3 * np.cos(phase)) ** 2 + (y - 0.5 - 0.3 * np.sin(phase)) ** 2) < 0.012
    picture = np.stack([180 + 40 * y, 190 + 30 * x, 200 + 0 * x], -1)
    picture[ball] = [(200, 80, 60), (30, 130, 100)][hue % 2]
    return picture.astype(np.uint8)


def _picture(path, phase):
    from matplotlib.image import imsave

    imsave(path, _image(phase, 1))


def film(path, hue, frames=40):
    """A short H.264 film of a moving ball."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for t in range(frames):
            frame = av.VideoFrame.from_ndarray(_image(t / 6, hue), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
