"""The simulated shop: how fast it answers, what page policies earn in it, and its marginals beside real shops'.

    python -m benchmarks.simulator                         impressions a second on one core
    python -m benchmarks.simulator --policies [--days 7]   random, logging, popular, oracle on the same shoppers
    python -m benchmarks.simulator --marginals [--obd DIR] [--data FILE --attributes FILE]
        beside Online Retail and, if given, Open Bandit and a table of `user, item, pos, ts` (a day is a visit)

Every figure of the simulator is called simulated. DIR holds `random/all/all.csv` and so on, as in the obp package.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.command import finish
from benchmarks.concentration import Concentration, kinds, simulated, taken
from benchmarks.ranker_data import read_attributes, read_table
from features.importers import import_data
from features.schema import Events, Items, Slates
from features.tables import connect_duckdb, table_files
from models.simulator import Shop, SimulatorParams, generate, play, simulate_log
from models.simulator.draws import Floats
from models.simulator.pages import OraclePages, PagePolicy, PlackettLucePages, PopularPages

ONLINE_RETAIL = Path("data/online_retail.parquet")
SLOTS = (1, 2, 3, 6, 12, 24)
E = Events
BUYING = f"""
    WITH bought AS (SELECT {E.USER_ID} AS u, {E.SESSION_ID} AS s, {E.ITEM_ID} AS i, min({E.EVENT_TIME}) AS t
        FROM events WHERE {E.EVENT_TYPE} = 'purchase' GROUP BY ALL),
    baskets AS (SELECT count(*) AS n FROM bought GROUP BY u, s),
    again AS (SELECT u, row_number() OVER (PARTITION BY u, i ORDER BY t) > 1 AS repeat FROM bought WHERE u IS NOT NULL),
    sold AS (SELECT count(*) AS n, row_number() OVER (ORDER BY count(*) DESC) AS place, count(*) OVER () AS items
        FROM bought GROUP BY i)
    SELECT (SELECT avg(n) FROM baskets), (SELECT median(n) FROM baskets), (SELECT avg(repeat::INT) FROM again),
        (SELECT sum(n) FILTER (WHERE place <= items / 10) / sum(n) FROM sold)"""
VISITS = f"""
    WITH seen AS (SELECT {E.USER_ID} AS u, {E.SESSION_ID} AS s FROM {{source}} WHERE {E.USER_ID} IS NOT NULL),
    visits AS (SELECT count(DISTINCT s) AS n FROM seen GROUP BY u)
    SELECT avg(n), avg((n = 1)::INT) FROM visits"""
CLICKS = f"""
    WITH answered AS (SELECT DISTINCT {E.REQUEST_ID}, {E.ITEM_ID} FROM events WHERE {E.EVENT_TYPE} = 'click'),
    crawlers AS (SELECT {E.SESSION_ID} FROM events WHERE {E.SESSION_ID} IS NOT NULL GROUP BY 1 HAVING count(*) > 200)
    SELECT {Slates.POSITION}, avg((a.{E.ITEM_ID} IS NOT NULL)::INT) FROM slates
    LEFT JOIN answered a USING ({E.REQUEST_ID}, {E.ITEM_ID})
    WHERE slates.{E.SESSION_ID} IS NULL OR slates.{E.SESSION_ID} NOT IN (FROM crawlers) GROUP BY 1"""
BOUGHT = f"""
    SELECT DISTINCT e.{E.USER_ID} AS person, e.{E.SESSION_ID} AS visit, i.{Items.TITLE} AS title
    FROM events e JOIN items i USING ({E.ITEM_ID})
    WHERE {E.EVENT_TYPE} = 'purchase' AND e.{E.USER_ID} IS NOT NULL ORDER BY ALL"""
CONVERSION = f"""
    SELECT (SELECT count(DISTINCT {E.SESSION_ID}) FROM events WHERE {E.EVENT_TYPE} = 'purchase')
        / (SELECT count(DISTINCT {E.SESSION_ID}) FROM slates)"""


def marginals(folder: Path) -> dict[str, float]:
    """What can be measured of one directory of canonical tables; crawlers (over 200 events a visit) do not count."""
    connection = connect_duckdb(1000)
    found: dict[str, float] = {}
    for table in (Events.TABLE, Slates.TABLE):
        if files := [str(path) for path in table_files(folder, table)]:
            connection.from_parquet(files, union_by_name=True).create_view(table)
    slates, events = bool(table_files(folder, Slates.TABLE)), bool(table_files(folder, Events.TABLE))
    if slates and events:
        ctr = dict(connection.execute(CLICKS).fetchall())
        found |= {f"click rate in slot {slot}": ctr[slot] for slot in SLOTS if slot in ctr}
    basket, median, repeat, tail = connection.execute(BUYING).fetchone() or (None,) * 4
    if basket is not None:
        found |= {"items a basket, mean": basket, "items a basket, median": median}
        found |= {"share of purchases bought before by the user": repeat, "share of the top 10 % of items sold": tail}
        visits, single = connection.execute(VISITS.format(source="slates" if slates else "events")).fetchone() or (0, 0)
        found |= {"sessions a user (of those seen)": visits, "users with one session": single}
    if basket is not None and slates:
        found["sessions that buy"] = (connection.execute(CONVERSION).fetchone() or (0.0,))[0]
    return found


def concentration_rows(found: Concentration) -> dict[str, float]:
    """How alike a person's things are, as rows of the table."""
    taste, intent = "same kind: a person's visits : others", "same kind: one visit : a person's visits"
    return {taste: found.taste, intent: found.intent}


