"""Ascend NPUs: .om files run through AscendCL, which is called with ctypes.

From the outside in: `session` (the interface of all backends) cuts batches into gears (`gears`), writes images as the
model takes them (`images`) and asks the `balancer` for a slot of a device. A `replica` is the model on one device; its
`instance`s hold the loaded `model`, its streams and staging buffers (`memory`). `runtime` is AscendCL in this process,
`library` finds and calls it by the types in `prototypes`.
"""
