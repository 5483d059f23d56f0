"""The management API as one ASGI application."""

from collections.abc import Callable, Mapping
from typing import cast

from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException

from ringbearer.api import (
    alerts,
    breakers,
    cache,
    deliveries,
    endpoints,
    events,
    figures,
    health,
    keys,
    levels,
    order,
    pages,
    reports,
    scaling,
    shapes,
    suppliers,
    workers,
)
from ringbearer.api.auth import KEY_IN_SCOPE
from ringbearer.api.operations import allowed_methods
from ringbearer.api.problems import Answer, Refusal, answer_to
from ringbearer.api.reading import ApiRequest
from ringbearer.api.services import MAX_BODY_BYTES, ApiServices
from ringbearer.domain.keys import Key
from ringbearer.errors import NotFound

HANDLERS = (
    suppliers.put_supplier,
    suppliers.list_suppliers,
    suppliers.get_supplier,
    suppliers.delete_supplier,
    endpoints.create_endpoint,
    endpoints.list_endpoints,
    endpoints.get_endpoint,
    endpoints.change_endpoint,
    endpoints.delete_endpoint,
    endpoints.rotate_secret,
    endpoints.test_endpoint,
    endpoints.preview_endpoint,
    endpoints.enable_endpoint,
    endpoints.disable_endpoint,
    breakers.get_breaker,
    breakers.set_breaker,
    breakers.list_breakers,
    shapes.put_shape,
    shapes.list_shapes,
    shapes.delete_shape,
    events.get_event,
    deliveries.list_deliveries,
    deliveries.get_delivery,
    deliveries.retry_delivery,
    deliveries.start_replay,
    deliveries.get_replay,
    figures.get_figures,
    figures.get_queue_times,
    figures.get_throughput,
    figures.get_errors,
    levels.get_service_levels,
    levels.put_service_level,
    levels.delete_service_level,
    figures.get_patterns,
    figures.get_overview,
    reports.get_report,
    alerts.list_alerts,
    alerts.get_alert,
    alerts.acknowledge_alert,
    alerts.list_silences,
    alerts.create_silence,
    alerts.delete_silence,
    alerts.list_rules,
    alerts.put_rule,
    alerts.reset_rule,
    alerts.list_channels,
    alerts.create_channel,
    alerts.delete_channel,
    alerts.test_channel,
    keys.create_key,
    keys.list_keys,
    keys.delete_key,
    order.get_queue,
    order.put_queue,
    order.get_priorities,
    order.put_priorities,
    order.get_season,
    order.put_season,
    order.rehearse_season,
    order.get_calendar,
    scaling.get_scaling,
    scaling.change_scaling,
    scaling.list_scaling_decisions,
    health.get_endpoint_health,
    cache.get_cache,
    cache.optimize_cache,
    cache.warm_cache,
    workers.list_workers,
    workers.command_workers,
    workers.list_commands,
    workers.get_command,
    scaling.get_resources,
    scaling.get_scaling_report,
    scaling.get_forecast,
    scaling.get_slas,
    scaling.set_slas,
    pages.openapi_document,
    pages.documentation,
)
"""Everything that this application answers; ingest, health and metrics stand in front of it."""

_AUTHORIZATION = b"authorization"


def create_app(services: Callable[[], ApiServices]) -> Litestar:
    """The application; it starts and stops nothing, belongs to one event loop, and asks for its services each time."""
    return Litestar(
        route_handlers=HANDLERS,
        dependencies={
            "services": Provide(services, sync_to_thread=False),
            "key": Provide(_authenticated),
        },
        exception_handlers={HTTPException: _explain, Exception: _explain},
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


async def _authenticated(request: ApiRequest, services: ApiServices) -> Key:
    known = cast(Mapping[str, object], request.scope).get(KEY_IN_SCOPE)
    if isinstance(known, Key):
        return known
    # Two headers that differ are read differently by different software: neither is believed.
    given = [value for name, value in request.scope["headers"] if name == _AUTHORIZATION]
    header = given[0] if len(given) == 1 else None
    return services.authenticator.cached(header) or await services.authenticator.authenticate(header)


def _explain(request: Request[object, object, State], error: Exception) -> Response[bytes]:
    answer = _answer(request.method, request.scope["path"], error)
    return Response(answer.body, status_code=answer.status, headers=answer.headers)


def _answer(method: str, path: str, error: Exception) -> Answer:
    """The answer to an error, Litestar's own among them, in the API's one form."""
    status = error.status_code if isinstance(error, HTTPException) else None
    if status in (404, 405) or isinstance(error, NotFound):
        allowed = allowed_methods(path)
        if allowed and method not in allowed:
            methods = ", ".join(sorted(allowed))
            return answer_to(
                Refusal(405, f"{method} is not for this path; it takes {methods}", {"allow": methods})
            )
        return answer_to(error if isinstance(error, NotFound) else NotFound("there is nothing at this path"))
    if status == 413:
        return answer_to(Refusal(413, "the body is larger than a management request may be"))
    if status is not None and 400 <= status < 500:
        return answer_to(Refusal(status, "the request is not what this path takes"))
    return answer_to(error)
