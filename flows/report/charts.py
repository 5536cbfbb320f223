"""The report's pictures: static SVG, written by hand.

Choices. Every picture here is lines and dots on one scale, so a chart library would cost a second, fonts and ten times
the bytes; plain SVG takes its colours from the page's style sheet, hence dark mode and print for free, and the same
numbers give the same bytes. Each picture says its content in words (`aria-label`) for those who do not see it; the
numbers stand beside it in a table or a sentence. Coordinates are rounded to a tenth of a unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


def _svg(width: float, height: float, label: str, body: Sequence[str], kind: str) -> Markup:
    head = f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img"'
    # Only numbers and escaped words reach `body`.
    return Markup(f'{head} aria-label="{escape(label)}">{"".join(body)}</svg>')  # noqa: S704


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "t") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, radius: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


@dataclass(frozen=True)
class Bar:
    """A difference with its interval, and the margin that its lower end has to clear (None: no margin)."""

    mean: float
    low: float
    high: float
    margin: float | None = None


def interval_bar(bar: Bar, span: float, verdict: str) -> Markup:
    """One bar on a scale from -span to +span; `span` is shared by a table, so that its bars compare.

    A mean beyond the scale is an arrow at its end: one far rival must not press all others into a dot.
    """
    width, height, middle = 150.0, 22.0, 11.0

    def at(value: float) -> float:
        return width / 2 + max(-1.0, min(1.0, value / span)) * (width / 2 - 8)

    kind = {"pass": "good", "refuse": "bad", "cannot tell": "unsure"}.get(verdict, "plain")
    body = [_line(width / 2, 2, width / 2, height - 2, "zero")]
    if bar.margin is not None and bar.margin != 0:
        body.append(_line(at(bar.margin), 2, at(bar.margin), height - 2, "margin"))
    if abs(bar.mean) > span:
        tip, back = (width - 2, width - 12) if bar.mean > 0 else (2, 12)
        body.append(_line(width / 2, middle, back, middle, f"far {kind}"))
        body.append(f'<path class="dot {kind}" d="M{tip:g} {middle:g}L{back:g} {middle - 5:g}V{middle + 5:g}Z"/>')
    else:
        body += [_line(at(bar.low), middle, at(bar.high), middle, f"range {kind}")]
        body += [_line(at(end), middle - 4, at(end), middle + 4, f"range {kind}") for end in (bar.low, bar.high)]
        body.append(_dot(at(bar.mean), middle, 3.5, f"dot {kind}"))
    margin = "" if bar.margin is None else f", margin {bar.margin:+.3f}"
    label = f"difference {bar.mean:+.4f}, interval {bar.low:+.4f} to {bar.high:+.4f}{margin}"
    return _svg(width, height, label, body, "bar")


def curve(values: Sequence[float], title: str, best: int, stopped_early: bool) -> Markup:
    """Values by epoch (from 1), the chosen epoch marked; best 0: none is marked."""
    width, height, left, right, top, bottom = 320.0, 170.0, 58.0, 12.0, 26.0, 28.0
    low, high = min(values), max(values)
    room = (high - low) or max(abs(high), 1.0)

    def x(epoch: int) -> float:
        return left + (epoch - 1) / max(len(values) - 1, 1) * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - low) / room * (height - top - bottom)

    points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(values, start=1))
    body = [_text(0, 14, title, kind="t strong")]
    body += [_line(left, y(value), width - right, y(value), "grid") for value in (low, high)]
    body += [_text(left - 5, y(value) + 4, f"{value:.4g}", "end") for value in sorted({low, high})]
    body.append(f'<polyline class="curve" points="{points}"/>')
    body += [_dot(x(at), y(value), 2.5, "point") for at, value in enumerate(values, start=1)]
    body += [_text(x(at), height - 10, str(at), "middle") for at in sorted({1, len(values)})]
    body.append(_text((left + width - right) / 2, height - 10, "epoch", "middle"))
    told = ""
    if 1 <= best <= len(values):
        body.append(_dot(x(best), y(values[best - 1]), 6, "ring"))
        told = f"; epoch {best} of {len(values)} was chosen" + (", training stopped early" if stopped_early else "")
    label = f"{title} by epoch: {', '.join(f'{value:.4g}' for value in values)}{told}"
    return _svg(width, height, label, body, "chart")


def volume(rows_by_day: Mapping[str, int]) -> Markup:
    """Rows of events a day, in the order of days; days without a row are gaps in the list, not in the picture."""
    width, height, bottom = 660.0, 110.0, 20.0
    days = sorted(rows_by_day)
    most = max(rows_by_day.values())
    step = width / len(days)
    parts = []
    for at, day in enumerate(days):
        tall = rows_by_day[day] / most * (height - bottom - 14)
        parts.append(f"M{(at + 0.5) * step:.1f} {height - bottom:.1f}v-{tall:.1f}")
    path = f'<path class="bars" stroke-width="{max(step * 0.75, 0.6):.2f}" d="{"".join(parts)}"/>'
    body = [path, _text(0, height - 5, days[0]), _text(width, height - 5, days[-1], "end")]
    body.append(_text(0, 10, f"most: {most:,} rows"))
    label = f"rows of events a day over {len(days)} days with rows, {days[0]} to {days[-1]}; at most {most:,}"
    return _svg(width, height, label, body, "chart wide")


def windows(parts: Sequence[tuple[str, str, str, float]]) -> Markup:
    """The split of time: (name, from, until, share of the whole)."""
    width, height = 660.0, 64.0
    body, x = [], 0.0
    for number, (name, start, _, share) in enumerate(parts):
        wide = share * width
        body.append(f'<rect class="w{number}" x="{x:.1f}" y="20" width="{wide:.1f}" height="18"/>')
        x += wide
        # Slices are narrow beside the years before them: every second label goes below, none runs into another.
        where, anchor = (0.0, "start") if number == 0 else (x, "end")
        body.append(_text(where, 54 if number % 2 else 14, f"{name} {start}", anchor))
    label = "; ".join(f"{name}: {start} to {end}" for name, start, end, _ in parts)
    return _svg(width, height, label, body, "chart wide")


def calibration(bins: Sequence[Mapping[str, float]]) -> Markup:
    """Told probability against what happened, one dot a bin; `predicted`, `observed` in [0, 1], `rows`."""
    size, margin = 230.0, 36.0
    most = max([0.01, *(max(one["predicted"], one["observed"]) for one in bins)])

    def at(value: float) -> float:
        return value / most * (size - margin - 12)

    body = [_line(margin, size - margin, size - 12, 12, "zero")]
    body += [_dot(margin + at(one["predicted"]), size - margin - at(one["observed"]), 4, "point") for one in bins]
    body += [_text(margin, size - 18, "0"), _text(size - 4, size - 18, f"{most:.2g} told", "end")]
    body += [_text(4, 12, f"{most:.2g} taken"), _text(margin - 6, size - margin, "0", "end")]
    pairs = ", ".join(f"{one['predicted']:.3f}: {one['observed']:.3f}" for one in bins)
    return _svg(size, size, f"told probability and the share that was taken, by bin: {pairs}", body, "chart")
