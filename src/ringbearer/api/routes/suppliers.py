"""Suppliers, and the keys of those who may ask for anything."""

from ringbearer.api.answers import Page
from ringbearer.api.keys import KeyWithText, NewKey
from ringbearer.api.operation import SUPPLIER, Operation, get
from ringbearer.api.reading import PageQuery
from ringbearer.api.suppliers import SupplierBody
from ringbearer.domain.keys import Key
from ringbearer.domain.suppliers import Supplier


class SupplierPage(Page[Supplier]):
    """A part of the list of suppliers."""


class KeyPage(Page[Key]):
    """A part of the list of API keys."""


_SUPPLIERS = "/v1/suppliers"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "PUT",
        SUPPLIER,
        "putSupplier",
        "Suppliers",
        "Create a supplier (201) or replace it (200). The id has 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.",
        {201: Supplier, 200: Supplier},
        keys="admin",
        body=SupplierBody,
        body_required=False,
    ),
    get(_SUPPLIERS, "listSuppliers", "Suppliers", "List suppliers by id.", SupplierPage, query=PageQuery),
    get(SUPPLIER, "getSupplier", "Suppliers", "See a supplier.", Supplier, problems=(404,)),
    Operation(
        "DELETE",
        SUPPLIER,
        "deleteSupplier",
        "Suppliers",
        "Delete a supplier with its endpoints and its keys; unfinished deliveries are cancelled.",
        {204: None},
        keys="admin",
        problems=(404,),
    ),
    Operation(
        "POST",
        "/v1/keys",
        "createKey",
        "Keys",
        "Create an API key, which is shown in this answer only.",
        {201: KeyWithText},
        keys="admin",
        body=NewKey,
    ),
    get(
        "/v1/keys",
        "listKeys",
        "Keys",
        "List API keys, oldest first.",
        KeyPage,
        query=PageQuery,
        keys="admin",
    ),
    Operation(
        "DELETE",
        "/v1/keys/{key_id}",
        "deleteKey",
        "Keys",
        "Delete an API key; it stops working within a second. The key in use cannot delete itself.",
        {204: None},
        keys="admin",
        problems=(404, 409),
    ),
)
