"""The simulated catalogue: what every item is, in words that shoppers read and in the vector that they feel.

Choices. An item's latent vector is the sum of its category, its brand, its two style words and a rest of its own, so
that content tells a part of it, never all. Category, brand and style stand in the canonical columns. Launch days are
fixed; stock-outs come by address (draws.py), so that any day's shelf is known without playing the days before.
Shapes: I items, L leaves (categories), D latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.simulator.draws import Bools, Floats, Ints, uniform
from models.simulator.params import SimulatorParams

D = 12
VOCABULARY = {
    "home > lighting": "lamp lantern shade candlestick bulb",
    "home > textiles": "cushion throw curtain rug quilt",
    "home > decor": "vase frame mirror clock ornament",
    "home > storage": "basket shelf crate hook drawer",
    "kitchen > cookware": "pan pot casserole wok griddle",
    "kitchen > tableware": "plate bowl mug jug saucer",
    "kitchen > baking": "tin whisk spatula cutter scales",
    "kitchen > tea and coffee": "teapot cafetiere kettle infuser grinder",
    "garden > planting": "planter trowel seeds dibber trellis",
    "garden > furniture": "bench hammock parasol stool lounger",
    "garden > wildlife": "feeder birdhouse birdbath nestbox fatball",
    "garden > tools": "spade rake secateurs hose fork",
    "toys > games": "puzzle dominoes chess dice cards",
    "toys > soft toys": "bear rabbit elephant puppet owl",
    "toys > craft": "beads crayons stickers paints clay",
    "toys > outdoor play": "kite ball frisbee scooter skittles",
    "fashion > bags": "tote satchel purse rucksack clutch",
    "fashion > scarves": "scarf shawl snood wrap bandana",
    "fashion > jewellery": "necklace bracelet earrings ring brooch",
    "fashion > knitwear": "jumper cardigan beanie gloves socks",
    "stationery > paper": "notebook diary planner journal pad",
    "stationery > pens": "pen pencil marker nib highlighter",
    "stationery > cards": "card envelope postcard invitation tag",
    "stationery > desk": "stapler tray ruler organiser calendar",
    "beauty > bath": "soap bathbomb sponge salts loofah",
    "beauty > skin": "cream balm serum scrub mask",
    "beauty > hair": "brush comb clip shampoo headband",
    "beauty > fragrance": "perfume diffuser candle incense oil",
    "sport > yoga": "mat strap block bolster blanket",
    "sport > running": "shoes bottle belt visor vest",
    "sport > camping": "tent torch stove flask pillow",
    "sport > cycling": "helmet bell light pump pannier",
}
_STYLE_WORDS = """blue red green ivory black rose amber teal vintage modern rustic striped spotted floral plain woven
carved painted folding travel mini giant soft bright"""
STYLES = tuple(_STYLE_WORDS.split())
BRANDS = tuple(
    f"{a}{b}" for a in ("Alder", "Birch", "Cedar", "Dover", "Elm", "Fern") for b in ("ley", "wick", "ford", "mere")
)


def _rows(rng: np.random.Generator, count: int) -> Floats:
    """(count, D) random directions of length 1."""
    return unit(rng.standard_normal((count, D)))


def unit(rows: Floats) -> Floats:
    """Rows scaled to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """I items; `launch_day_I` is negative for those that were there before the first day."""

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    brands: tuple[str, ...]
    leaf_I: Ints
    department_L: Ints
    leaf_share_L: Floats  # how often a session's intent is this leaf
    leaf_LD: Floats
    vector_ID: Floats
    appeal_I: Floats
    price_I: Floats
    consumable_I: Bools
    launch_day_I: Ints
    shelf_seed: int
    params: SimulatorParams

    @classmethod
    def make(cls, params: SimulatorParams, seed: int) -> Catalogue:
        """Draw the items of a shop."""
        rng = np.random.default_rng([seed, 1])
        n, leaves = params.items, tuple(VOCABULARY)
        departments = sorted({leaf.split(" > ")[0] for leaf in leaves})
        department_L = np.array([departments.index(leaf.split(" > ")[0]) for leaf in leaves])
        leaf_LD = unit(0.7 * _rows(rng, len(departments))[department_L] + 0.8 * _rows(rng, len(leaves)))
        brand_BD, style_SD = _rows(rng, len(BRANDS)), _rows(rng, len(STYLES))
        leaf_I = rng.integers(len(leaves), size=n)
        brand_I, style_I2 = rng.integers(len(BRANDS), size=n), rng.integers(len(STYLES), size=(n, 2))
        noun_I = rng.integers(5, size=n)
        content_ID = leaf_LD[leaf_I] + 0.35 * brand_BD[brand_I] + 0.3 * style_SD[style_I2].sum(axis=1)
        price_L = rng.normal(np.log(14.0), 0.5, len(leaves))
        launched = rng.random(n) < params.new_item_share
        before, later = -rng.integers(1, 400, size=n), rng.integers(1, max(params.days, 2), size=n)
        titles = tuple(
            f"{STYLES[a]} {STYLES[b]} {VOCABULARY[leaves[leaf]].split()[noun]}" if a != b else
            f"{STYLES[a]} {VOCABULARY[leaves[leaf]].split()[noun]}"
            for (a, b), leaf, noun in zip(style_I2.tolist(), leaf_I.tolist(), noun_I.tolist(), strict=True)
        )  # fmt: skip
        share_L = rng.dirichlet(np.full(len(leaves), 4.0))
        return cls(
            tuple(f"i{at:05d}" for at in range(n)),
            titles,
            tuple(BRANDS[at] for at in brand_I),
            leaf_I,
            department_L,
            share_L,
            leaf_LD,
            unit(content_ID + 0.5 * _rows(rng, n)),
            rng.normal(0.0, params.appeal_sigma, n),
            np.asarray(np.round(np.exp(price_L[leaf_I] + rng.normal(0.0, 0.35, n)), 2), dtype=np.float64),
            rng.random(n) < params.consumable_share,
            np.where(launched, later, before),
            seed,
            params,
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    def category(self, leaf: int) -> str:
        """A leaf's name, "department > category"."""
        return tuple(VOCABULARY)[leaf]

    def available(self, day: int) -> Bools:
        """(I,) what can be bought on a day: launched and in stock."""
        block = max(day, 0) // self.params.stock_out_days
        out_I = uniform(self.shelf_seed, "stock-out", np.arange(len(self)), block) < self.params.stock_out_share
        return np.asarray((self.launch_day_I <= day) & ~out_I, dtype=np.bool_)

    def match(self, intent_B: Ints, item_BK: Ints) -> Floats:
        """How well items answer an intent (a leaf, -1 for none): 1 same leaf, `intent_near` same department, else 0."""
        leaf_BK, wanted_B1 = self.leaf_I[item_BK], intent_B[:, None]
        near_BK = self.department_L[leaf_BK] == self.department_L[wanted_B1]
        match_BK = np.where(leaf_BK == wanted_B1, 1.0, np.where(near_BK, self.params.intent_near, 0.0))
        return np.where(wanted_B1 >= 0, match_BK, 0.0)

    def image_vectors(self) -> Floats:
        """(I, D) what a good image encoder would say: the latent vector under some noise."""
        rng = np.random.default_rng([self.shelf_seed, 3])
        return self.vector_ID + rng.normal(0.0, 0.15, self.vector_ID.shape)
