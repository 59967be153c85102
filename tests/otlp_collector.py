"""A collector that speaks OTLP over gRPC and keeps what it gets."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc


class Collector(trace_grpc.TraceServiceServicer, metrics_grpc.MetricsServiceServicer):
    def __init__(self) -> None:
        self.spans, self.resources, self.metrics = [], [], []

    def Export(self, request, context):
        if isinstance(request, trace_pb.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                self.resources.append({each.key: each.value.string_value for each in resource.resource.attributes})
                for scope in resource.scope_spans:
                    self.spans += scope.spans
            return trace_pb.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics += scope.metrics
        return metrics_pb.ExportMetricsServiceResponse()


@contextmanager
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector on a free port, and its address."""
    server, found = grpc.server(futures.ThreadPoolExecutor(2)), Collector()
    trace_grpc.add_TraceServiceServicer_to_server(found, server)
    metrics_grpc.add_MetricsServiceServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield found, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
