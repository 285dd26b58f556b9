"""Several clusters behind one gRPC port: a call is answered by the door of the cluster that its metadata names.

Enters: a door for each cluster. Leaves: one handler for all of them. Invariant: a call that
names a cluster is answered by that cluster's door and no other; one that is not known is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from aggregator.model.agent import CLUSTER_KEY
from wattle.v1 import query_pb2_grpc


class DoorsByCluster(grpc.GenericRpcHandler):
    """In the place of one door. `doors`: by the cluster's name; "" answers a call that names none."""

    def __init__(self, service: str, doors: Mapping[str, query_pb2_grpc.QueryServicer]) -> None:
        self._prefix = f"/{service}/"
        self._handlers = {cluster: _handlers_of(door) for cluster, door in doors.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if not handler_call_details.method.startswith(self._prefix):
            return None
        cluster = next((v for k, v in handler_call_details.invocation_metadata or () if k == CLUSTER_KEY), "")
        handlers = self._handlers.get(str(cluster))
        if handlers is None:
            return grpc.unary_unary_rpc_method_handler(_no_such_cluster)
        answers = (handler.service(handler_call_details) for handler in handlers)
        return next((found for found in answers if found is not None), None)


async def _no_such_cluster(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such cluster here")


class _Collected:
    """Stands in for a server, to be told by generated code how a door answers."""

    def __init__(self) -> None:
        self.handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self.handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The same once more, by method."""


def _handlers_of(door: query_pb2_grpc.QueryServicer) -> Sequence[grpc.GenericRpcHandler]:
    collected = _Collected()
    query_pb2_grpc.add_QueryServicer_to_server(door, collected)  # type: ignore[no-untyped-call]  # generated
    return collected.handlers
