"""Numbers and messages for people: bytes, seconds, counts, lines of an error."""

from __future__ import annotations

from collections.abc import Mapping

GIB = 2**30
HOUR_S = 3600.0


def byte_size(size: float) -> str:
    """Return bytes in the largest unit up to GiB: `11.72 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def duration(seconds: float) -> str:
    """Return a time: below 10 s with three digits, from 100 s on in its two largest units: `2 min 30 s`, `1 h`."""
    if 0 < seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds >= 100 * HOUR_S:
        return f"{seconds / (24 * HOUR_S):.1f} days"
    large, small, length = ("min", "s", 60) if seconds < 100 * 60 else ("h", "min", 3600)
    whole, rest = divmod(int(seconds), length)
    rest //= length // 60
    return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"


def device_hours(device_s: float, card_s: Mapping[str, float]) -> str:
    """Return `3.2 device-hours`; with the cards where there are some: `... (2.1 on H100, 1.1 on A100)`."""
    cards = {card: seconds for card, seconds in card_s.items() if card != "CPU"}
    named = ", ".join(f"{seconds / HOUR_S:.3g} on {card}" for card, seconds in sorted(cards.items()))
    return f"{device_s / HOUR_S:.3g} device-hours" + (f" ({named})" if named else "")


def big_number(number: float) -> str:
    """Return three digits and a decimal prefix: `59.5 M`; `202 `, so that a unit can follow."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} E"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return `1 seed`, `3 seeds`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def last_line(text: str) -> str:
    """Return the last line of an error, which names it where the lines before are a traceback."""
    return text.strip().rsplit("\n", 1)[-1]


def one_line(text: object, longest: int | None = None) -> str:
    """Return an error, or another text, on one line of at most `longest` letters."""
    return " ".join(str(text).split())[:longest]
