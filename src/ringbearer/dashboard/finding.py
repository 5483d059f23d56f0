"""The search field: an id of anything leads to its page."""

from urllib.parse import quote

from litestar import Response, get

from ringbearer.dashboard.doorway import redirect
from ringbearer.dashboard.services import PageRequest, query_of
from ringbearer.dashboard.sessions import Visitor


@get("/find")
async def find(request: PageRequest, visitor: Visitor) -> Response[str]:
    """Go to the page of what was typed."""
    text = query_of(request).get("id", "")
    safe = quote(text, safe="")
    for prefix, path in (
        ("dlv_", f"/deliveries/{safe}"),
        ("evt_", f"/deliveries?event_id={safe}"),
        ("ep_", f"/deliveries?endpoint_id={safe}"),
        ("rpl_", f"/replay/{safe}"),
    ):
        if text.startswith(prefix):
            return redirect(path)
    if visitor.key.supplier_id is None:
        return redirect(f"/suppliers?text={safe}")
    return redirect(f"/deliveries?event_type={safe}" if text else "/deliveries")
