"""A collector made of the messages that PyPI opentelemetry-proto has, for tests of what a node sends.

usage: otlp_collector.py PROTOCOL BEHAVIOUR [CERTIFICATE KEY]

PROTOCOL is grpc or http. BEHAVIOUR is take, slow (each answer takes three seconds), busy (429 with
Retry-After, or UNAVAILABLE), once (busy for the first request of each signal), reject (all but one item
of a request), mute (the same without a reason), warn (takes all, and says something), deny_taken (takes all, and
answers 503, or UNAVAILABLE, as one whose backend is late); by http alone later (503 with a Retry-After of a
minute), deny (401 with the key in its body) and page (200 with a page, of a proxy). The first line on stdout is the port; then one JSON object for each request, with the
signal, the headers, and the message: ids as hex, 64-bit numbers as text.
"""

import base64
import gzip
import json
import ssl
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

SIGNALS = {
    "traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
    "metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
    "logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
}
IDS = {"trace_id", "span_id", "parent_span_id"}
SLOW_S = 3
printing = threading.Lock()
seen = set()


def say(line):
    with printing:
        print(line, flush=True)


def with_hex_ids(value):
    if isinstance(value, list):
        return [with_hex_ids(item) for item in value]
    if isinstance(value, dict):
        return {
            name: base64.b64decode(item).hex() if name in IDS else with_hex_ids(item)
            for name, item in value.items()
        }
    return value


def count(signal, request):
    if signal == "traces":
        return sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
    if signal == "logs":
        return sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
    of = lambda m: len(getattr(m, m.WhichOneof("data")).data_points)
    return sum(of(m) for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics)


def answer(signal, request, headers, behaviour):
    """The answer to a request, or None where it is not taken."""
    if behaviour == "slow":
        time.sleep(SLOW_S)
    if behaviour in ("busy", "later", "deny", "page") or (behaviour == "once" and signal not in seen):
        seen.add(signal)
        say(json.dumps({"refused": signal}))
        return None
    message = with_hex_ids(MessageToDict(request, preserving_proto_field_name=True))
    say(json.dumps({"signal": signal, "headers": headers, "message": message}))
    if behaviour == "deny_taken":
        return None
    response = SIGNALS[signal][1]()
    if behaviour == "warn":
        response.partial_success.error_message = "better use another name"
    if behaviour in ("reject", "mute"):
        partial = response.partial_success
        name = {"traces": "spans", "logs": "log_records", "metrics": "data_points"}[signal]
        setattr(partial, f"rejected_{name}", count(signal, request) - 1)
        partial.error_message = "too much" if behaviour == "reject" else ""
    return response


def serve_grpc(behaviour, certificate, key):
    def export(signal):
        def method(self, request, context):
            headers = dict(context.invocation_metadata())
            response = answer(signal, request, headers, behaviour)
            if response is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
            return response

        return method

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    for signal, service, add in (
        ("traces", traces_grpc.TraceServiceServicer, traces_grpc.add_TraceServiceServicer_to_server),
        ("metrics", metrics_grpc.MetricsServiceServicer, metrics_grpc.add_MetricsServiceServicer_to_server),
        ("logs", logs_grpc.LogsServiceServicer, logs_grpc.add_LogsServiceServicer_to_server),
    ):
        add(type(signal, (service,), {"Export": export(signal)})(), server)
    if certificate:
        with open(key, "rb") as k, open(certificate, "rb") as c:
            credentials = grpc.ssl_server_credentials([(k.read(), c.read())])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(port)
    server.wait_for_termination()


def serve_http(behaviour, certificate, key):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            signal = self.path.rsplit("/", 1)[-1]
            if self.path != f"/v1/{signal}" or signal not in SIGNALS:
                return self.tell(404, b"")
            request = SIGNALS[signal][0].FromString(body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            response = answer(signal, request, headers, behaviour)
            if response is None:
                return self.refuse(headers)
            return self.tell(200, response.SerializeToString())

        def refuse(self, headers):
            if behaviour == "deny_taken":
                return self.tell(503, b"")
            if behaviour == "later":
                return self.tell(503, b"", ("retry-after", "60"))
            if behaviour == "deny":
                return self.tell(401, f"no such key: {headers.get('api-key')}".encode(), kind="text/plain")
            if behaviour == "page":
                return self.tell(200, b"<html>hello</html>", kind="text/html")
            return self.tell(429, b"", ("retry-after", "1"))

        def tell(self, status, body, *more, kind="application/x-protobuf"):
            self.send_response(status)
            for name, value in (("content-type", kind), *more):
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    say(server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    protocol, behaviour, *files = sys.argv[1:]
    certificate, key = files or (None, None)
    serve = {"grpc": serve_grpc, "http": serve_http}[protocol]
    serve(behaviour, certificate, key)
