"""Numbers as people read them, on a page and in LaTeX."""

import datetime
import math
import re


def short(value: float) -> str:
    """Such as 15k, 1.4B, 138B."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def number(value: float, digits: int = 4) -> str:
    """Such as 0.2714, −3.1×10⁻⁵; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    digits_, _, exponent = f"{value:.{digits}g}".replace("-", "−").partition("e")
    return f"{digits_}×{_power_of_ten(exponent)}" if exponent else digits_


def flops(value: float) -> str:
    """Such as 3×10¹², or 10¹²."""
    digits, _, exponent = f"{value:.1e}".partition("e")
    digits = digits.removesuffix(".0")
    return _power_of_ten(exponent) if digits == "1" else f"{digits}×{_power_of_ten(exponent)}"


def fixed(value: float, decimals: int, sign: str = "") -> str:
    """Such as 2.0731; a dash where there is none; `sign` "+" shows a plus."""
    return f"{value:{sign}.{decimals}f}".replace("-", "−") if math.isfinite(value) else "–"


def percent(value: float, decimals: int = 2, sign: str = "") -> str:
    """A fraction in percent, such as 0.71 %."""
    return fixed(100 * value, decimals, sign) + ("\u00a0%" if math.isfinite(value) else "")


def span(seconds: float) -> str:
    """Such as 2 days, 1:02:03."""
    return str(datetime.timedelta(seconds=round(seconds)))


def dollars(amount: float) -> str:
    """Such as $12,345 and $1.23."""
    return f"${amount:,.0f}" if amount >= 100 else f"${amount:,.2f}"


def plus_minus(shown: str) -> str:
    """Such as ± 0.0040, to follow a value; nothing where it is unknown."""
    return "" if shown == "–" else f" ± {shown}"


def counted(params_column: str) -> str:
    """What N is, such as parameters without embeddings."""
    known = {"params": "parameters", "params_non_embedding": "parameters without embeddings"}
    return known.get(params_column, f"the table’s {params_column}")


def count(number: int, noun: str) -> str:
    """Such as 1 run, 2 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plain(value: float, decimals: int, sign: str = "") -> str:
    """Such as 2.0731, in ASCII for LaTeX's text; a dash where there is none."""
    return f"${value:{sign}.{decimals}f}$" if math.isfinite(value) else "--"


def escape_tex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}]", lambda found: named.get(found[0], "\\" + found[0]), " ".join(text.split()))


def _power_of_ten(exponent: str) -> str:
    digits = str(int(exponent.replace("−", "-")))
    return "10" + digits.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
