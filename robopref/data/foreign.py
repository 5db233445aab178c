"""Readers of other projects' preference files. Each turns its label code into `prob_first` at the door.

| format | code | prob_first |
|---|---|---|
| CPL npz (Hejna et al. 2024) | score per segment, pair = i and i + N / 2 | 1 where the first scores higher, 0.5 where equal |
| IPL npz (Hejna and Sadigh 2023) | `label`: 1 = second, 0.5 = tie; shares of several raters lie between | 1 - label |
| Preference Transformer, Uni-RLHF triples | 0 = first, 1 = second, -1 = tie; two columns: P(first), P(second) | 1 - label, 0.5; column 0 |
| LiRE text (Choi et al. 2024) | `i j c`: 1 = first, 2 = tie, 3 = second | 1, 0.5, 0 |
| LiRE lists | one `[i, j]` tie group a line, worst first | later groups win |
"""

from __future__ import annotations

import ast
import re
import zipfile
from pathlib import Path

import numpy as np

from robopref.arrays import InputError
from robopref.data.comparisons import Comparisons
from robopref.data.restricted import read_array

IPL_KEYS = ("obs_1", "obs_2", "action_1", "action_2", "label")
CPL_KEYS = ("obs", "action")
LIRE_CODES = {1: 1.0, 2: 0.5, 3: 0.0}


def read_npz(path: Path, score: str = "rl_sum") -> Comparisons:
    """A CPL or IPL file, told apart by its keys. Raises `InputError` for any other file."""
    keys, arrays = _open_npz(Path(path))
    if set(IPL_KEYS) <= set(keys):
        return _ipl(Path(path), arrays)
    if set(CPL_KEYS) <= set(keys):
        return _cpl(Path(path), arrays, score)
    raise InputError(
        f"{path}: got the keys {', '.join(sorted(keys)[:8])}, wanted {', '.join(IPL_KEYS)} (IPL) or "
        f"{', '.join(CPL_KEYS)} and a score (CPL)."
    )


def read_triples(folder: Path, observation: np.ndarray, action: np.ndarray, length: int | None = None) -> Comparisons:
    """Index-and-label files of Preference Transformer or Uni-RLHF, into flat arrays (M, D) and (M, A).

    Files are told apart by name: `indices_2*` is the second side, another `indices*` the first, `*label*` the labels. length: steps
    of a segment; None: the number after `_q` in a file's name.
    """
    folder = Path(folder)
    second, first, labels = _triple(folder)
    starts = [read_array(path).astype(np.int64).reshape(-1) for path in (first, second)]
    prob_first = _triple_labels(labels, read_array(labels))
    if length is None:
        named = re.search(r"_q(\d+)", first.name)
        if named is None:
            raise InputError(f"{first}: got no length in the name (…_q100), wanted one. Say length=STEPS.")
        length = int(named.group(1))
    if not len(starts[0]) == len(starts[1]) == len(prob_first):
        raise InputError(
            f"{folder}: got {len(starts[0])} first, {len(starts[1])} second and {len(prob_first)} labels, wanted as many of each."
        )
    last = len(observation) - length
    if (
        len(action) != len(observation)
        or min(map(int, map(np.min, starts))) < 0
        or max(map(int, map(np.max, starts))) > last
    ):
        raise InputError(
            f"{folder}: got starts beyond the data ({len(observation)} observations, {len(action)} actions, segments of "
            f"{length}), wanted the data set they were drawn from."
        )
    at = [s[:, None] + np.arange(length) for s in starts]
    seen, done = np.asarray(observation, np.float32), np.asarray(action, np.float32)
    return Comparisons(seen[at[0]], done[at[0]], seen[at[1]], done[at[1]], prob_first)


