"""Providers that have the schemas of AWS's and Google's and do nothing.

In: the JSON files of schemas.py. Out: a line for TF_REATTACH_PROVIDERS on stdout, by which Terraform
reaches both over Unix sockets, until stdin is closed. One process serves a whole run of checks, so
nothing is installed or started for each module. Terraform checks configurations against the schemas
and plays every resource itself (`mock_provider`); nothing here knows of a cloud.
"""

import json
import os
import sys
from concurrent import futures

import grpc
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc

# Schemas of the types in use have about a megabyte; gRPC's own limit is four.
MESSAGE_BYTES_MAX = 256 * 1024 * 1024
NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}


def attribute(name, spec):
    made = pb.Schema.Attribute(
        name=name,
        required=spec.get("required", False),
        optional=spec.get("optional", False),
        computed=spec.get("computed", False),
    )
    if "nested" in spec:
        inner = spec["nested"]
        made.nested_type.nesting = NESTING[inner["nesting"]]
        made.nested_type.attributes.extend(attributes(inner["attributes"]))
    else:
        made.type = json.dumps(spec["type"]).encode()
    return made


def attributes(specs):
    return [attribute(name, spec) for name, spec in sorted(specs.items())]


def block(spec):
    made = pb.Schema.Block(attributes=attributes(spec["attributes"]))
    for name, inner in sorted(spec["blocks"].items()):
        made.block_types.append(
            pb.Schema.NestedBlock(
                type_name=name,
                block=block(inner["block"]),
                nesting=NESTING[inner["nesting"]],
                min_items=inner["min"],
                max_items=inner["max"],
            )
        )
    return made


def schema(spec):
    return pb.Schema(version=0, block=block(spec))


class Stub(rpc.ProviderServicer):
    def __init__(self, found):
        capabilities = pb.ServerCapabilities(get_provider_schema_optional=False)
        # Any argument of the provider itself is the caller's; modules set none.
        own = {"attributes": {"region": {"type": "string", "optional": True},
                              "project": {"type": "string", "optional": True}}, "blocks": {}}
        self.answer = pb.GetProviderSchema.Response(
            provider=schema(own),
            resource_schemas={name: schema(spec) for name, spec in found["resources"].items()},
            data_source_schemas={name: schema(spec) for name, spec in found["data"].items()},
            server_capabilities=capabilities,
        )

    def GetMetadata(self, request, context):
        return pb.GetMetadata.Response(
            resources=[pb.GetMetadata.ResourceMetadata(type_name=n) for n in self.answer.resource_schemas],
            data_sources=[pb.GetMetadata.DataSourceMetadata(type_name=n) for n in self.answer.data_source_schemas],
        )

    def GetProviderSchema(self, request, context):
        return self.answer

    def ValidateProviderConfig(self, request, context):
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request, context):
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request, context):
        return pb.ValidateDataResourceConfig.Response()

    def ConfigureProvider(self, request, context):
        return pb.ConfigureProvider.Response()

    def GetFunctions(self, request, context):
        return pb.GetFunctions.Response()

    def StopProvider(self, request, context):
        return pb.StopProvider.Response()


def serve(found, path):
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8),
        options=[
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ],
    )
    rpc.add_ProviderServicer_to_server(Stub(found), server)
    if not server.add_insecure_port(f"unix:{path}"):
        sys.exit(f"stub: cannot listen on {path}")
    server.start()
    return server


def main():
    """stub.py SOCKET_FOLDER NAME=SCHEMAS.json..."""
    folder, servers, reattach = sys.argv[1], [], {}
    for pair in sys.argv[2:]:
        name, path = pair.split("=", 1)
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        socket = os.path.join(folder, f"{name}.sock")
        servers.append(serve(found, socket))
        # Without a host, Terraform takes its own default.
        reattach[f"hashicorp/{name}"] = {
            "Protocol": "grpc",
            "ProtocolVersion": 6,
            "Pid": os.getpid(),
            "Test": True,
            "Addr": {"Network": "unix", "String": socket},
        }
    print(json.dumps(reattach), flush=True)
    sys.stdin.read()
    for server in servers:
        server.stop(grace=0)


if __name__ == "__main__":
    main()
