"""The names of services and methods, as the generated descriptors spell them."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from swarm.wire.v1 import experts_pb2, node_pb2, relay_pb2, stage_pb2

STAGE_SERVICE: str = stage_pb2.DESCRIPTOR.services_by_name["Stage"].full_name
NODE_SERVICE: str = node_pb2.DESCRIPTOR.services_by_name["Node"].full_name
EXPERTS_SERVICE: str = experts_pb2.DESCRIPTOR.services_by_name["Experts"].full_name
RELAY_SERVICE: str = relay_pb2.DESCRIPTOR.services_by_name["Relay"].full_name
HEALTH_SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

RUN = f"/{STAGE_SERVICE}/Run"
RESULTS = f"/{STAGE_SERVICE}/Results"
APPLY = f"/{EXPERTS_SERVICE}/Apply"
DESCRIBE = f"/{NODE_SERVICE}/Describe"
EXCHANGE = f"/{NODE_SERVICE}/Exchange"
DIAL_BACK = f"/{NODE_SERVICE}/DialBack"
RESERVE = f"/{RELAY_SERVICE}/Reserve"
CONNECT = f"/{RELAY_SERVICE}/Connect"
ACCEPT = f"/{RELAY_SERVICE}/Accept"
HEALTH_CHECK = f"/{HEALTH_SERVICE}/Check"
