"""What a click brings later in the same visit: who finds something on a page asks for another one.

Choices. A page that only earns by its dear items is left by those who found nothing on it, and with them goes what the
next page would have earned. So a click is worth, beside its own worth, the chance that it keeps the visitor times what
the rest of such a visit earns: one step of policy evaluation on the log's own policy, with the clicks of a page as the
state. The chance is compared between pages with the same place in their visit. Where the log shows no such thing, or
visits of a single page, it is 0, and the policy is the bandit of horizon one page.
Source: fitted policy evaluation (Sutton and Barto, 2018, chapter 6), cut to two states.
Shapes: R pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.policy.impressions import Floats, Ints, Page

MOST_CLICKS = 2  # of a page that are told apart
LATER = 2  # pages of a visit from this one on are alike
LEAST = 30  # pages of a kind that say something


def rest_of_visits(pages: Sequence[Page], reward: Callable[[Page], float]) -> tuple[Ints, Ints, Floats, Floats]:
    """By page, in the order of `pages`: its place in the visit, its clicks, 1 where another followed, the later reward.

    Pages come in the order of time; a visit is a session, or a page alone where the log names none.
    """
    visits: dict[tuple[str | None, str], list[int]] = {}
    for at, page in enumerate(pages):
        visits.setdefault((page.user_id, page.session_id or page.request_id), []).append(at)
    place_R, click_R = np.zeros(len(pages), np.int64), np.array([int(page.clicked_K.sum()) for page in pages], np.int64)
    stay_R, rest_R = np.zeros(len(pages)), np.zeros(len(pages))
    for visit in visits.values():
        later = 0.0
        for place, at in reversed(list(enumerate(visit))):
            place_R[at], stay_R[at], rest_R[at] = place, float(at != visit[-1]), later
            later += reward(pages[at])
    return place_R, click_R, stay_R, rest_R


def worth_of_staying(pages: Sequence[Page], reward: Callable[[Page], float]) -> float:
    """What a click adds to the rest of its visit, in the unit of the reward; never below 0."""
    place_R, click_R, stay_R, rest_R = rest_of_visits(pages, reward)
    kept = 0.0
    for place in range(LATER + 1):
        here_R = np.minimum(place_R, LATER) == place
        without_R = here_R & (click_R == 0)
        if without_R.sum() < LEAST:
            continue
        for clicks in range(1, MOST_CLICKS + 1):
            with_R = here_R & (np.minimum(click_R, MOST_CLICKS) == clicks)
            if with_R.sum() >= LEAST:
                kept += float(with_R.sum()) * float(stay_R[with_R].mean() - stay_R[without_R].mean())
    stayed_R = stay_R > 0
    if not stayed_R.any() or not click_R.any():
        return 0.0
    return max(0.0, kept / float(click_R.sum())) * float(rest_R[stayed_R].mean())
