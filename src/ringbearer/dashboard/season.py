"""*Season*: how busy each day was, which hours of the week are, and which peak days come."""

from datetime import timedelta

from litestar import Response, get

from ringbearer import clock
from ringbearer.api.auth import Action
from ringbearer.calendar import zone
from ringbearer.dashboard import trends
from ringbearer.dashboard.rendering import page
from ringbearer.dashboard.services import PageServices, require_everybodys
from ringbearer.dashboard.sessions import Visitor
from ringbearer.scaling.results import ScalingPrediction

_WEEKS_BACK = 39
_WEEKS_AHEAD = 13
_PATTERN_WEEKS = 8
_COMING_DAYS = 60
_FORECAST_DAYS = 14
_COMING_SHOWN = 12


@get("/season")
async def show_season(visitor: Visitor, services: PageServices) -> Response[str]:
    """The calendar, the week, and what is to come."""
    require_everybodys(visitor, Action.READ)
    season = services.season()
    place = season.place
    where, now = zone(place), clock.now()
    moment = clock.to_datetime(now)
    today = trends.local_day(now, where)
    since = now - _WEEKS_BACK * 7 * trends.DAY
    hours = await services.store(services.monitor.counts, since, now, trends.HOUR, flow="deliveries")
    recent = {at: count for at, count in hours.items() if at >= now - _PATTERN_WEEKS * 7 * trends.DAY}
    days = trends.by_day(hours, where)
    return page(
        "season.html",
        visitor,
        state=season.state(moment),
        plan=season.plan,
        place=place,
        today=season.calendar.day(today),
        calendar=trends.calendar_map(
            days,
            season.calendar,
            first=today - timedelta(weeks=_WEEKS_BACK),
            today=today,
            last=today + timedelta(weeks=_WEEKS_AHEAD),
        ),
        week=trends.week_map(recent, where),
        busiest=sorted(days.items(), key=lambda item: -item[1])[:10],
        coming=season.calendar.coming(moment, _COMING_DAYS, place)[:_COMING_SHOWN],
    )


@get("/season/forecast")
async def show_forecast(visitor: Visitor, services: PageServices) -> Response[str]:
    """What is to come; on its own, since the first forecast of a process takes a moment."""
    require_everybodys(visitor, Action.SEE_SCALING)
    found = await services.api.get(visitor.key, "/v1/forecast", ScalingPrediction, {"days": _FORECAST_DAYS})
    return page(
        "parts/forecast.html",
        visitor,
        forecast=found,
        expected=sum(hour.expected for hour in found.hours),
        missed=_missed(found),
    )


def _missed(found: ScalingPrediction) -> float | None:
    """Of the past hours, how far off what was expected was: Σ|actual - expected| / Σ actual; None of nothing."""
    known = [(hour.expected, hour.actual) for hour in found.past if hour.actual is not None]
    total = sum(actual for _, actual in known)
    return sum(abs(expected - actual) for expected, actual in known) / total if total else None
