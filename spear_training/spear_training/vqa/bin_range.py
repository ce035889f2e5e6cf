"""Which numbers the 3D tokens of a model can say, so that nothing false is asked.

Bins end at the 1st and 99th percentile of the data; what lies outside goes to the outermost bin.
In a question such a number would be another point, so the question is not asked. An answer may
lie outside by as much as the outermost bin is wide: it is then off by at most one and a half of
its width, three times what a number inside that bin may be off. Farther out it is not asked.
"""

from spear_policy.model.text.coordinate_bins import CoordinateBins
from spear_training.vqa.pairs import NotAsked, Pair

OUTSIDE = "a number lies outside the bins"


def check_held(pair: Pair, bins: CoordinateBins) -> None:
    """Refuse a pair that 3D tokens cannot say.

    Raises:
        NotAsked: a number lies outside.
    """
    edges = bins.edges_m
    told, asked = pair.told_m(), pair.asked_m()
    if told and not (edges[0] <= min(told) and max(told) <= edges[-1]):
        raise NotAsked(OUTSIDE)
    low, high = 2 * edges[0] - edges[1], 2 * edges[-1] - edges[-2]
    if asked and not (low <= min(asked) and max(asked) <= high):
        raise NotAsked(OUTSIDE)
