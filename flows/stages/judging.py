"""The two judging stages: every model on the same users, then the gate."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.paths import Artifacts
from flows.stages import load
from flows.stages.progress import tell
from flows.stages.training import TREES
from models import evaluation
from models.gate import NO_HISTORY, Evidence, judge
from models.history import DAY_US
from models.homepage import HomepageModel, utc
from models.metrics import estimate

A = Artifacts()
DECIDING = "ndcg@10"
FIXED_USERS = 12
STRANGERS = "strangers.parquet"


def evaluate() -> None:
    """Lists of the challenger, the yardsticks, the trees and the champion; values by user."""
    import lightgbm

    load.fix_bytes()
    table = load.items()
    actions, times = load.log(table), load.times()
    slice_ = evaluation.Slice.of(
        actions, times.gate_cut_us, times.end_us, load.states(actions, table), load.params().gate.max_users
    )
    model = HomepageModel.load(A.policy / "judged")
    champion, about, note = load.champion(times.gate_cut_us)
    named = evaluation.tops(model, lightgbm.Booster(model_file=str(A.model / TREES)))
    if champion is not None:
        named["champion"] = _translated(champion, model)
    judged = evaluation.judge(slice_, named, model)
    tell("models judged", len(named), len(named))
    _write_values(slice_, judged, actions.user_ids)
    strangers = _strangers(evaluation.Slice.of_strangers(actions, times.gate_cut_us, times.end_us), named)
    masks = evaluation.segments(slice_, model)
    evidence = {
        "calibration_error": None if evaluation.uncalibrated(model) else round(judged.calibration_error, 6),
        "coverage": round(judged.coverage["challenger"], 6),
        "score_spread": round(judged.score_spread, 6),
        "data_age_days": 0.0 if load.params().data.as_of is None else _age(times.end_us),
        "champion": None if about is None else about["version"],
        "champion_note": note,
        "newer_than_champion": newer_than(about, times.end_us),
        "policy_lost": _policy_lost(about),
    }
    load.write_json(A.evaluation / "evidence.json", evidence)
    load.write_json(A.evaluation / "segments.json", {name: mask.astype(int).tolist() for name, mask in masks.items()})
    metrics = _metrics(judged, masks)
    if strangers:
        metrics["segments"][NO_HISTORY] = {name: estimate(values).to_json() for name, values in strangers.items()}
    load.write_json(A.evaluation / "metrics.json", metrics)
    load.write_json(A.evaluation / "pages.json", _pages(slice_, judged, model, champion))


def _age(end_us: int) -> float:
    from flows.stages.run import _end_of_day

    now = _end_of_day(load.params().data.as_of)
    return 0.0 if now is None else round(max(0.0, now.timestamp() * 1e6 - end_us) / DAY_US, 3)


def _policy_lost(champion: dict[str, Any] | None) -> str:
    """Why a log with slates taught no page policy, where the champion has one; empty otherwise."""
    learned = load.read_json(A.policy / "policy.json")
    had = champion is not None and champion.get("page_policy", False)
    return str(learned["why"]) if had and not learned["learned"] and learned["pages"] is not None else ""


def newer_than(champion: dict[str, Any] | None, end_us: int) -> bool:
    """Whether the data goes on after the champion's; False where there is no champion, or an old one does not say."""
    until = None if champion is None else champion.get("trained_until")
    # Both as `utc` writes them, in whole seconds: the same data must not look newer by a fraction.
    return until is not None and datetime.fromisoformat(utc(end_us)) > datetime.fromisoformat(until)


def _translated(champion: HomepageModel, model: HomepageModel) -> evaluation.Top:
    """The champion's lists in the challenger's item indices; items that the new catalogue lacks drop out."""
    everything_I = np.ones(len(champion.items), dtype=bool)
    to_new_I = np.array([model.items.index.get(item, -1) for item in champion.items.item_ids])
    to_old = {new: old for old, new in enumerate(to_new_I.tolist()) if new >= 0}

    def top(state: Any, as_of_us: int) -> Any:
        ranked = champion.rank(state.renumbered(to_old), champion.as_of(as_of_us), everything_I, 310).index_C
        moved = to_new_I[ranked]
        return moved[moved >= 0]

    return top


def _strangers(met: evaluation.Slice, named: dict[str, evaluation.Top]) -> dict[str, np.ndarray[Any, Any]]:
    """Model -> the deciding metric of everybody of whom nothing was known, written as a table; empty for nobody."""
    (A.evaluation / STRANGERS).unlink(missing_ok=True)
    if not met.users:
        return {}
    values = {name: evaluation.values_of(met, *evaluation.lists_of(met, top))[DECIDING] for name, top in named.items()}
    pq.write_table(pa.table(values), A.evaluation / STRANGERS, compression="zstd")
    return values


