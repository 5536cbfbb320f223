"""Other modalities of an item: read as they are told, scaled by what they are worth, silent where they are noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from features.errors import SchemaError
from features.schema import Events, Items, ItemVectors, arrow_schema
from models.calibration import Calibration
from models.evaluation import Slice, lists_of
from models.examples import states_from_log, training_lists
from models.homepage import HomepageModel
from models.impressions.modalities import with_modalities
from models.items import ItemRow, ItemTable
from models.log import ActionLog
from models.metrics import Lists, ndcg
from models.ranker import RankerParams, train
from models.retrieval import RetrievalParams
from models.signals import Knowledge, candidates, read
from models.training import LoopParams
from models.vectors import MOST, read_vectors
from tests.models.test_taste import ITEMS, shop

TABLE = ItemTable.from_rows([ItemRow(f"i{at}") for at in range(ITEMS)])


def vectors(*rows: tuple[str, str, list[float]]) -> pa.Table:
    names = (ItemVectors.ITEM_ID, ItemVectors.MODALITY, ItemVectors.VECTOR)
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], arrow_schema(ItemVectors.COLUMNS))


def test_each_modality_is_brought_to_one_length_and_few_directions() -> None:
    rng = np.random.default_rng(0)
    wide = [(f"i{at}", "text", rng.normal(size=300).tolist()) for at in range(ITEMS - 1)]
    told = read_vectors(vectors(("i0", "image", [3.0, 4.0]), ("other", "image", [1.0, 1.0]), *wide), TABLE)
    np.testing.assert_allclose(told["image"][0], [0.6, 0.8], rtol=1e-6)
    assert (told["image"][1:] == 0).all()
    assert told["text"].shape[1] <= MOST
    np.testing.assert_allclose(np.linalg.norm(told["text"][:-1], axis=1), 1, rtol=1e-5)
    with pytest.raises(SchemaError, match="modality 'image' differ in length"):
        read_vectors(vectors(("i0", "image", [3.0, 4.0]), ("i1", "image", [1.0])), TABLE)


def test_signal_comes_in_and_noise_stays_out() -> None:
    pages, catalogue = shop(days=10)
    blind = catalogue.joined(np.zeros((ITEMS, 1), dtype=np.float32))
    blind.content_IE[:] = 0.0
    kind = np.eye(2, dtype=np.float32)[np.arange(ITEMS) % 2]
    noise = np.random.default_rng(1).normal(size=(ITEMS, 5)).astype(np.float32) * 1e-3
    expected_RK = np.full(pages.item_RK.shape, 0.5)
    found, scales = with_modalities(blind, {"image": kind, "noise": noise}, pages, expected_RK)
    assert scales["image"] > 0 and scales["noise"] == 0
    assert found.content_IE.shape[1] == blind.content_IE.shape[1] + 2


DAY = 86_400_000_000
USERS, LOOKS, DAYS, CUT = 160, 8, 60, 50


def shop_of_looks() -> tuple[pa.Table, pa.Table, npt.NDArray[np.int64]]:
    """Titles say nothing; everybody buys the newest things of one look. Events, items, and the look of each item."""
    rng = np.random.default_rng(3)
    look_I = rng.integers(0, LOOKS, 320)
    drop_I = np.sort(rng.integers(-4, DAYS // 5, look_I.size))
    listed_I = 5.0 * drop_I - 0.5  # a drop every five days, on the eve of every cut: nobody has met its items then
    events = []
    for user in range(USERS):
        for visit, day in enumerate(np.sort(rng.uniform(2, DAYS, 14))):
            met = np.flatnonzero((look_I == user % LOOKS) & (listed_I < day - 1))[-6:]
            for step, item in enumerate(rng.choice(met, size=min(2, met.size), replace=False)):
                events.append(
                    {"event_id": f"{user}-{visit}-{step}", "event_time": int((day + 20_000) * DAY) + step * 1_000_000,
                     "event_type": "purchase", "user_id": f"u{user}", "session_id": f"{user}-{visit}",
                     "item_id": f"i{item:03d}", "price": 1.0, "quantity": 1, "currency": "EUR"}
                )  # fmt: skip
    items = [
        {"item_id": f"i{at:03d}", "title": f"word{at}", "price": 1.0, "listed_at": int((listed + 20_000) * DAY)}
        for at, listed in enumerate(listed_I)
    ]
    made = pa.Table.from_pylist(events, arrow_schema(Events.COLUMNS)).sort_by("event_time")
    return made, pa.Table.from_pylist(items, arrow_schema(Items.COLUMNS)), look_I


def cold_and_all(vector_IE: npt.NDArray[np.float32] | None) -> tuple[float, float]:
    """NDCG@10 on items that nobody had met at the cut, and on everything, of the ranker with such vectors."""
    events, items, _ = shop_of_looks()
    table = ItemTable.from_arrow(items)
    if vector_IE is not None:
        table = replace(table, vectors={"image": vector_IE})
    log = ActionLog.from_arrow(events, table.index, len(table))
    cut = (20_000 + CUT) * DAY
    known = log.before(cut)
    lists = training_lists(known, table, [cut - at * DAY for at in (20, 15, 10, 5)], cut, sequence=None)
    net, _ = train(lists, RankerParams(loop=LoopParams(epochs=6)))
    model = HomepageModel(Knowledge.fit(known, table, cut), net, Calibration(), cut)
    held = Slice.of(log, cut, (20_000 + DAYS) * DAY, states_from_log(log))
    shown_I = table.listed_at_I < cut
    top_NK, _ = lists_of(held, lambda state, at: model.rank(state, at, shown_I, 300).index_C)
    met_I = np.bincount(known.item, minlength=len(table)) > 0
    wanted = [np.array([at for at in visit.items if shown_I[at]], dtype=np.int64) for visit in held.visits]
    cold = [np.array([at for at in one if not met_I[at]], dtype=np.int64) for one in wanted]
    asked = np.array([one.size > 0 for one in cold])
    return float(ndcg(Lists(top_NK, cold), 10)[asked].mean()), float(ndcg(Lists(top_NK, wanted), 10).mean())


def test_a_modality_with_signal_finds_new_items_and_noise_does_not_hurt() -> None:
    """A made shop where only the look tells a new item's buyers; the vectors of noise are as long and as many."""
    look_I = shop_of_looks()[2]
    rng = np.random.default_rng(1)
    image = np.eye(LOOKS, dtype=np.float32)[look_I] + rng.normal(0, 0.15, (look_I.size, LOOKS)).astype(np.float32)
    noise = rng.normal(size=image.shape).astype(np.float32)
    unit = {
        name: one / np.linalg.norm(one, axis=1, keepdims=True) for name, one in (("image", image), ("noise", noise))
    }
    blind, seeing, noisy = (cold_and_all(one) for one in (None, unit["image"], unit["noise"]))
    assert seeing[0] > blind[0] + 0.05
    assert seeing[1] > blind[1]
    assert noisy[0] < 0.5 * seeing[0]
    assert noisy[1] > 0.95 * blind[1]


