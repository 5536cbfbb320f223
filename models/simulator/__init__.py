"""The shop with known truth: SIMULATED shoppers whose every probability can be read.

    shop = Shop(SimulatorParams(), seed=1)
    for session in shop.sessions(day=0):
        page = [(1, "i00012"), (2, "i00400")]
        events, goes_on = shop.respond(session, page, request_id="r1")
        shop.value_of(session, page), shop.oracle_page(session, 24), shop.regret(session, page)

`generate(params, dest)` writes a log as canonical tables; `models.simulator.env` is the Gymnasium environment.
"""

from models.simulator.logs import generate, play, simulate_log
from models.simulator.params import SimulatorParams
from models.simulator.sessions import Session
from models.simulator.shop import Shop
from models.simulator.truth import Truth

__all__ = ["Session", "Shop", "SimulatorParams", "Truth", "generate", "play", "simulate_log"]
