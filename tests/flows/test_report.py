"""What a reviewer gets: a page to decide from, true to the run's artifacts, safe to open, the same bytes twice."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from features.errors import ArtifactError
from flows.paths import Artifacts, Home
from flows.registry import Registry
from flows.report import charts
from flows.report.build import RunFacts, markdown, summary_lines, write_report
from flows.report.compare import compare, lines, write_comparison

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = '<script>alert("x")</script>|[a](javascript:b)'
METRICS = ("ndcg@10", "recall@10", "new_ndcg@10", "hit_rate@10", "precision@10", "mrr@10", "map@10")
RUN = RunFacts(
    run="r-1",
    started_at="2026-01-05T03:00:00Z",
    by="ana",
    why="weekly <b>",
    commit="abc123",
    costs={"import": {"seconds": 8.25, "peak_mb": 400.0}, "train_ranker": {"seconds": 91.0, "peak_mb": 2400.0}},
    smoke={"ready_s": 7.5},
    total_seconds=120.0,
)


def value(mean: float, half: float = 0.01, users: int = 300) -> dict[str, Any]:
    return {"mean": mean, "low": round(mean - half, 6), "high": round(mean + half, 6), "users": users}


def model(score: float, minus: float) -> dict[str, Any]:
    metrics, less = {name: value(score) for name in METRICS}, {name: value(minus) for name in METRICS}
    return {"metrics": metrics, "challenger_minus": less, "coverage": 0.3, "gini": 0.9}


def check(rule: str, verdict: str = "pass", mean: float | None = None, limit: str = "lower bound > +0.000") -> Any:
    low, high = (None, None) if mean is None else (mean - 0.01, mean + 0.01)
    observed = "300" if mean is None else f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
    if rule.startswith("segment") and mean is not None:
        observed += " against own_counts, 150 users"
    return {"rule": rule, "limit": limit, "observed": observed, "verdict": verdict, "low": low, "high": high}


def counts(rows: int, **reasons: int) -> dict[str, Any]:
    return {"rows_in": rows, "rows_out": rows - sum(reasons.values()), "merged": 0, "quarantined": reasons}


def documents() -> dict[str, Any]:
    """Every JSON artifact that the report reads, small, as the stages write them; any change is the test's own."""
    told: dict[str, Any] = json.loads(Path(__file__).with_name("report_artifacts.json").read_text())
    return told


def write(root: Path, told: dict[str, Any]) -> Artifacts:
    for name, document in told.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    return Artifacts(root)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return write(tmp_path / "artifacts", documents())


def refused(root: Path) -> Artifacts:
    told = documents()
    lost = check("NDCG@10 against own_counts", "cannot tell", mean=0.004)
    told["verdict.json"] |= {"verdict": "cannot tell", "reasons": ["NDCG@10 against own_counts: +0.0040"]}
    told["verdict.json"]["checks"][1] = lost
    return write(root, told)


