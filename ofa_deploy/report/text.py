"""How numbers read. What was not measured says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import hypot, isfinite

from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.intervals import Z95, level_error, wilson
from ofa_deploy.json_types import JSON

NOT_MEASURED, NOT_PREDICTED = "not measured", "not predicted"
MINUS = "−"


def number(value: float | None) -> float | None:
    """A finite number, or None."""
    return None if value is None or not isfinite(value) else float(value)


def ms(value: float | None, absent: str = NOT_MEASURED) -> str:
    """Milliseconds with four digits."""
    found = number(value)
    return absent if found is None else f"{_digits(found)} ms"


def _digits(value: float) -> str:
    return f"{value:.4g}" if 1e-4 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"


def signed_pct(value: float | None, absent: str = NOT_MEASURED) -> str:
    """A number of percent with its sign."""
    found = number(value)
    return absent if found is None else f"{found:+.1f} %".replace("-", MINUS)


def pct(value: float | None, absent: str = NOT_MEASURED, digits: int = 2) -> str:
    """A fraction as percent."""
    found = number(value)
    return absent if found is None else f"{100 * found:.{digits}f} %".replace("-", MINUS)


def accuracy(share: float | None, n: float | None, absent: str = NOT_MEASURED) -> str:
    """An accuracy that was counted on n images, with its 95 % interval (Wilson): ``97.2 % ±1.4 (n 500)``."""
    ends, images = interval(share, n), number(n)
    return pct(share, absent) if ends is None else f"{within(share, *ends)} (n {images:,.0f})"


def interval(share: float | None, n: float | None) -> tuple[float, float] | None:
    """The 95 % interval of a share that was counted on n images; None where there is none."""
    found, images = number(share), number(n)
    if found is None or images is None or not 0 <= found <= 1 or images <= 0:
        return None
    return wilson(found, images)


def predicted(share: float | None, error: PredictorError | None, absent: str = NOT_PREDICTED) -> str:
    """A predicted accuracy with 95 % of its predictor's error: ``97.21 % ±0.51``."""
    found, std = number(share), predictor_std(error)
    if found is None or std is None:
        return pct(share, absent)
    return within(found, found - Z95 * std, found + Z95 * std)


def predictor_std(error: PredictorError | None) -> float | None:
    """How far a predicted accuracy may be off on new images, as a standard deviation; None where that is not known.

    Args:
        error: the predictor's on held-out networks: its RMSE, and how sure its level on other images is.
    """
    if error is None or error.rmse is None or error.bias_after_std is None:
        return None if error is None else error.rmse
    return hypot(error.rmse, level_error(error.bias_after_std, bool(error.bias_corrected)))


def within(value: float | None, low: float | None, high: float | None, absent: str = NOT_MEASURED) -> str:
    """A fraction as percent with its interval: ``97.2 % ±1.4``; at 0 and 100 % the interval has one side."""
    found, lowest, highest = number(value), number(low), number(high)
    if found is None or lowest is None or highest is None:
        return pct(value, absent)
    below, above = 100 * (found - lowest), 100 * (highest - found)
    digits = 2 if max(below, above) < 1 else 1
    sign, half = (MINUS, below) if found == 1 else ("+", above) if found == 0 else ("±", max(below, above))
    return f"{100 * found:.{digits}f} % {sign}{half:.{digits}f}"


def count(value: float | None, absent: str = "unknown") -> str:
    """A count with three digits and a magnitude: ``7.66 M``."""
    found = number(value)
    if found is None:
        return absent
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(found) >= size:
            return f"{found / size:.3g} {unit}" if found / size < 999.5 else f"{found / size:.0f} {unit}"
    return f"{found:.4g}"


def size(value: float | None) -> str:
    """Bytes, decimal."""
    text = count(value)
    return text if text == "unknown" else f"{text}{'' if text[-1].isalpha() else ' '}B"


def plain(value: JSON, absent: str = "unknown") -> str:
    """Any JSON value as a short text."""
    if value is None:
        return absent
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in sorted(value.items())) or "none"
    return str(value)