def _write_values(slice_: evaluation.Slice, judged: evaluation.Judged, user_ids: tuple[str, ...]) -> None:
    A.evaluation.mkdir(parents=True, exist_ok=True)
    names = [user_ids[user] for user in slice_.users]
    columns: dict[str, Any] = {"user_id": pa.array(names, pa.string())}
    for model, metrics in judged.values.items():
        columns |= {f"{model}/{metric}": pa.array(values_N) for metric, values_N in metrics.items()}
    pq.write_table(pa.table(columns), A.evaluation / "per_user.parquet", compression="zstd")


def _metrics(judged: evaluation.Judged, masks: dict[str, Any]) -> dict[str, Any]:
    """Model -> metric -> estimate, the paired difference to the challenger, and the challenger by segment."""
    models: dict[str, Any] = {}
    mine = judged.values["challenger"]
    for name, metrics in judged.values.items():
        told = {metric: estimate(values_N[np.isfinite(values_N)]).to_json() for metric, values_N in metrics.items()}
        difference = {
            metric: estimate((mine[metric] - values_N)[np.isfinite(values_N)]).to_json()
            for metric, values_N in metrics.items()
        }
        models[name] = {
            "metrics": told,
            "challenger_minus": difference,
            "coverage": round(judged.coverage[name], 6),
            "gini": round(judged.gini[name], 6),
        }
    by_segment = {
        name: {model: estimate(values[DECIDING][mask]).to_json() for model, values in judged.values.items()}
        for name, mask in masks.items()
    }
    return {
        "models": models,
        "segments": by_segment,
        "users": int(mine[DECIDING].size),
        "users_with_new_items": judged.n_new,
        "calibration_error": round(judged.calibration_error, 6),
        "calibration_bins": [{name: round(value, 6) for name, value in one.items()} for one in judged.calibration],
    }


def _pages(
    slice_: evaluation.Slice, judged: evaluation.Judged, model: HomepageModel, champion: HomepageModel | None
) -> list[dict[str, Any]]:
    """Twelve fixed users over the range of histories: both pages side by side with reasons."""
    n = len(slice_.users)
    if n == 0:
        return []
    by_length = np.argsort([state.n_sessions for state in slice_.states], kind="stable")
    chosen = by_length[np.unique(np.linspace(0, n - 1, num=min(FIXED_USERS, n)).astype(int))]
    other = "champion" if champion is not None else "counting"
    pages = []
    for number, at in enumerate(chosen.tolist(), start=1):
        state = slice_.states[at]
        before = [int(item) for item in judged.lists_NK[other][at] if item >= 0]
        slots = [
            {
                "item_id": model.items.item_ids[item],
                "title": model.items.titles[item],
                "was": before.index(item) + 1 if item in before else None,
                "taken": bool(item in slice_.visits[at].items),
                "because": [
                    model.items.titles[model.items.index[cause.item_id]] or cause.item_id
                    for cause in model.because(state, item, slice_.cut_us, k=1)
                ],
            }
            for item in judged.lists_NK["challenger"][at].tolist()
            if item >= 0
        ]
        titles = [{"title": model.items.titles[item], "taken": item in slice_.visits[at].items} for item in before]
        pages.append(
            {
                "user": f"user {number}",
                "sessions": state.n_sessions,
                "challenger": slots,
                "other": other,
                "before": titles,
            }
        )
    return pages


def gate() -> None:
    """All rules over the evidence."""
    told = load.read_json(A.evaluation / "evidence.json")
    table = pq.read_table(A.evaluation / "per_user.parquet")
    values = {
        name.removesuffix(f"/{DECIDING}"): table[name].to_numpy()
        for name in table.column_names
        if name.endswith(f"/{DECIDING}") and not name.endswith(f"/new_{DECIDING}")
    }
    strangers = A.evaluation / STRANGERS
    first = pq.read_table(strangers) if strangers.exists() else pa.table({})
    masks = load.read_json(A.evaluation / "segments.json")
    segments = {name: np.array(mask, dtype=bool) for name, mask in masks.items()}
    learned = load.read_json(A.policy / "policy.json")
    proof, order = learned["proof"], {"against": learned["against"], "rival": learned["rival"]}
    if learned["learned"]:  # its chances are of a click on a slot, not of a next visit
        told["calibration_error"] = learned["calibration_error"]
    met = {name: first[name].to_numpy() for name in first.column_names}
    evidence = Evidence(values=values, segments=segments, strangers=met, proof=proof, **order, **told)
    verdict = judge(evidence, load.params().gate)
    load.write_json(A.verdict, verdict.to_json())
