"""Deliveries: seen, tried again, replayed."""

from ringbearer.api.answers import Page
from ringbearer.api.deliveries import DeliveriesQuery, ReplayBody, ReplayProgress, ReplayStarted
from ringbearer.api.operation import OWNERS, Operation, get
from ringbearer.domain.deliveries import Delivery, DeliveryDetail


class DeliveryPage(Page[Delivery]):
    """A part of the list of deliveries."""


OPERATIONS: tuple[Operation, ...] = (
    get(
        "/v1/deliveries",
        "listDeliveries",
        "Deliveries",
        "List deliveries, newest first.",
        DeliveryPage,
        query=DeliveriesQuery,
        problems=(404,),
    ),
    get(
        "/v1/deliveries/{delivery_id}",
        "getDelivery",
        "Deliveries",
        "See a delivery with its attempts.",
        DeliveryDetail,
        problems=(404,),
    ),
    Operation(
        "POST",
        "/v1/deliveries/{delivery_id}/retry",
        "retryDelivery",
        "Deliveries",
        "Make a delivery due now; 409 when it is held or cancelled.",
        {202: DeliveryDetail},
        keys=OWNERS,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        "/v1/deliveries/replay",
        "startReplay",
        "Deliveries",
        "Send many deliveries again, paced so that live traffic goes first.",
        {202: ReplayStarted},
        keys=OWNERS,
        body=ReplayBody,
        body_required=False,
        problems=(404,),
    ),
    get(
        "/v1/deliveries/replay/{replay_id}",
        "getReplay",
        "Deliveries",
        "See how far a replay is.",
        ReplayProgress,
        problems=(404,),
    ),
)