def read_lire(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Segment indices (N, 2) and prob_first (N,) of a LiRE text file: `i j c` lines, or a ranked list of tie groups."""
    path = Path(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise InputError(f"{path}: got no such file, wanted a LiRE text file. Check the path.") from error
    if not lines:
        raise InputError(f"{path}: got an empty file, wanted lines of `i j c` or of `[i, j]`.")
    if lines[0].startswith("["):
        groups = [_group(path, number, line) for number, line in enumerate(lines, 1)]
        return pairs_of_list(groups)
    rows = [_lire_line(path, number, line) for number, line in enumerate(lines, 1)]
    return np.array([(i, j) for i, j, _ in rows]), np.array([p for _, _, p in rows])


def pairs_of_list(groups: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Every pair that a ranked list of tie groups (worst first) implies: indices (N, 2) and prob_first (N,)."""
    flat = [(segment, rank) for rank, group in enumerate(groups) for segment in group]
    pairs = [(a, b) for k, a in enumerate(flat) for b in flat[k + 1 :]]
    index = np.array([(a[0], b[0]) for a, b in pairs], dtype=np.int64).reshape(-1, 2)
    return index, np.array([0.5 + 0.5 * np.sign(a[1] - b[1]) for a, b in pairs], dtype=np.float64)


def _open_npz(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = list(file.files)
            wanted = [k for k in keys if k in (*IPL_KEYS, *CPL_KEYS, "reward") or k.startswith("rl_")]
            return keys, {key: file[key] for key in wanted}
    except FileNotFoundError as error:
        raise InputError(f"{path}: got no such file, wanted an npz file of comparisons. Check the path.") from error
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: got no readable npz file of plain arrays ({error}), wanted one.") from error


def _ipl(path: Path, arrays: dict[str, np.ndarray]) -> Comparisons:
    label = arrays["label"].astype(np.float64).reshape(-1)
    if not ((label >= 0) & (label <= 1)).all():
        raise InputError(
            f"{path}: got labels {np.unique(label)[:5]}, wanted 0 (first), 0.5 (tie), 1 (second) or between."
        )
    one, done, two, acted = (arrays[k].astype(np.float32) for k in ("obs_1", "action_1", "obs_2", "action_2"))
    return Comparisons(one, done, two, acted, 1.0 - label)


def _cpl(path: Path, arrays: dict[str, np.ndarray], score: str) -> Comparisons:
    if score not in arrays:
        known = ", ".join(k for k in arrays if k.startswith("rl_")) or "none"
        raise InputError(f"{path}: got no score {score!r}, wanted one of {known}.")
    half = len(arrays["obs"]) // 2
    if half == 0:
        raise InputError(f"{path}: got {len(arrays['obs'])} segments, wanted at least two.")
    value = arrays[score].astype(np.float64)
    value = value.sum(axis=1) if value.ndim == 2 else value
    first, second = (slice(0, half), slice(half, 2 * half))
    prob_first = 0.5 + 0.5 * np.sign(value[first] - value[second])
    seen, done = (arrays[k].astype(np.float32) for k in CPL_KEYS)
    return Comparisons(seen[first], done[first], seen[second], done[second], prob_first)


def _triple(folder: Path) -> tuple[Path, Path, Path]:
    """The files of the second side, the first side and the labels. A sorted listing would exchange the sides."""
    if not folder.is_dir():
        raise InputError(f"{folder}: got no such folder, wanted one with indices and label files.")
    files = [p for p in sorted(folder.iterdir()) if p.is_file()]
    second = [p for p in files if re.match(r"indices_2(_|\.|$)", p.name)]
    first = [p for p in files if p.name.startswith("indices") and p not in second]
    labels = [p for p in files if "label" in p.name and not p.name.startswith("indices")]
    human = [p for p in labels if "human" in p.name]
    labels = human or labels
    if not len(first) == len(second) == len(labels) == 1:
        raise InputError(
            f"{folder}: got {len(first)} first, {len(second)} second and {len(labels)} label files, wanted one of each "
            "(indices_*, indices_2_*, *label*). Keep one set per folder."
        )
    return second[0], first[0], labels[0]


def _triple_labels(path: Path, label: np.ndarray) -> np.ndarray:
    """Codes of Preference Transformer as prob_first; two columns hold P(first) and P(second)."""
    if label.ndim == 2 and label.shape[1] == 2:
        return label[:, 0].astype(np.float64)
    flat = label.astype(np.float64).reshape(-1)
    if not np.isin(flat, (0.0, 1.0, -1.0)).all():
        raise InputError(f"{path}: got labels {np.unique(flat)[:5]}, wanted 0 (first), 1 (second) and -1 (tie).")
    return np.where(flat == -1, 0.5, 1.0 - flat)


def _lire_line(path: Path, number: int, line: str) -> tuple[int, int, float]:
    words = line.split()
    if len(words) != 3 or not all(re.fullmatch(r"\d+", w) for w in words) or int(words[2]) not in LIRE_CODES:
        raise InputError(f"{path}:{number}: got {line[:60]!r}, wanted `i j c` with c 1 (first), 2 (tie) or 3 (second).")
    return int(words[0]), int(words[1]), LIRE_CODES[int(words[2])]


def _group(path: Path, number: int, line: str) -> list[int]:
    try:
        group = ast.literal_eval(line)
    except (ValueError, SyntaxError) as error:
        raise InputError(f"{path}:{number}: got {line[:60]!r}, wanted a tie group like [3, 7].") from error
    if not isinstance(group, list) or not group or not all(isinstance(i, int) for i in group):
        raise InputError(f"{path}:{number}: got {line[:60]!r}, wanted a tie group of whole numbers like [3, 7].")
    return group
