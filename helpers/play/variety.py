"""The data of the view `variety`: how often a base gives each placement, as it was measured.

The page sharpens the shares, draws groups from them and computes what groups hold; tests hold it to `answers`, to
`live.advantages` and to sums over every group that there is.
"""

from __future__ import annotations

import pandas as pd

from helpers.errors import UserError
from helpers.play.page import Json, View
from helpers.study.spec import RunSpec
from helpers.train.recorder import EPSILON

GROUPS = (2, 32)  # least and most answers in a group
SHARPNESS = tuple(
    float(f"{10 ** (step / 20):.3g}") for step in range(-34, 15)
)  # temperatures, from 0.02 to 5, 1 among them


def drawn_groups(shares: pd.DataFrame) -> View:
    """Groups of answers drawn from a base's measured habits, sharpened or flattened: what could RFT reinforce?

    `shares`: a row per placement, `placement` ("2 1 4 3") and its `share` of all completions, as of
    `lessons.placement_shares`; what is missing to 1 gave no valid placement. Raises UserError where none is valid.
    """
    placements: list[list[Json]] = [[int(tile) for tile in name.split()] for name in shares["placement"]]
    if not shares["share"].sum() > 0 or len(placements) < 2:
        raise UserError("No completion gave a valid placement: there is nothing to draw groups from.")
    data: dict[str, Json] = {
        "placements": placements,
        "shares": [float(share) for share in shares["share"]],
        "weights": list(RunSpec.reward_weights),
        "epsilon": EPSILON,
        "groups": list(GROUPS),
        "temperatures": list(SHARPNESS),
        "begin": {"size": RunSpec.group_size, "temperature": 1.0},
    }
    return View("variety", "What can be reinforced? Groups drawn from a base's habits", 780, data)
