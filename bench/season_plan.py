"""The month that is rehearsed: how many deliveries in each second of the rehearsal, and what kind of day it is.

Their 30 days in June: four Saturdays with more of everything, days with a noon and a night, one hour of Saturday that
is the peak, and one hour of a Wednesday with ten times its usual traffic. Each day takes the same time.
"""

import math

import msgspec

DELIVERIES = 1_247_832
SUPPLIERS = 2_847
DAYS = 30
_FIRST_WEEKDAY = 1  # 1 June 2027 is a Tuesday
_SATURDAY = 5
_SATURDAY_WEIGHT = 1.5
_FRIDAY_WEIGHT = 1.15
SPIKE_DAY = 15
_SPIKE_HOUR, _SPIKE = 11, 10.0
_PEAK_HOUR, _PEAK = 14, 1.35


class Slice(msgspec.Struct, frozen=True):
    """One simulated hour: which, how long it takes in the rehearsal, how many deliveries."""

    day: int
    hour: int
    seconds: float
    deliveries: int
    saturday: bool
    spike: bool


def month(*, deliveries: int = DELIVERIES, seconds: float, days: int = DAYS) -> list[Slice]:
    """The slices of the whole month, which add up to exactly so many deliveries."""
    weights = [(day, hour, _weight(day, hour)) for day in range(days) for hour in range(24)]
    total = sum(weight for *_, weight in weights)
    slices, given, before = [], 0, 0.0
    for day, hour, weight in weights:
        before += weight
        until = round(deliveries * before / total)
        slices.append(
            Slice(
                day=day,
                hour=hour,
                seconds=seconds / (days * 24),
                deliveries=until - given,
                saturday=is_saturday(day),
                spike=(day, hour) == (SPIKE_DAY, _SPIKE_HOUR),
            )
        )
        given = until
    return slices


def is_saturday(day: int) -> bool:
    """Whether the day, counted from 0, is one."""
    return (day + _FIRST_WEEKDAY) % 7 == _SATURDAY


def _weight(day: int, hour: int) -> float:
    weekday = (day + _FIRST_WEEKDAY) % 7
    weight = 0.75 + 0.5 * math.exp(-((hour - 14.0) ** 2) / 24.0)
    if weekday == _SATURDAY:
        weight *= _SATURDAY_WEIGHT * (_PEAK if hour == _PEAK_HOUR else 1.0)
    elif weekday == _SATURDAY - 1:
        weight *= _FRIDAY_WEIGHT
    return weight * (_SPIKE if (day, hour) == (SPIKE_DAY, _SPIKE_HOUR) else 1.0)
