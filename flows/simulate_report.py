"""What a closed loop has shown: the table, the picture, the checks. Every line says that it is simulated.

Choices. Arms share shoppers and luck, so an arm's mean is compared day by day; differences are paired by session, with
a bootstrap interval. The share of the gap is (ours - popular) / (oracle - popular). Parts of the gain are sums over
the sessions (or items) that the part names, so that they add up with what is left.
Shapes: B sessions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flows.simulate import ARMS, Outcome
from flows.simulate_day import Visit, values

BANNER = "SIMULATED: shoppers, clicks and money come from the project's own generator, none of it from a real shop."
DRAWS = 2000


def table(outcome: Outcome) -> dict[str, Any]:
    """All figures as one document."""
    rows = []
    for at, day in enumerate(outcome.days):
        arms = {arm: values(outcome.visits[arm][at]) for arm in ARMS}
        ours, popular, oracle = arms["ours"], arms["popular"], arms["oracle"]
        mine = outcome.visits["ours"][at]
        gain = _difference(mine, outcome.visits["popular"][at])
        first, second = _two_pages(mine)
        rows.append(
            {
                "day": day,
                "value": {arm: round(float(found.mean()), 4) for arm, found in arms.items()},
                "sessions": {arm: int(found.size) for arm, found in arms.items()},
                "ours_minus_popular": gain,
                "ours_minus_frozen": _difference(mine, outcome.visits["frozen"][at]),
                "share_of_gap": round(
                    float(ours.mean() - popular.mean()) / max(1e-9, float(oracle.mean() - popular.mean())), 4
                ),
                "share_of_gap_to_popular_by_the_truth": round(
                    float(ours.mean() - arms["popular by the truth"].mean())
                    / max(1e-9, float(oracle.mean() - arms["popular by the truth"].mean())), 4,
                ),
                "first_page": round(first, 4),
                "second_page": round(second, 4),
                "fallbacks": sum(visit.fallbacks for visit in outcome.visits["ours"][at]),
            }
        )  # fmt: skip
    return {
        "simulated": True,
        "banner": BANNER,
        "days": rows,
        "gain": _parts(outcome),
        "nights": [vars(night) for night in outcome.nights],
        "checks": outcome.checks,
        "seconds": round(outcome.seconds, 1),
    }


def _difference(ours: list[Visit], others: list[Visit]) -> dict[str, float]:
    """Mean difference over the sessions that both arms met, paired, with a bootstrap interval of 95 %."""
    other = {visit.session_id: visit.value for visit in others}
    paired_N = np.array([v.value - other[v.session_id] for v in ours if v.session_id in other])
    rng = np.random.default_rng(0)
    means = [paired_N[rng.integers(paired_N.size, size=paired_N.size)].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "mean": round(float(paired_N.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4),
    }  # fmt: skip


def _two_pages(visits: list[Visit]) -> tuple[float, float]:
    """Mean value of the first and of the second page, of the sessions that had both."""
    both = [visit.pages[:2] for visit in visits if len(visit.pages) > 1]
    return (float("nan"),) * 2 if not both else tuple(np.array(both).mean(axis=0).tolist())  # type: ignore[return-value]


def _parts(outcome: Outcome) -> dict[str, float]:
    """Of the last day's gain over popular a session: what newcomers, new items and later pages bring."""
    ours, popular = outcome.visits["ours"][-1], outcome.visits["popular"][-1]

    def mean(visits: list[Visit], part: Any) -> float:
        return float(sum(part(visit) for visit in visits)) / max(1, len(visits))

    def gain(part: Any) -> float:
        return round(mean(ours, part) - mean(popular, part), 4)

    first_ours, second_ours = _two_pages(ours)
    first_popular, second_popular = _two_pages(popular)
    return {
        "all": gain(lambda visit: visit.value),
        "newcomers": gain(lambda visit: visit.value if visit.newcomer else 0.0),
        "items launched in the loop (ours alone)": round(mean(ours, lambda visit: visit.cold), 4),
        "pages after the first": gain(lambda visit: sum(visit.pages[1:])),
        "in-session adaptation, a second page": round((second_ours - second_popular) - (first_ours - first_popular), 4),
    }


def lines(told: dict[str, Any]) -> list[str]:
    """The table as words."""
    head = f"{'day':>4}" + "".join(f"{arm:>22}" for arm in ARMS) + f"{'share of gap':>14}{'page 1':>9}{'page 2':>9}"
    rows = [
        f"{row['day']:>4}" + "".join(f"{row['value'][arm]:>22.4f}" for arm in ARMS)
        + f"{row['share_of_gap']:>14.1%}{row['first_page']:>9.3f}{row['second_page']:>9.3f}"
        for row in told["days"]
    ]  # fmt: skip
    last = told["days"][-1]
    gain, aged = last["ours_minus_popular"], last["ours_minus_frozen"]
    nights = [
        f"  night {night['day']}: {night['seconds']:.0f} s, "
        + (f"planted: {night['planted']}, " if night["planted"] else "")
        + ("promoted" if night["promoted"] else f"{night['verdict']}: {'; '.join(night['reasons'])[:400]}")
        for night in told["nights"]
    ]
    return [
        BANNER, "", "value per session in GBP (exact expectation of the pages shown)", head, *rows, "",
        f"last day, ours - popular {gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]; "
        f"ours - frozen {aged['mean']:+.4f} [{aged['low']:+.4f}, {aged['high']:+.4f}]; share of the gap from the "
        f"popular page that the truth knows: {last['share_of_gap_to_popular_by_the_truth']:.1%}",
        "parts of the last day's gain a session: "
        + ", ".join(f"{name} {value:+.4f}" for name, value in told["gain"].items()),
        *(f"check: {name}: {value}" for name, value in told["checks"].items()),
        "nights:", *nights, f"{told['seconds']:.0f} s",
    ]  # fmt: skip


def picture(told: dict[str, Any], path: Path) -> None:
    """Value per session by day, a line an arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9.5, 4.5))
    days = [row["day"] for row in told["days"]]
    for arm in ARMS:
        axes.plot(
            days, [row["value"][arm] for row in told["days"]], marker="o", label=arm, lw=3 if arm == "ours" else 1
        )
    axes.set(xlabel="day", ylabel="GBP a session (expected)", title="Closed loop, SIMULATED shoppers")
    axes.set_xticks(days)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)  # beside the lines, never over them
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
