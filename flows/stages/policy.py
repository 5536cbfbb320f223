"""The policy stage: a page policy learned from the slates, with its off-policy proof; else the ranker as it is."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import pyarrow as pa

from flows.paths import Artifacts
from flows.stages import load
from flows.stages.progress import tell
from models import recipe
from models.homepage import HomepageModel, utc
from models.items import ItemTable
from models.policy.impressions import pages_of
from models.policy.plackett_luce import PlackettLuceParams
from models.policy.recipe import learn_policy
from models.sequence import load_model

A = Artifacts()


def policy() -> None:
    """Write policy/judged (as of the gate's cut), policy/final (what ships) and policy/policy.json."""
    load.fix_bytes()
    settings = load.params()
    table, slates = load.items(), load.clean_slates()
    log = load.log(table)
    judged = HomepageModel.load(A.model / "judged")
    told = learn_policy(
        slates,
        load.clean_events(),
        log,
        judged,
        load_model(A.sequence / "early"),
        settings.policy,
        PlackettLuceParams(settings.serving.temperature, settings.serving.floor),
        load.checkpoints("policy", dataclasses.asdict(settings.policy), load.digest_of(A.model)),
        lambda name, epoch, epochs, figures: tell(f"{name} epoch", epoch, epochs, figures),
        None if slates is None else load.champion(load.times().gate_cut_us)[0],
        settings.train.threads,
    )
    shutil.rmtree(A.policy, ignore_errors=True)
    A.policy.mkdir(parents=True)
    if told.model is None:
        for part in ("judged", "final"):
            shutil.copytree(A.model / part, A.policy / part)
    else:
        told.model.save(A.policy / "judged")
        recipe.refresh(told.model, log, table, load.times().end_us).save(A.policy / "final")
    pages: dict[str, Any] | None = None
    if told.model is None and slates is not None and settings.policy.learn:
        pages = pages_around(judged.trained_until_us, slates, load.clean_events(), table)
    load.write_json(A.policy / "policy.json", told.to_json() | {"pages": pages})


def pages_around(cut_us: int, slates: pa.Table, events: pa.Table, items: ItemTable) -> dict[str, Any]:
    """How many pages with drawn slots could have taught and judged, and where the cut lay between them."""
    pages = pages_of(slates, events, items)
    before = sum(page.served_us < cut_us for page in pages)
    return {"before": before, "after": len(pages) - before, "cut": utc(cut_us)}
