"""Endpoints: what they are, how they do, and their circuits."""

from ringbearer.api.answers import Page
from ringbearer.api.breakers import Breaker, BreakerChange
from ringbearer.api.endpoint_forms import EndpointChange, NewEndpoint
from ringbearer.api.endpoints import EndpointWithSecret, NewSecret, PreviewBody, Rotation
from ringbearer.api.operation import OWNERS, SUPPLIER, Operation, get
from ringbearer.api.reading import PageQuery
from ringbearer.cache.shelf import DeliveryMetrics
from ringbearer.delivery.sample import Preview
from ringbearer.domain.deliveries import Attempt
from ringbearer.domain.endpoints import Endpoint


class EndpointPage(Page[Endpoint]):
    """A part of the list of a supplier's endpoints."""


class BreakerPage(Page[Breaker]):
    """A part of the list of circuits that are not closed."""


_ENDPOINTS = SUPPLIER + "/endpoints"
_ENDPOINT = _ENDPOINTS + "/{endpoint_id}"
_CHANGE = (404, 429)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        _ENDPOINTS,
        "createEndpoint",
        "Endpoints",
        "Create an endpoint. The secret is shown in this answer and by rotate-secret only.",
        {201: EndpointWithSecret},
        keys=OWNERS,
        body=NewEndpoint,
        problems=(404, 409),
    ),
    get(
        _ENDPOINTS,
        "listEndpoints",
        "Endpoints",
        "List a supplier's endpoints, oldest first. Keys with the scope read see header values masked.",
        EndpointPage,
        query=PageQuery,
        problems=(404,),
    ),
    get(
        _ENDPOINT,
        "getEndpoint",
        "Endpoints",
        "See an endpoint. Keys with the scope read see header values masked.",
        Endpoint,
        problems=(404,),
    ),
    Operation(
        "PATCH",
        _ENDPOINT,
        "changeEndpoint",
        "Endpoints",
        "Change what the body names; null clears what may be null.",
        {200: Endpoint},
        keys=OWNERS,
        body=EndpointChange,
        problems=_CHANGE,
    ),
    Operation(
        "DELETE",
        _ENDPOINT,
        "deleteEndpoint",
        "Endpoints",
        "Delete an endpoint; its unfinished deliveries are cancelled.",
        {204: None},
        keys=OWNERS,
        problems=_CHANGE,
    ),
    Operation(
        "POST",
        _ENDPOINT + "/rotate-secret",
        "rotateSecret",
        "Endpoints",
        "Make a new secret; the ones before it sign too until the grace ends.",
        {200: NewSecret},
        keys=OWNERS,
        body=Rotation,
        body_required=False,
        problems=(409, *_CHANGE),
    ),
    Operation(
        "POST",
        _ENDPOINT + "/test",
        "testEndpoint",
        "Endpoints",
        "Send one signed sample event now, also to a disabled endpoint.",
        {200: Attempt},
        keys=OWNERS,
        problems=_CHANGE,
    ),
    Operation(
        "POST",
        _ENDPOINT + "/preview",
        "previewEndpoint",
        "Endpoints",
        "Show the request that an event would make, signed and in the endpoint's form; nothing is sent.",
        {200: Preview},
        keys=OWNERS,
        body=PreviewBody,
        body_required=False,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        _ENDPOINT + "/enable",
        "enableEndpoint",
        "Endpoints",
        "Send again; held deliveries are released.",
        {200: Endpoint},
        keys=OWNERS,
        problems=_CHANGE,
    ),
    Operation(
        "POST",
        _ENDPOINT + "/disable",
        "disableEndpoint",
        "Endpoints",
        "Send nothing more; deliveries are held until the endpoint is enabled.",
        {200: Endpoint},
        keys=OWNERS,
        problems=_CHANGE,
    ),
    get(
        _ENDPOINT + "/breaker",
        "getBreaker",
        "Endpoints",
        "See where an endpoint's circuit breaker stands.",
        Breaker,
        problems=(404,),
    ),
    Operation(
        "POST",
        _ENDPOINT + "/breaker",
        "setBreaker",
        "Endpoints",
        "Keep an endpoint's circuit open or closed, or let it find out for itself again.",
        {200: Breaker},
        keys="admin",
        body=BreakerChange,
        problems=_CHANGE,
    ),
    get(
        "/v1/breakers",
        "listBreakers",
        "Endpoints",
        "List the circuits that are not closed.",
        BreakerPage,
        query=PageQuery,
    ),
    get(
        _ENDPOINT + "/health",
        "getEndpointHealth",
        "Endpoints",
        "See how deliveries to an endpoint went in the last hour; figures may be a minute and 15 s old.",
        DeliveryMetrics,
        problems=(404,),
    ),
)
