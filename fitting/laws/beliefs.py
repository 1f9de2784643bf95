"""What is believed beforehand of shapes that many laws share."""

from collections.abc import Mapping

from fitting.laws.law import Shape

CHINCHILLA = (
    "0.34 and 0.28 (Hoffmann et al. 2022), 0.35 and 0.37 (Besiroglu et al. 2024), 0.35 (Muennighoff et al. 2023)"
)
SIZE_ONLY = "the size at which this alone would make all of the loss, give or take a factor of ten"
SCALE_ONLY = "a scale, nothing more"


def exponent(median: float, source: str, log_sd: float = 0.5) -> Shape:
    """An exponent of a power law."""
    return Shape(low=0.01, high=2.0, median=median, log_sd=log_sd, source=source)


EXPONENTS: Mapping[str, Shape] = {"alpha": exponent(0.34, CHINCHILLA), "beta": exponent(0.34, CHINCHILLA)}
COEFFICIENTS: Mapping[str, Shape] = {name: Shape(1e-6, 10.0, 0.3, 2.3, SIZE_ONLY) for name in ("A", "B")}
COUPLING: Mapping[str, Shape] = {
    "kappa": Shape(0.1, 10.0, 1.0, 0.5, "1 is Hoffmann et al. 2022, Eq. 2: terms that do not interact")
}
