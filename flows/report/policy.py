"""The report's sentences on the page policy: what draws the page, whether a policy was learned, and how it was proved.

Choices. Where nothing was learned the next step depends on why: a shop whose log holds pages with propensities needs
more of them before the cut, and is told where the cut lies, instead of being told to begin to log.
"""

from __future__ import annotations

from typing import Any

from models.gate import CHAMPION, ORDERS, PASS, SERVED

Json = dict[str, Any]
RIVALS = {
    CHAMPION: "The pages were served by the champion and what it learned since, which both models lack here.",
    SERVED: "No champion served these pages: the other order is that of everything that served, what it learned live"
    " included; the model stands alone, and must be surely better. The two verdicts share one error of 5 %.",
}


def proof(facts: Json) -> Json | None:
    """The off-policy judgement of a learned page policy: where there is one, lists of next visits do not decide."""
    learned: Json = facts["policy"]["learned"]
    found: Json | None = learned["proof"] if learned["learned"] else None
    return found


def rival(learned: Json) -> str:
    """Whose order it was compared with; runs of before had champions only."""
    return str(learned.get("rival", CHAMPION))


def unlearned(facts: Json) -> list[str]:
    """For the terminal: why the log's slates taught no page policy; nothing where they did, or where there are none."""
    policy = facts["policy"]
    if policy["learned"]["learned"] or not policy["slates"]:
        return []
    return [f"No page policy was learned: {policy['learned']['why']}"]


def sentences(facts: Json) -> list[str]:
    """All of them, in the order of the page."""
    policy, told = facts["policy"], []
    told.append(
        f"What {ships(facts)}: Plackett-Luce exploration ({policy['name']}): every slot is drawn from a softmax over"
        f" the candidates' utilities at temperature {policy['temperature']:g}, mixed with a uniform share of"
        f" {policy['floor']:g}. The probability of each draw is known exactly and logged as the slot's propensity."
    )
    learned = policy["learned"]
    if not learned["learned"]:
        told.append(
            f"No policy was learned and no off-policy estimate was made: {learned['why']} (the log has"
            f" {policy['slates']:,} rows of slates). Any figure here would be invented. The scores are the ranker's."
            f" {_how_to_learn(learned.get('pages'))}"
        )
        return told
    worth = learned["worth"]
    horizon = (
        f"Of it, {worth['staying']:.3f} are what a click brings later in its visit (policy.value.rest_of_visit)."
        if worth["staying"]
        else "It looks one page ahead (a contextual bandit): no policy with a longer horizon has shown more in the"
        " simulated table (python -m benchmarks.policies)."
    )
    told.append(
        "The page policy was learned from impressions: the ranker's network, fitted to the clicks on what was shown,"
        f" with a term for each position. A click counts {worth['base']:.3f} + {worth['slope']:.4f} x price, a line"
        f" through what followed clicks. {horizon}"
    )
    judged = learned["proof"]
    if judged is None:
        told.append("It was not judged: no page was logged after the cut.")
        return told
    told.append(
        f"Off-policy verdict: {judged['verdict']}. {'; '.join(judged['reasons'])}. Assumes that a slot's reward depends"
        " on its item and position alone, and values the places of the target's own pages, as far as the log shows"
        " such items there; modules, diversity and rules of the service are left out."
    )
    if against := learned["against"]:
        told.append(
            f"Order of what was shown against {ORDERS[rival(learned)]}: {against['verdict']}."
            f" {'; '.join(against['reasons'])}. {RIVALS[rival(learned)]} What nobody was shown, this cannot tell."
            " Assumes that a reward is the look at a place times the worth of the item."
        )
    told.append(
        "Diagnostics: " + ", ".join(f"{name} {value:,.4g}" for name, value in judged["diagnostics"].items()) + "."
    )
    return told


def ships(facts: Json) -> str:
    """ships, or what it would have done: nothing that the gate refused meets shoppers."""
    return "ships" if facts["verdict"]["verdict"] == PASS else "would ship"


def _how_to_learn(pages: Json | None) -> str:
    """`pages`: those with drawn slots before and after the cut; None where the log has no slates, or an old run."""
    if not pages or not pages["before"] + pages["after"]:
        return (
            "Once this service has logged its own pages, they carry propensities and the next run can learn from them."
        )
    return (
        f"Pages with drawn slots: {pages['before']:,} before the cut, which teach, and {pages['after']:,} after it,"
        f" which judge. The cut lies on {pages['cut'][:10]}; a later run has a later one and more pages, and a longer"
        " gate slice (split.gate_days in params.yaml) gives more of them to judge, a shorter one more to teach."
    )
