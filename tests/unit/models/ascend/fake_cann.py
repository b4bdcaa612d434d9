"""Stand-ins for `atc` and `amct_onnx` that refuse what the real ones would refuse, and write a file of the right form.

Run as a program under either name. The rules are those of CANN's documentation, written without a look at the code
that makes the command lines. TESSERA_TEST_ATC makes `atc` go wrong: fail, nothing, short.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from pathlib import Path

ATC_FLAGS = {
    *("model", "framework", "output", "soc_version", "input_shape", "dynamic_batch_size", "input_format"),
    *("insert_op_conf", "precision_mode", "precision_mode_v2", "op_select_implmode", "fusion_switch_file"),
    *("input_fp16_nodes", "output_type", "out_nodes", "enable_small_channel", "compression_optimize_conf", "log"),
    *("mode", "om", "op_compiler_cache_mode", "op_compiler_cache_dir", "buffer_optimize", "external_weight"),
}
AMCT_FLAGS = {"model", "save_path", "input_shape", "data_dir", "data_types", "batch_num", "calibration_config"}
LOG_LEVELS = ("debug", "info", "warning", "error", "null")
# Chips and Short_SoC_version, in lower case, of data/platform_config/*.ini: CANN 8.1's, and hicann/ge's test data.
FAMILIES = {
    **dict.fromkeys(("Ascend310B1", "Ascend310B2", "Ascend310B3", "Ascend310B4"), "ascend310b"),
    **dict.fromkeys(("Ascend310P1", "Ascend310P3", "Ascend310P5", "Ascend310P7"), "ascend310p"),
    **dict.fromkeys(("Ascend910A", "Ascend910ProA", "Ascend910ProB", "Ascend910PremiumA", "Ascend910B"), "ascend910"),
    **dict.fromkeys(("Ascend910B1", "Ascend910B2", "Ascend910B2C", "Ascend910B3", "Ascend910B4"), "ascend910b"),
    **dict.fromkeys(("Ascend910_9362", "Ascend910_9391"), "ascend910_93"),
    "Ascend310": "ascend310",
    "Ascend910_95": "ascend910_95",
    "Ascend910_5591": "ascend910_55",
}
PRECISIONS = {
    "force_fp16", "force_fp32", "cube_fp16in_fp32out", "allow_fp32_to_fp16", "must_keep_origin_dtype",
    "allow_mix_precision", "allow_mix_precision_fp16", "allow_mix_precision_bf16", "allow_fp32_to_bf16",
}  # fmt: skip
AIPP_FIELDS = {
    "aipp_mode": r"static|dynamic",
    "input_format": r"YUV420SP_U8|XRGB8888_U8|RGB888_U8|YUV400_U8",
    "crop|csc_switch|rbuv_swap_switch|ax_swap_switch|padding": r"true|false",
    r"src_image_size_[wh]|load_start_pos_[wh]|crop_size_[wh]": r"\d+",
    r"mean_chn_[0-3]": r"\d{1,2}|1\d\d|2[0-4]\d|25[0-5]",
    r"(min|var_reci)_chn_[0-3]": r"\d+(\.\d+)?",
}


def refuse(message: str) -> None:
    print(f"ATC start working now, please wait for a moment.\nATC run failed, Please check the detail log\n{message}")
    sys.exit(1)


def flags(words: list[str], known: set[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        found = re.fullmatch(r"--([a-z_0-9]+)=(.+)", word)
        if found is None or found[1] not in known or found[1] in given:
            refuse(f"E10003: flag {word} is unknown, empty or given twice")
        given[found[1]] = found[2]
    return given


class Graph:
    """What the stand-ins look at in an ONNX file, read from the wire format: importing onnx takes a second."""

    def __init__(self, path: str) -> None:
        model = parse(Path(path).read_bytes())
        self.opsets = {text(first(entry, 1)): first(entry, 2, 0) for entry in map(parse, model[8])}
        graph = parse(model[7][0])
        self.domains = {text(first(node, 4)): text(first(node, 7)) for node in map(parse, graph[1])}
        constants = {text(first(parse(tensor), 8)) for tensor in graph.get(5, [])}
        (value,) = [value for value in map(parse, graph[11]) if text(first(value, 1)) not in constants]
        self.input = text(first(value, 1))
        shape = parse(first(parse(first(parse(first(value, 2)), 1)), 2))
        self.dims = [first(parse(dim), 1, 0) for dim in shape[1]]


def parse(data: bytes) -> dict[int, list]:
    """Fields of a protobuf message by number; only varints and lengths, which are all that ONNX graphs use here."""
    fields: dict[int, list] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(data):
        key = varint()
        if key & 7 == 0:
            fields.setdefault(key >> 3, []).append(varint())
        elif key & 7 == 2:
            length = varint()
            fields.setdefault(key >> 3, []).append(data[position : position + length])
            position += length
        else:
            position += 4 if key & 7 == 5 else 8
    return fields


def first(fields: dict[int, list], number: int, default: object = b"") -> object:
    return fields.get(number, [default])[0]


def text(value: bytes) -> str:
    return value.decode()


def shape_of(text: str, name: str, declared: list[int]) -> list[int]:
    found = re.fullmatch(r"([^:]+):(-?\d+(?:,-?\d+)*)", text)
    if found is None or found[1] != name:
        refuse(f"E10005: input_shape {text} does not name the input {name}")
    dims = [int(part) for part in found[2].split(",")]
    fits = all(want in (0, have) for want, have in zip(declared, dims, strict=True)) if len(dims) == 4 else False
    if not fits or 0 in dims:
        refuse(f"E10006: input_shape {dims} does not fit {declared}")
    return dims


def check_batch(given: dict[str, str], dims: list[int]) -> None:
    gears = given.get("dynamic_batch_size")
    if gears is None:
        if min(dims) < 1:
            refuse("E10007: input_shape has -1 but there is no dynamic_batch_size")
        return
    sizes = [int(part) for part in gears.split(",")]
    if dims[0] != -1 or min(dims[1:]) < 1:
        refuse("E10008: dynamic_batch_size needs -1 as N and nowhere else")
    if not 2 <= len(sizes) <= 100 or len(set(sizes)) != len(sizes) or not all(1 <= size <= 2048 for size in sizes):
        refuse(f"E10009: gears {sizes}")


def check_aipp(path: str, dims: list[int], given: dict[str, str]) -> None:
    if "input_fp16_nodes" in given:
        refuse("E10010: insert_op_conf excludes input_fp16_nodes")
    text = re.sub(r"#.*", "", Path(path).read_text())
    body = re.fullmatch(r"\s*aipp_op\s*\{(.*)\}\s*", text, re.DOTALL)
    if body is None:
        refuse("E10011: no aipp_op")
    fields: dict[str, str] = {}
    for key, value in re.findall(r"(\S+)\s*:\s*(\S+)", body[1]):
        rule = next((rule for name, rule in AIPP_FIELDS.items() if re.fullmatch(name, key)), None)
        if rule is None or not re.fullmatch(rule, value) or key in fields:
            refuse(f"E10012: aipp field {key}: {value}")
        fields[key] = value
    if fields.get("aipp_mode") != "static" or fields.get("input_format") != "RGB888_U8":
        refuse("E10013: this stand-in expects static AIPP of RGB")
    cropped = fields.get("crop") == "true"
    kind = "crop_size" if cropped else "src_image_size"
    sides = [fields[f"{kind}_h"], fields[f"{kind}_w"]]
    if [int(side) for side in sides] != dims[2:]:
        refuse(f"E10014: AIPP gives {sides}, the network takes {dims[2:]}")
    if not all(0 < float(fields[f"var_reci_chn_{channel}"]) < 1 for channel in range(3)):
        refuse("E10015: var_reci_chn")


def check_operators(graph: Graph, soc: str) -> None:
    if not 8 <= graph.opsets[""] <= 16:
        refuse(f"E19010: opset {graph.opsets['']} has no parser")
    own = {operator for operator, domain in graph.domains.items() if domain not in ("", "ai.onnx")}
    if not own:
        return
    package = os.environ.get("ASCEND_CUSTOM_OPP_PATH", "").split(":")[0]
    if not package.startswith("/"):
        refuse(f"E19010: ASCEND_CUSTOM_OPP_PATH {package} is no absolute path")
    tbe, family = Path(package, "op_impl/ai_core/tbe"), FAMILIES[soc]
    info, implementation = tbe / "config" / family / f"aic-{family}-ops-info.json", tbe / f"{Path(package).name}_impl"
    if not info.is_file() or not implementation.is_dir() or not own <= set(json.loads(info.read_text())):
        refuse(f"E19010: No parser is registered for Op {sorted(own)}")


def atc(words: list[str]) -> None:
    given = flags(words, ATC_FLAGS)
    if given.get("mode") == "6":
        om = Path(given["om"]).read_bytes()
        print(f"============ Display Model Info start ============\nsoc_version: {om[256:].decode()}")
        return
    if given.get("framework") != "5" or given.get("soc_version") not in FAMILIES:
        refuse("E10001: framework or soc_version")
    if given.get("input_format", "NCHW") not in ("NCHW", "ND") or given.get("log", "null") not in LOG_LEVELS:
        refuse("E10001: input_format or log")
    if given.get("output_type", "FP32") not in ("FP32", "FP16"):
        refuse("E10001: output_type")
    if (
        given.get("precision_mode") not in {None, *PRECISIONS}
        or {"precision_mode", "precision_mode_v2"} <= given.keys()
    ):
        refuse("E10001: precision_mode")
    graph = Graph(given["model"])
    dims = shape_of(given["input_shape"], graph.input, graph.dims)
    check_batch(given, dims)
    if "insert_op_conf" in given:
        check_aipp(given["insert_op_conf"], dims, given)
    elif given.get("enable_small_channel") == "1":
        refuse("E10016: enable_small_channel needs static AIPP")
    check_operators(graph, given["soc_version"])
    fault = os.environ.get("TESSERA_TEST_ATC")
    if fault == "fail":
        refuse("E40021: Failed to compile Op [conv1], UB overflow")
    Path("kernel_meta").mkdir(exist_ok=True)
    Path("fusion_result.json").write_text("{}")
    if fault != "nothing":
        write_om(Path(given["output"] + ".om"), given["soc_version"].encode(), short=fault == "short")
    print("ATC run success, welcome to the next use.")


def write_om(path: Path, body: bytes, *, short: bool = False) -> None:
    header = bytearray(256)
    struct.pack_into("<4sII", header, 0, b"IMOD", 256, 0x10000000)
    struct.pack_into("<I", header, 76, len(body) + short)
    header[160:165] = b"1.82."
    path.write_bytes(bytes(header) + body)


def amct(words: list[str]) -> None:
    if words[:1] != ["calibration"]:
        refuse("usage: amct_onnx calibration")
    given = flags(words[1:], AMCT_FLAGS)
    graph = Graph(given["model"])
    dims = shape_of(given["input_shape"], graph.input, graph.dims)
    files = sorted(Path(given["data_dir"]).iterdir())
    size = 4 * dims[0] * dims[1] * dims[2] * dims[3]
    if min(dims) < 1 or given["data_types"] != "float32" or len(files) < int(given["batch_num"]):
        refuse("calibration data")
    if [file for file in files if file.stat().st_size != size]:
        refuse(f"every file must have {size} bytes")
    for kind in ("deploy", "fake_quant"):
        Path(f"{given['save_path']}_{kind}_model.onnx").write_bytes(Path(given["model"]).read_bytes())
    Path("amct_log").mkdir(exist_ok=True)


if __name__ == "__main__":
    (amct if Path(sys.argv[0]).name == "amct_onnx" else atc)(sys.argv[1:])
