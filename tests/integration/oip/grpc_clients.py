"""Clients over gRPC, for tests: with tritonclient and by hand."""

from __future__ import annotations

import re
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton

from tessera.app.oip.grpc.schema import Schema
from tests import imagefiles
from tests.servers import ServerProcess
from tests.waiting import NEVER

MODEL = "resnet50-imagenette"
FILES = np.array([imagefiles.jpeg(), imagefiles.png(300, 400)], dtype=object)
LISTENING = re.compile(r"listening for gRPC address=\"?([\d.:]+)")


def listening_at(server: ServerProcess) -> str:
    (found,) = [match[1] for line in server.log if (match := LISTENING.search(line))]
    return found


def tensor(values: np.ndarray, datatype: str = "BYTES") -> triton.InferInput:
    made = triton.InferInput("input", values.shape, datatype)
    made.set_data_from_numpy(values)
    return made


def health(channel: grpc.Channel, name: str, **fields: str) -> Any:
    schema = Schema("health.proto")
    call = schema.calls[name]
    make = channel.unary_stream if call.server_streams else channel.unary_unary
    ask = make(f"/{schema.service}/{name}", call.request.SerializeToString, call.response.FromString)
    return ask(call.request(**fields), timeout=NEVER)