class Reader(HTMLParser):
    """Tags, headings and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_what_the_artifacts_say(artifacts: Artifacts, tmp_path: Path) -> None:
    page = write_report(artifacts, tmp_path / "out", run=RUN).read_text()
    text = " ".join(Reader(page).text.split())
    for told in (
        "Pass, as a first model (there is no champion; the yardsticks decided): all 6 rules",
        "May this model become the first champion",
        "0.300 [0.290, 0.310]",
        "DOES NOT beat LightGBM on the same features, it is worse",
        "clicks, the effect of a position and the page policy cannot be learned",
        "No policy was learned and no off-policy estimate was made",
        "35 set aside with a reason",
        "epoch 2 of 3, stopped early",
        "homeranker promote r-1",
        "abc123",
        "9 of 11 stages came from the cache",
        "Freshness was not judged",
        "What it adds alone was not measured",
    ):
        assert told in text
    assert text.index("new people") < text.index("old people", text.index("Segments, worst first"))
    assert re.search(r"none: there is no lock file", text)


def test_where_a_page_policy_was_proved_the_lists_of_next_visits_do_not_decide(tmp_path: Path) -> None:
    told, value = documents(), {"mean": 0.4, "low": 0.3, "high": 0.5, "n": 900}
    judged = {
        "verdict": "cannot tell", "reasons": ["too little evidence: 900 pages"], "logging": value, "target": value,
        "difference": value, "lower_bound": None, "diagnostics": {"pages": 900.0}, "faults": [],
    }  # fmt: skip
    order = judged | {"verdict": "pass", "reasons": ["difference +0.0345; surely above 0"], "lower_bound": 0.008}
    told["policy/policy.json"] |= {
        "learned": True, "why": "learned from impressions", "proof": judged, "against": order, "rival": "served",
        "worth": {"base": 0.03, "slope": 0.02, "staying": 0.0},
    }  # fmt: skip
    page = write_report(write(tmp_path / "artifacts", told), tmp_path / "out", run=RUN).read_text()
    text = " ".join(Reader(page).text.split())
    for said in (
        "Pass, as a first model (there is no champion; the off-policy proof decided): all 6 rules",
        "Order of what was shown against the one it was served in: pass, difference +0.0345; surely above 0.",
        "Told, not judged, since what is clicked next follows what was shown: on the next visits",
        "In lists of next visits, which do not decide here, it is behind LightGBM",
        "no row compares with one, and the off-policy proof decides.",
        "The two verdicts share one error of 5 %.",
    ):
        assert said in text, said
    assert "DOES NOT beat" not in text


def test_what_failed_stands_first_and_nothing_is_offered_for_promotion(tmp_path: Path) -> None:
    artifacts = refused(tmp_path / "artifacts")
    page = write_report(artifacts, tmp_path / "out", run=RUN).read_text()
    text = Reader(page).text
    assert "Cannot tell, which is a refusal: 1 of 6 rules" in text
    assert "homeranker promote" not in text
    rows = page[page.index("Every rule of the gate") :]
    assert rows.index("NDCG@10 against own_counts") < rows.index("NDCG@10 against popular")
    assert 'class="undecided"' in rows
    assert "homeranker promote" not in "\n".join(summary_lines(artifacts, RUN))


def test_to_run_again_is_to_run_on_the_same_data(tmp_path: Path) -> None:
    """The bare command would train on the shipped data."""
    artifacts = refused(tmp_path / "artifacts")
    for run, said in (
        (RUN, "homeranker retrain"),
        (
            replace(RUN, data="my tables", until="2026-01-04"),
            "homeranker retrain --data 'my tables' --until 2026-01-04",
        ),
    ):
        write_report(artifacts, tmp_path / "out", run=run)
        assert f"corrected: `{said}`" in (tmp_path / "out" / "report.md").read_text()


def test_the_same_artifacts_give_the_same_bytes_and_no_clock(artifacts: Artifacts, tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    write_report(artifacts, first)
    write_report(artifacts, second)
    for name in ("report.json", "report.html", "report.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    page = (first / "report.html").read_text()
    assert "Seconds and memory: see the run's own report" in Reader(page).text
    assert str(tmp_path) not in page + (first / "report.json").read_text()
    assert json.loads((first / "report.json").read_text())["run"] is None


def test_the_page_is_whole_in_itself_and_small(artifacts: Artifacts, tmp_path: Path) -> None:
    page = write_report(artifacts, tmp_path / "out", run=RUN)
    text = page.read_text()
    assert page.stat().st_size < 1_500_000
    assert "://" not in text and "@import" not in text and "url(" not in text
    used = {tag for tag, _ in Reader(text).tags}
    assert not used & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert all(attrs["href"] and attrs["href"].startswith("#") for tag, attrs in Reader(text).tags if tag == "a")


def test_a_title_stays_text(artifacts: Artifacts, tmp_path: Path) -> None:
    page = write_report(artifacts, tmp_path / "out", run=RUN)
    assert HOSTILE in Reader(page.read_text()).text
    assert "<script" not in page.read_text() and "<b>" not in page.read_text()
    told = (tmp_path / "out" / "report.md").read_text()
    assert "<script" not in told and "<b>" not in told and "[a](javascript" not in told
    assert str(markdown("a|b\nc `d` <e>")) == r"a\|b c \`d\` &lt;e>"


def test_it_can_be_read_by_ear_and_by_keyboard(artifacts: Artifacts, tmp_path: Path) -> None:
    tags = Reader(write_report(artifacts, tmp_path / "out", run=RUN).read_text()).tags
    assert ("html", {"lang": "en"}) in tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    tables = [at for at, (tag, _) in enumerate(tags) if tag == "table"]
    assert tables and all(tags[at + 1][0] == "caption" for at in tables)
    assert all("scope" in attrs for tag, attrs in tags if tag == "th")
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for tag, attrs in tags if tag == "svg")
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"] for tag, attrs in tags if tag == "a"} <= {f"#{one}" for one in ids}


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb or #rgb, WCAG 2."""
    digits = colour[1:] if len(colour) == 7 else "".join(sign * 2 for sign in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_every_text_has_enough_contrast(theme: int) -> None:
    style = (Path(charts.__file__).parent / "templates" / "style.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#\w+)", style.split(":root {")[theme + 1]))
    grounds = {"bg": ("ink", "soft", "blue", "good", "bad", "unsure"), "panel": ("ink", "soft", "blue", "bad")}
    grounds |= {
        "goodbg": ("ink", "good", "blue"),
        "badbg": ("ink", "bad", "blue"),
        "unsurebg": ("ink", "unsure", "blue"),
    }
    for ground, inks in grounds.items():
        for ink in inks:
            low, high = sorted((luminance(colours[ground]), luminance(colours[ink])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{ink} on {ground}"


def test_simulated_data_is_named_on_every_page_of_output(tmp_path: Path) -> None:
    told = documents() | {"package/model/manifest.json": {"data": "simulated"}}
    artifacts = write(tmp_path / "artifacts", told)
    page = write_report(artifacts, tmp_path / "out", run=RUN).read_text()
    assert "SIMULATED DATA: every figure" in Reader(page).text
    assert '@top-center { content: "SIMULATED DATA"; }' in page
    assert "SIMULATED DATA" in (tmp_path / "out" / "report.md").read_text()
    assert summary_lines(artifacts, RUN)[0].startswith("SIMULATED DATA")
    assert "SIMULATED" not in write_report(write(tmp_path / "real", documents()), tmp_path / "real_out").read_text()


def test_the_summary_is_short_and_ends_with_the_next_command(artifacts: Artifacts) -> None:
    lines = summary_lines(artifacts, RUN)
    text = "\n".join(lines)
    assert len(lines) < 25
    assert f"{RUN.run}/report.html" in text
    assert lines[-1] == "next      homeranker promote r-1"
    assert "2026-01-01 to 2026-01-02" in text
    assert "1,000 in, 35 quarantined" in text
    assert re.search(r"^challenger +0\.300 \[0\.290, 0\.310\] +0\.300", text, re.M)
    assert re.search(r"^popular .*\+0\.230 \[\+0\.220, \+0\.240\]$", text, re.M)
    assert "homeranker:b1" in text and "DOES NOT beat LightGBM" in text


def test_a_champion_and_the_worth_of_the_sequence_network_are_said_in_words(tmp_path: Path) -> None:
    told = documents()
    told["verdict.json"] |= {"kind": "champion"}
    told["evaluation/evidence.json"] |= {"champion": "m0"}
    told["evaluation/metrics.json"]["models"] |= {"champion": model(0.29, 0.005), "without_sequence": model(0.28, 0.02)}
    told["evaluation/metrics.json"] |= {"calibration_bins": [{"predicted": 0.1, "observed": 0.12, "rows": 50}]}
    text = Reader(write_report(write(tmp_path / "a", told), tmp_path / "out").read_text()).text
    assert "May this model replace the champion m0?" in text
    assert "does not beat champion: the two cannot be told apart" in text
    assert "surely helps: NDCG@10 +0.020" in text
    assert "One dot a bin" in text and "so there is no plot of it" not in text


def tie(root: Path) -> Artifacts:
    """Nothing stands against the challenger but that it cannot be told apart from the champion."""
    told = documents()
    open_ = check("NDCG@10 against champion", "cannot tell", mean=0.004)
    told["verdict.json"] |= {"kind": "champion", "verdict": "cannot tell", "reasons": ["NDCG@10 against champion"]}
    told["verdict.json"]["checks"].append(open_)
    told["evaluation/evidence.json"] |= {"champion": "m0"}
    told["evaluation/metrics.json"]["models"] |= {"champion": model(0.29, 0.004)}
    return write(root, told)


def test_a_tie_with_the_champion_blames_nobody_and_says_what_would_decide(tmp_path: Path) -> None:
    artifacts = tie(tmp_path / "a")
    text = " ".join(Reader(write_report(artifacts, tmp_path / "out", run=RUN).read_text()).text.split())
    markdown_ = (tmp_path / "out" / "report.md").read_text()
    assert "Is the data or the model at fault" not in text + markdown_
    for said in (
        "Wait for more evidence, or take the fresher model on a person's word?",
        "The challenger and the champion m0 cannot be told apart: NDCG@10 +0.004 [-0.006, +0.014], an interval around",
        "The champion stays, and keeps learning live",
        "a longer gate slice (split.gate_days in params.yaml; here 11.6 days of 300 users), or more data",
        'homeranker promote r-1 --override --by "NAME" --why "TEXT"',
    ):
        assert said in text, said
    assert "cannot be told apart" in markdown_ and "the champion stays" in summary_lines(artifacts, RUN)[-1]
    other = refused(tmp_path / "b")  # it does not surely beat a yardstick: that is no tie
    text = Reader(write_report(other, tmp_path / "other", run=RUN).read_text()).text
    assert "Is the data or the model at fault" in text and "--override" not in text


def test_what_was_refused_would_have_shipped_and_does_not(artifacts: Artifacts, tmp_path: Path) -> None:
    passed = Reader(write_report(artifacts, tmp_path / "passed").read_text()).text
    assert "What ships: Plackett-Luce" in passed and "would ship" not in passed
    write_report(refused(tmp_path / "a"), tmp_path / "refused")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "refused" / name).read_text()
        assert "What would ship: Plackett-Luce" in text and "hat ships" not in text


def test_a_segment_of_too_few_users_is_shown_as_not_judged(artifacts: Artifacts, tmp_path: Path) -> None:
    page = write_report(artifacts, tmp_path / "out").read_text()
    rows = re.findall(r"<tr[^>]*><th scope=\"row\">(?:segment )?few</th>.*?</tr>", page, re.S)
    assert len(rows) == 2 and all("not judged</span>" in row and "✓" not in row for row in rows)
    assert "all 6 rules of the gate hold (1 of them not judged: too few users)" in Reader(page).text
    assert "<dd>5 of 5</dd>" in page
    line = next(one for one in (tmp_path / "out" / "report.md").read_text().splitlines() if "segment few" in one)
    assert "| not judged |" in line


def test_a_log_with_pages_is_told_where_its_cut_lies_and_not_to_begin_to_log(tmp_path: Path) -> None:
    told = documents()
    plain = " ".join(Reader(write_report(write(tmp_path / "a", told), tmp_path / "out").read_text()).text.split())
    assert "Once this service has logged its own pages" in plain
    told["policy/policy.json"] |= {"pages": {"before": 120, "after": 3400, "cut": "2026-01-01T18:00:00Z"}}
    text = " ".join(Reader(write_report(write(tmp_path / "b", told), tmp_path / "out").read_text()).text.split())
    assert "Once this service has logged" not in text
    assert "120 before the cut, which teach, and 3,400 after it, which judge. The cut lies on 2026-01-01;" in text


def test_a_missing_artifact_is_named(artifacts: Artifacts, tmp_path: Path) -> None:
    artifacts.verdict.unlink()
    with pytest.raises(ArtifactError, match=r"verdict\.json: cannot be read"):
        write_report(artifacts, tmp_path / "out")


def test_a_bar_beyond_the_scale_is_an_arrow_and_says_its_number() -> None:
    far, near = (
        charts.interval_bar(charts.Bar(mean, mean - 0.01, mean + 0.01, -0.03), 0.1, "pass") for mean in (0.5, 0.05)
    )
    assert "far good" in far and "circle" not in far
    assert "circle" in near and "margin" in near
    assert "difference +0.5000, interval +0.4900 to +0.5100, margin -0.030" in far


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [360, 1200])
def test_it_opens_in_a_browser_without_error_request_or_sideways_scroll(
    artifacts: Artifacts, tmp_path: Path, width: int
) -> None:
    page_file = write_report(artifacts, tmp_path / "out", run=RUN).resolve().as_uri()
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("console", lambda told: faults.append(told.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda asked: None if asked.url == page_file else faults.append(asked.url))
        page.goto(page_file)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator("td bdi").first.inner_text() == HOSTILE
        browser.close()
    assert not faults


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(artifacts: Artifacts, tmp_path: Path, theme: Any) -> None:
    page_file = write_report(artifacts, tmp_path / "out", run=RUN).resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        # The page forbids scripts; the checker is one, so only here that is lifted.
        page = browser.new_context(bypass_csp=True, color_scheme=theme).new_page()
        page.goto(page_file)
        found = Axe().run(page).response["violations"]
        browser.close()
    serious = [(one["id"], one["nodes"][0]["html"][:120]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []


def run_with_values(root: Path, run: str, lift: float, judged_from: str = "2026-01-01T00:00:00Z") -> None:
    """A finished run as far as a comparison reads it."""
    place = root / "runs" / run
    (place / "evaluation").mkdir(parents=True)
    (place / "model").mkdir()
    rng = np.random.default_rng(1)
    values = {f"challenger/{name}": rng.random(200) + lift for name in ("ndcg@10", "recall@10", "new_ndcg@10")}
    users = [f"<u{n}>" for n in range(200)]
    pq.write_table(pa.table({"user_id": users, **values}), place / "evaluation" / "per_user.parquet")
    metrics = {"models": {"challenger": model(0.3 + lift, 0.0), **({"popular": model(0.1, 0.2)} if lift else {})}}
    (place / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    (place / "model" / "manifest.json").write_text(json.dumps({"judged_from": judged_from}))
    content = {"verdict": "pass", "data_hash": "d1", "params_hash": run}
    (place / "manifest.json").write_text(json.dumps({"content": content}))
    record = {"run": run, "by": "<b>Ann", "why": "try", "started_at": run, "commit": "c", "data": "shop", "seconds": 9}
    (place / "record.json").write_text(json.dumps(record))


def test_two_runs_are_compared_by_user_where_they_judged_the_same(tmp_path: Path) -> None:
    run_with_values(tmp_path, "r1", 0.0)
    run_with_values(tmp_path, "r2", 0.05)
    run_with_values(tmp_path, "r3", 0.05, "2026-02-01T00:00:00Z")
    registry = Registry(Home(tmp_path))
    told = compare(registry, "r1", "r2")
    assert told["paired"]["users"] == 200
    assert told["paired"]["differences"]["ndcg@10"]["mean"] == pytest.approx(0.05, abs=1e-6)
    assert [row["what"] for row in told["rows"] if not row["same"]] == ["params hash"]
    page = write_comparison(told, tmp_path / "page.html").read_text()
    assert "B is better" in page and "<b>Ann" not in page and "http" not in page.split("</style>")[1]
    apart = compare(registry, "r1", "r3")
    assert apart["paired"]["differences"] == {} and "another window" in lines(apart)[-1]