def test_vectors_travel_with_the_model_and_a_new_item_comes_without(tmp_path: Path) -> None:
    events, items, look_I = shop_of_looks()
    table = ItemTable.from_arrow(items)
    log = ActionLog.from_arrow(events, table.index, len(table))
    seen = replace(table, vectors={"image": np.eye(LOOKS, dtype=np.float32)[look_I]})
    cut = (20_000 + CUT) * DAY
    lists = training_lists(log.before(cut), seen, [cut - 9 * DAY], cut, sequence=None)
    net, _ = train(lists, RankerParams(loop=LoopParams(epochs=1)))
    model = HomepageModel(Knowledge.fit(log, seen, cut), net, Calibration(), cut)
    model.save(tmp_path / "model")
    back = HomepageModel.load(tmp_path / "model")
    np.testing.assert_array_equal(back.items.vectors["image"], seen.vectors["image"])
    longer = back.extend([ItemRow("new", "a title")], cut)
    assert longer.items.vectors["image"].shape == (len(table) + 1, LOOKS)
    assert (longer.items.vectors["image"][-1] == 0).all()


def test_a_modality_may_have_the_name_of_a_source() -> None:
    """Whatever a shop calls its vectors, they add candidates and take none away."""
    events, items, look_I = shop_of_looks()
    table = ItemTable.from_arrow(items)
    log = ActionLog.from_arrow(events, table.index, len(table))
    cut = (20_000 + CUT) * DAY
    state = states_from_log(log)(cut, [0])[0]
    blank = np.zeros((look_I.size, LOOKS), dtype=np.float32)
    found = {}
    for name in ("own", "other"):
        knowledge = Knowledge.fit(log, replace(table, vectors={name: blank}), cut)
        everything_I = np.ones(len(table), dtype=bool)
        found[name] = candidates(state, read(state, knowledge, cut), knowledge, everything_I, RetrievalParams())
    assert "own" in found["other"][1]
    np.testing.assert_array_equal(found["own"][0], found["other"][0])
    np.testing.assert_array_equal(found["own"][1], found["other"][1])
