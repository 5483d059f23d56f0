"""The health of an endpoint: how deliveries to it went in the last hour."""

from litestar import Response, get

from ringbearer import clock
from ringbearer.api.answers import json_answer
from ringbearer.api.auth import Action, require
from ringbearer.api.reading import path_id
from ringbearer.api.services import ApiServices
from ringbearer.cache.shelf import DeliveryMetrics
from ringbearer.domain.keys import Key

_WINDOW = 3_600.0


@get("/v1/suppliers/{supplier_id:str}/endpoints/{endpoint_id:str}/health")
async def get_endpoint_health(
    supplier_id: str, endpoint_id: str, key: Key, services: ApiServices
) -> Response[bytes]:
    """How deliveries to the endpoint went; measured anew when the figures at hand are older than some seconds."""
    require(key, Action.READ, supplier_id)
    supplier_id, endpoint_id = path_id(supplier_id, "supplier"), path_id(endpoint_id, "endpoint")
    await services.store(services.storage.catalog.get_endpoint, supplier_id, endpoint_id)
    found = await services.cache.get_cached_delivery_metrics(endpoint_id)
    if found is None:
        found = await _measure(services, supplier_id, endpoint_id)
        await services.cache.cache_delivery_metrics(found)
    return json_answer(found)


async def _measure(services: ApiServices, supplier_id: str, endpoint_id: str) -> DeliveryMetrics:
    now = clock.now()
    since = now - int(_WINDOW * clock.SECOND)
    rows = await services.figures(services.monitor.measured, since, now, group_by="endpoint", key=endpoint_id)
    row = rows[0] if rows else None
    answer = row.stages["answer"] if row is not None else None
    return DeliveryMetrics(
        endpoint_id=endpoint_id,
        supplier_id=supplier_id,
        measured_at=clock.to_datetime(now),
        window=_WINDOW,
        attempts=row.attempts if row else 0,
        delivered=row.delivered if row else 0,
        failed=row.attempts - row.delivered if row else 0,
        dead=row.dead if row else 0,
        success=row.success if row else None,
        answer_p50=answer.p50 if answer else None,
        answer_p99=answer.p99 if answer else None,
    )
