"""Inside or outside the runs: the convex hull of a ladder in (log N, log D)."""

import math
from collections.abc import Iterable, Sequence

Corner = tuple[float, float]


def hull(runs: Iterable[tuple[float, float]]) -> list[Corner]:
    """Corners (log N, log D) of the smallest convex set that holds every (N, D), counter-clockwise (Andrew 1979)."""
    points = sorted({(math.log(params), math.log(tokens)) for params, tokens in runs})
    if len(points) < 3:
        return points
    halves = []
    for ordered in (points, points[::-1]):
        half: list[Corner] = []
        for point in ordered:
            while len(half) > 1 and _turn(half[-2], half[-1], point) <= 0:
                half.pop()
            half.append(point)
        halves += half[:-1]
    return halves


def is_inside(corners: Sequence[Corner], params: float, tokens: float) -> bool:
    """Whether (N, D) lies within the hull, to within 1 % of N and of D."""
    point, near = (math.log(params), math.log(tokens)), 0.01
    edges = zip(corners, [*corners[1:], *corners[:1]], strict=True)
    return all(_turn(a, b, point) >= -near * math.dist(a, b) for a, b in edges) and _in_box(corners, point, near)


def _in_box(corners: Sequence[Corner], point: Corner, near: float) -> bool:
    """Decides where the hull is no more than a line or a point, which every turn allows along its length."""
    axes = zip(*corners, strict=True)
    return all(min(axis) - near <= value <= max(axis) + near for axis, value in zip(axes, point, strict=True))


def _turn(a: Corner, b: Corner, c: Corner) -> float:
    """Positive where a, b, c turn left; in magnitude twice their triangle."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
