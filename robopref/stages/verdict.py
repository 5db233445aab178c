"""What a run proves, in sentences: the gain, and first of all whether the preference term had a part in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robopref.statistics import paired_bootstrap, paired_test

WHO = {
    "base": "the policy before any question was asked",
    "cloned": "cloned for as long again, no preferences used",
    "filtered": "cloned on the preferred trajectories only",
    "plain_dpo": "DPO as published: no anchor, no guard",
    "diffusion_cpl": "contrastive preference learning on denoising errors, as published",
    "fkpd": "forward KL to the data instead of a reference, as published",
    "mapo": "margins of one network's errors without a reference, as published",
    "aligned_no_pairs": "the aligned run with the preference term switched off",
    "aligned": "fine-tuned on the comparisons",
}
"""What the usual policies of a run are, in the order in which they are shown."""


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two policies on shared resets; rates between 0 and 1."""

    a: str
    b: str
    difference: float
    lo: float
    hi: float
    p: float

    @property
    def reading(self) -> str:
        """What the interval says about `a`."""
        return "better" if self.lo > 0 else "worse" if self.hi < 0 else "not told apart"


@dataclass(frozen=True)
class Verdict:
    """What the reader sees first."""

    tone: str
    """`good`, `bad` or `open`."""
    headline: str
    detail: str
    first: tuple[str, ...]
    """What must be said before the headline."""


def shown_order(names: Mapping[str, Any]) -> list[str]:
    """Policies in reading order: the known ones as in `WHO`, others before `aligned`."""
    known = list(WHO)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known) - 1.5, name))


def comparisons(metrics: Mapping[str, Any], success: Mapping[str, list[float]]) -> list[Comparison]:
    """The run's own tests, and from the outcomes per reset those of `aligned` that it lacks; `aligned` first."""
    tests = [
        Comparison(t["a"], t["b"], t["difference"], t["ci95"][0], t["ci95"][1], t["p_value"])
        for t in metrics.get("tests", [])
        if t["a"] != t["b"]
    ]
    # A test of (base, aligned) is read as one of (aligned, base), so that each comparison has one direction.
    tests = [Comparison(t.b, t.a, -t.difference, -t.hi, -t.lo, t.p) if t.b == "aligned" else t for t in tests]
    have = {(t.a, t.b) for t in tests}
    for name in success:
        if "aligned" in success and name != "aligned" and ("aligned", name) not in have:
            a, b = success["aligned"], success[name]
            tests.append(Comparison("aligned", name, *paired_bootstrap(a, b), paired_test(a, b)))
    order = shown_order({t.b: None for t in tests} | {t.a: None for t in tests})
    return sorted(tests, key=lambda t: (t.a != "aligned", order.index(t.a), order.index(t.b)))


def verdict(metrics: Mapping[str, Any], tests: list[Comparison]) -> Verdict:
    """Headline, detail, and what has to come before them."""
    policies: Mapping[str, Any] = metrics["policies"]
    against = {t.b: t for t in tests if t.a == "aligned"}
    gain = against.get("base")
    if gain is None:
        rates = ", ".join(f"{name} {percent(policies[name]['success_rate'])}" for name in shown_order(policies))
        return Verdict("open", "Nothing was compared with the base policy.", f"Success: {rates}.", ())
    before, after = policies["base"]["success_rate"], policies["aligned"]["success_rate"]
    tone = "good" if gain.lo > 0 and gain.p < 0.05 else "bad" if gain.hi < 0 and gain.p < 0.05 else "open"
    headline = {
        "good": f"Success rose from {percent(before)} to {percent(after)}.",
        "open": f"No gain is proven: {percent(before)} before, {percent(after)} after.",
        "bad": f"The policy got worse: {percent(before)} before, {percent(after)} after.",
    }[tone]
    labels, judged = metrics.get("labels_asked", 0), metrics.get("episodes_judged", 0)
    detail = (
        f"{points(gain.difference)} points on {policies['aligned']['episodes']} held-out resets that both policies share "
        f"(95% interval {interval(gain)}, {p_value(gain.p)}), from {labels} labels"
        + (f" and {judged} episodes judged by success." if judged else ".")
    )
    return Verdict(tone, headline, detail, tuple(_first(against, policies)))


def _first(against: Mapping[str, Comparison], policies: Mapping[str, Any]) -> list[str]:
    """What would make the headline misleading if it stood alone."""
    said = []
    ablation = against.get("aligned_no_pairs")
    if ablation is None:
        said.append(
            "The run with the preference term off (aligned_no_pairs) was not evaluated, so nothing here shows that the "
            "preference term caused the gain."
        )
    elif ablation.lo <= 0:
        rates = [percent(policies[name]["success_rate"]) for name in ("aligned", "aligned_no_pairs")]
        effect = "makes the result worse" if ablation.hi < 0 else "is not shown to add anything"
        said.append(
            f"The preference term {effect}: the same run with it off reaches {rates[1]}, with it on {rates[0]} "
            f"(difference {points(ablation.difference)} points, 95% interval {interval(ablation)}). "
            "The gain must not be credited to aligning by pairs."
        )
    for name, test in against.items():
        if name not in ("base", "aligned_no_pairs") and test.hi < 0:
            said.append(
                f"The baseline {name} is better than aligned: {points(-test.difference)} points "
                f"(95% interval {points(-test.hi)} to {points(-test.lo)})."
            )
    return said


def percent(rate: float) -> str:
    """0.425 -> `42.5%`, 0.42 -> `42%`."""
    return f"{_short(100 * rate)}%"


def points(difference: float) -> str:
    """0.36 -> `+36`, with a true minus sign."""
    text = _short(100 * difference)
    return text.replace("-", "−") if text.startswith("-") else f"+{text}" if text != "0" else "0"


def interval(test: Comparison) -> str:
    """`+24 to +47`, in points."""
    return f"{points(test.lo)} to {points(test.hi)}"


def p_value(p: float) -> str:
    """`p = 0.013`, `p < 0.0001`."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def rates(bounds: Sequence[float]) -> str:
    """(0.31, 0.5) -> `31 to 50%`."""
    return f"{round(100 * bounds[0])} to {percent(round(bounds[1], 2))}"


def _short(value: float) -> str:
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