def concentration_of_titles(folder: Path) -> Concentration:
    """Of the purchases of canonical tables; an item's kind is told by the words of its title."""
    connection = connect_duckdb(1000)
    for table in (Events.TABLE, Items.TABLE):
        connection.from_parquet([str(path) for path in table_files(folder, table)]).create_view(table)
    bought = connection.execute(BOUGHT).fetchnumpy()
    titles, item_N = np.unique(bought["title"].astype(str), return_inverse=True)
    kind_I = kinds(TfidfVectorizer(min_df=3).fit_transform(titles))
    visit_N = np.unique(bought["visit"].astype(str), return_inverse=True)[1]
    return taken(np.unique(bought["person"].astype(str), return_inverse=True)[1], visit_N, kind_I[item_N])


def concentration_of_ratings(data: Path, attributes: Path) -> Concentration:
    """Of a table of `user, item, pos, ts`; an item's kind is told by its attributes, and a day is a visit."""
    table = read_table(data)
    return taken(table.user, table.ts // 86_400, kinds(read_attributes(attributes, table))[table.item])


def print_marginals(params: SimulatorParams, asked: argparse.Namespace) -> None:
    """One table: the simulated log beside the real ones."""
    obd: Path | None = asked.obd
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        generate(params, root / "simulated")
        columns["simulated"] = marginals(root / "simulated") | concentration_rows(simulated(params))
        import_data("online-retail", ONLINE_RETAIL, root / "retail")
        columns["Online Retail"] = marginals(root / "retail") | concentration_rows(
            concentration_of_titles(root / "retail")
        )
        if obd is not None:
            import_data("open-bandit", obd, root / "obd")
            columns["Open Bandit"] = marginals(root / "obd")
        if asked.data is not None:
            columns[asked.data.stem[:15]] = concentration_rows(concentration_of_ratings(asked.data, asked.attributes))
    print(f"Marginals; the first column is simulated ({params.days} days), the others are real")
    print(f"{'':46}" + "".join(f"{name:>16}" for name in columns))
    for row in dict.fromkeys(name for column in columns.values() for name in column):
        cells = "".join(f"{column[row]:16.4f}" if row in column else f"{'-':>16}" for column in columns.values())
        print(f"{row:46}{cells}")


def print_speed(params: SimulatorParams) -> None:
    """Impressions a second, of shoppers answering and of the whole log, in one thread."""
    params = replace(params, days=min(params.days, 7))
    shop, shown, seconds = Shop(params), 0, 0.0
    page_I = np.random.default_rng(0).permuted(np.tile(np.arange(params.items), (4000, 1)), axis=1)
    for day in range(3):
        batch = shop.open(day)
        rows = np.arange(len(batch))
        start = time.perf_counter()
        shop.answer(batch, rows, page_I[rows % 4000, : params.page_size])
        seconds += time.perf_counter() - start
        shown += rows.size * params.page_size
    print(f"simulated: shoppers answer {shown / seconds:,.0f} impressions/s on one core ({shown:,} in {seconds:.2f} s)")
    start = time.perf_counter()
    rows_made = sum(rows.num_rows for table, rows in simulate_log(params) if table == Slates.TABLE)
    seconds = time.perf_counter() - start
    print(f"simulated: a whole log, policy and tables included, {rows_made / seconds:,.0f} impressions/s on one core")
    session, took = next(iter(shop.sessions(3))), []
    page = [(at + 1, f"i{item:05d}") for at, item in enumerate(page_I[0, : params.page_size])]
    for number in range(200):
        start = time.perf_counter()
        shop.respond(session, page, f"r{number}")
        took.append(time.perf_counter() - start)
    print(f"simulated: one page of {params.page_size} through respond(), median {np.median(took) * 1000:.1f} ms")


def print_policies(params: SimulatorParams) -> None:
    """Value per session of page policies on the same shoppers; the interval is over sessions."""
    shop = Shop(params)
    policies: list[PagePolicy] = [
        PlackettLucePages(params.items, 0.0, 0.0),
        PlackettLucePages(params.items),
        PopularPages(shop),
        OraclePages(blind=True),
        OraclePages(),
    ]
    head = f"{'exact':>10}{'+-':>8}{'drawn':>10}{'+-':>8}{'sessions':>10}{'pages':>7}"
    print(f"{'simulated, ' + str(params.days) + ' days, GBP a session':36}{head}")
    for policy in policies:
        values: list[tuple[Floats, Floats]] = []
        pages = 0
        for day in play(Shop(truth=shop.truth), policy, params.days, params.seed):
            exact_B, drawn_B = np.zeros(len(day.batch)), np.zeros(len(day.batch))
            for wave in day.waves:
                exact_B[wave.rows_R] += wave.answers.expected_R
                drawn_B[wave.rows_R] += wave.answers.value(shop.truth).sum(axis=1)
            human_B = ~day.batch.bot_B
            values.append((exact_B[human_B], drawn_B[human_B]))
            pages += int(day.batch.pages_B[human_B].sum())
        exact_N, drawn_N = (np.concatenate(part) for part in zip(*values, strict=True))
        cells = "".join(f"{v.mean():10.4f}{1.96 * v.std() / np.sqrt(v.size):8.4f}" for v in (exact_N, drawn_N))
        print(f"{policy.name:36}{cells}{exact_N.size:10,}{pages / exact_N.size:7.2f}")


def main() -> None:
    """Parse the command line and print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marginals", action="store_true", help="beside real shops")
    parser.add_argument("--policies", action="store_true", help="value per session of page policies")
    parser.add_argument("--obd", type=Path, help="directory of the Open Bandit Dataset")
    parser.add_argument("--data", type=Path, help="Parquet of user, item, pos, ts, for the last two rows")
    parser.add_argument("--attributes", type=Path, help="JSON of its items' attributes")
    parser.add_argument("--days", type=int, default=None)
    parser.add_argument("--seed", type=int, default=SimulatorParams.seed)
    args = parser.parse_args()
    if (args.data is None) != (args.attributes is None):
        parser.error("--data and --attributes go together: an item's kind is told by its attributes")
    params = SimulatorParams(seed=args.seed, days=args.days or (7 if args.policies else SimulatorParams.days))
    if args.marginals:
        print_marginals(params, args)
    elif args.policies:
        print_policies(params)
    else:
        print_speed(params)


if __name__ == "__main__":
    finish(main)
