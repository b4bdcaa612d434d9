"""AscendCL's enumerations and error names, with the values of CANN 6.0 to 9.x."""

from __future__ import annotations

from enum import IntEnum

DYNAMIC_BATCH_INPUT = b"ascend_mbatch_shape_data"
MAX_DIMENSIONS = 128
MAX_NAME = 128
MAX_GEARS = 128


class RunMode(IntEnum):
    """Where this process runs: on the device itself (RC mode boards), or on a host beside it."""

    DEVICE = 0
    HOST = 1


class MemcpyKind(IntEnum):
    """Direction of a copy."""

    HOST_TO_DEVICE = 1
    DEVICE_TO_HOST = 2


class MallocPolicy(IntEnum):
    """Which pages device memory comes from."""

    HUGE_FIRST = 0


class MemoryAttribute(IntEnum):
    """Which memory `aclrtGetMemInfo` is asked about: 310-class chips have DDR, 910-class ones HBM."""

    DDR = 0
    HBM = 1


class DataType(IntEnum):
    """Element types that models here may have. 5 does not exist."""

    FLOAT = 0
    FLOAT16 = 1
    UINT8 = 4


class Status(IntEnum):
    """Codes that the backend tells apart; every other one is handled by its class, see `errors`."""

    REPEAT_INITIALIZE = 100002
    COMPILING_STUB_MODE = 100039
    WAIT_TIMEOUT = 107019
    TASK_TIMEOUT = 107020
    AICORE_TIMEOUT = 507014
    STREAM_SYNC_TIMEOUT = 507046


ERROR_NAMES = {
    100000: "INVALID_PARAM",
    100001: "UNINITIALIZE",
    100002: "REPEAT_INITIALIZE",
    100003: "INVALID_FILE",
    100011: "INVALID_MODEL_ID",
    100012: "DESERIALIZE_MODEL",
    100013: "PARSE_MODEL",
    100014: "READ_MODEL_FAILURE",
    100015: "MODEL_SIZE_INVALID",
    100017: "MODEL_INPUT_NOT_MATCH",
    100018: "MODEL_OUTPUT_NOT_MATCH",
    100019: "MODEL_NOT_DYNAMIC",
    100037: "REPEAT_FINALIZE",
    100039: "COMPILING_STUB_MODE",
    100042: "PROF_ALREADY_RUN",
    100043: "PROF_NOT_RUN",
    107000: "RT_PARAM_INVALID",
    107001: "RT_INVALID_DEVICEID",
    107002: "RT_CONTEXT_NULL",
    107003: "RT_STREAM_CONTEXT",
    107017: "RT_INVALID_HANDLE",
    107018: "RT_INVALID_MALLOC_TYPE",
    107019: "RT_WAIT_TIMEOUT",
    107020: "RT_TASK_TIMEOUT",
    145000: "GE_PARAM_INVALID",
    145001: "GE_EXEC_NOT_INIT",
    145002: "GE_EXEC_MODEL_PATH_INVALID",
    145003: "GE_EXEC_MODEL_ID_INVALID",
    145006: "GE_EXEC_MODEL_DATA_SIZE_INVALID",
    145011: "GE_DYNAMIC_INPUT_ADDR_INVALID",
    145012: "GE_DYNAMIC_INPUT_LENGTH_INVALID",
    145013: "GE_DYNAMIC_BATCH_SIZE_INVALID",
    200000: "BAD_ALLOC",
    200001: "API_NOT_SUPPORT",
    200002: "INVALID_DEVICE",
    200003: "MEMORY_ADDRESS_UNALIGNED",
    207000: "RT_FEATURE_NOT_SUPPORT",
    207001: "RT_MEMORY_ALLOCATION",
    207004: "RT_NO_DEVICE",
    207006: "RT_NO_PERMISSION",
    207008: "RT_NO_STREAM_RESOURCE",
    207018: "RT_DEVICE_OOM",
    245000: "GE_MEMORY_ALLOCATION",
    300000: "STORAGE_OVER_LIMIT",
    500000: "INTERNAL_ERROR",
    500001: "FAILURE",
    500002: "GE_FAILURE",
    500003: "RT_FAILURE",
    500004: "DRV_FAILURE",
    500005: "PROFILING_FAILURE",
    507000: "RT_INTERNAL_ERROR",
    507008: "RT_SOC_VERSION",
    507010: "RT_LOST_HEARTBEAT",
    507011: "RT_MODEL_EXECUTE",
    507013: "RT_SYS_DMA",
    507014: "RT_AICORE_TIMEOUT",
    507015: "RT_AICORE_EXCEPTION",
    507018: "RT_AICPU_EXCEPTION",
    507033: "RT_DEV_SETUP_ERROR",
    507046: "RT_STREAM_SYNC_TIMEOUT",
    507899: "RT_DRV_INTERNAL_ERROR",
    545000: "GE_INTERNAL_ERROR",
    545001: "GE_LOAD_MODEL",
    545009: "GE_UNLOAD_MODEL",
}

# What to do about the codes that users meet when they set a machine up.
ADVICE = {
    100039: "A stub of libascendcl.so, made for linking only, was loaded: take the folder 'stub' or 'devlib' out of "
    "LD_LIBRARY_PATH and source CANN's set_env.sh.",
    107001: "This process may not see that device: check npu-smi info and ASCEND_RT_VISIBLE_DEVICES.",
    145002: "The file cannot be read: check its path and permissions.",
    145006: "The file is no whole .om file: copy or convert it again.",
    145013: "The .om file was converted without this batch size: convert it again with --dynamic_batch_size.",
    207001: "Memory ran out: serve fewer models on this device, or convert with smaller batch sizes.",
    207004: "No device was found: check npu-smi info, and that /dev/davinci* is passed into the container.",
    207006: "Permission denied: the user must be in group HwHiAiUser.",
    207018: "Memory of the device ran out: serve fewer models on it, or convert with smaller batch sizes.",
    507008: "The .om file is for another chip: convert it with --target for this one (npu-smi info names it).",
    507010: "The device stopped answering: check npu-smi info -t health; reset it or restart the host.",
    507014: "An operator ran into its time limit: see the log under ~/ascend/log.",
    507015: "An operator failed on the AI core: see the log under ~/ascend/log; an .om file of another chip or CANN "
    "version does this.",
    507033: "The device cannot be set up: driver, firmware and CANN do not fit together, or it is in use exclusively.",
    507046: "The device did not finish in time.",
    545001: "CANN cannot load the file: it was made by a newer ATC, or for another chip.",
}
