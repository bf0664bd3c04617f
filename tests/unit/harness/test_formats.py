"""Numbers and messages for people."""

import pytest

from harness.formats import big_number, byte_size, counted, device_hours, duration, last_line, one_line


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0125, "12.5 ms"),
        (2.345, "2.35 s"),
        (12.4, "12 s"),
        (119.7, "1 min 59 s"),
        (150, "2 min 30 s"),
        (3600, "60 min"),
        (7265, "2 h 1 min"),
        (10_800, "3 h"),
        (9 * 86400, "9.0 days"),
    ],
)
def test_times_are_told_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("card_s", "words"),
    [
        ({}, "3 device-hours"),
        ({"CPU": 10_800}, "3 device-hours"),
        ({"H100": 10_800}, "3 device-hours (3 on H100)"),
        ({"H100": 3600, "A100": 5400}, "3 device-hours (1.5 on A100, 1 on H100)"),
    ],
)
def test_device_hours_name_the_cards(card_s: dict[str, float], words: str) -> None:
    assert device_hours(10_800, card_s) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (12_288_000, "11.72 MiB"), (3 * 2**40, "3072.00 GiB")],
)
def test_bytes_are_told_in_units_up_to_gib(size: int, words: str) -> None:
    assert byte_size(size) == words


@pytest.mark.parametrize(("number", "words"), [(202, "202 "), (59_451_234, "59.5 M"), (3.2e21, "3.2e+03 E")])
def test_big_numbers_have_three_digits_and_a_prefix(number: float, words: str) -> None:
    assert big_number(number) == words


def test_one_is_singular() -> None:
    assert [counted(1, "seed"), counted(3, "seed"), counted(2, "entry", "entries")] == [
        "1 seed",
        "3 seeds",
        "2 entries",
    ]


def test_an_error_is_told_by_its_last_line() -> None:
    assert last_line("Traceback\n  File\nValueError: no\n") == "ValueError: no"


def test_an_error_of_many_lines_is_told_on_one() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line("a\n  bcd", 3) == "a b"
