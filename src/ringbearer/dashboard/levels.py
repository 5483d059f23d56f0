"""*Service levels*: what was promised, how it was kept, and how fast the rest of each budget is being used up."""

from litestar import Response, get

from ringbearer.api.auth import Action
from ringbearer.dashboard.rendering import page
from ringbearer.dashboard.services import PageRequest, PageServices, query_of, require_everybodys
from ringbearer.dashboard.sessions import Visitor
from ringbearer.monitor.results import SlaCompliance

_WINDOWS = {"hour": 3_600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400}


@get("/service-levels")
async def show_levels(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """Every objective over an hour, a day, a week or a month."""
    require_everybodys(visitor, Action.SEE_SERVICE)
    chosen = query_of(request).get("window", "day")
    if chosen not in _WINDOWS:
        chosen = "day"
    found = await services.api.get(visitor.key, "/v1/slos", SlaCompliance, {"window": _WINDOWS[chosen]})
    return page(
        "levels.html",
        visitor,
        levels=found,
        burns={
            objective.objective: [burn for burn in found.burns if burn.objective == objective.objective]
            for objective in found.objectives
        },
        window=chosen,
        windows=tuple(_WINDOWS),
        measured=any(objective.total for objective in found.objectives),
    )
