"""Off-policy evaluation: what another policy would have earned, from the log of the one that served.

Values of each round come first (`estimators`, `slates`), then the mean and its interval (`estimate`); `lower_bound`
is the bound that decides, `judge` the gate, `compare` the gate between two models, `faults` what makes a log worthless
for any of it, `assay` whether its clicks tell anything about two models.
"""

from models.ope.assay import assay
from models.ope.betting import lower_bound
from models.ope.estimators import ESTIMATORS, Rounds, estimate
from models.ope.faults import Fault, faults
from models.ope.log import SlotLog
from models.ope.reorder import compare, looks
from models.ope.verdict import Judgement, OpeParams, judge

__all__ = [
    "ESTIMATORS",
    "Fault",
    "Judgement",
    "OpeParams",
    "Rounds",
    "SlotLog",
    "assay",
    "compare",
    "estimate",
    "faults",
    "judge",
    "looks",
    "lower_bound",
]
