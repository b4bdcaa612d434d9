"""Checkpoints as `torch.save` writes them, without PyTorch: one that PyTorch 2.13 wrote, and any other on demand."""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# torch.save({"epoch": 2, "model": state, "args": argparse.Namespace(lr=0.1)}, file), where state is an OrderedDict of
# module.t = arange(12.).reshape(3, 4).t(), module.slice = the same storage [4:6], module.half = [1.5] in float16,
# module.bf = [[2.5, -3]] in bfloat16, module.p = Parameter([7.]), module.bn.num_batches_tracked = 9.
WRITTEN_BY_TORCH = zlib.decompress(
    base64.b85decode(
        "c-o~_%WvaE7@s_vhg;GIh3=N!QeI2K?xuE}N3-2+QVSU*Bj^SY7MI{S(<E9a&Sy^wtW>E8wZH`lgpk<7ivI#Qu?LP^IKYVm2nmT3"
        ";>491yGd+^w%T@-&z6(<J!UfBFWFWiQG^l+G%@DT0@5tK-Py%!O^s;T{vAV>Qs`~p*bnakN~=>8fcvK2hL93=p1Nie8xYoY(=f13"
        "I%d!2UbC9m!p#>uI^iIasX;WYCfvCL17`_L>BOXx+4_KV44bQ4xH0G$%{sw7+qCMtISyj!v>K-vo6gi)7~(F3lMPcNue)z@kWfQ("
        "4i8B+LhpKi0Gu*IVEVR#l&BIpgc&8IL=WMSPuk2!iok3Q=G2+78QbXS80OnluN`kE+R3)VuyC8=!w2xF5;}lI7yTH4$7`^pPLI)T"
        "&DenpF8Ijc%k-_0zl)AP0hTFih`<xf7bU#JE|*=_6#`GzU{y_ySsOd>l#f$#RxK1qyiYs4Ie3Qhh6z0D@G9X$cuol`p+mUhaz9TX"
        "U4x8w^ZW3^F`M7lEUk+Pwm7&t+zv-Zgln$->qqvp?6T%c@C1Y!<UV#D#E&3fgMxb5vzA`AH|W+I8qwR>t`kes@8BjBed~M0?6pQ~"
        "D><ThSa(IsR5X)u#cmMTsKL#FO3yMqv@IKM>GVdO+n9Tmy0`n9PAN7sA3$Xfs%n_dGc4G8sq)=dY}~UOgY32vPt0V0|M^GyDXZ;c"
        "dt(W$jd~-yV_IE})OWFE(^D=>R|73_;t-hVH-G>7AzK@(<3*QIX)Jnl{Og+0Y4y6eM`THS7~SD0=9z)YyYLs=lJJQJ=22y2pz%Jz"
        "CTnL|+Bl2ua2Opz49q+n-1_5UjH<*=^pHZEzEoP{W$DH_47jZO6?&=C7p;9-U(<R(>o;0xi)JCMRa*QObNb%i&L+>|<rJrjey4&g"
        "%}qE(n~d>|*>Cqx-~SYn{ERtS+C0zZ)3I8uK41>s>i=_(HBa;u2UWiVQI>9=%K_VCrvFa&&*T~O^XJu19x*cy(huFcOf+$#hgq~S"
        "@-XW8(pgQ298>=3e(TNCzyB4K8wY^1d>dOGngDk-_WN4zG-WCKkVbgEP!P(zuwD>zyjUpnrS%eDD&~s?p;Ru3d?_!M`Mkh0m)b8^"
        "K21{}X~$)VnH~A`=H}dl^Wgu8Ale&%OFrbK2s$olgCyP%TlSHB<|Ua(&LEFBh~|Af3sE!~fI+x79a28{mr)eRt{~Q%1Ac6EDu5M&"
        "SZ@dWv7ZOAxggfteSYj>EPxe*SZ~+(v0ntS`5@MN?q_}23vm?evLM)d99R4c_JIGtQMQ#>?AoxcBG*UA>A?N_uzO!m3}Yh3{(Pc;"
        "IrrK9#h!|}m}zIeJNG~2T9ao"
    )
)

_KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def name(module: str, text: str) -> bytes:
    """GLOBAL."""
    return b"c" + module.encode() + b"\n" + text.encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def storage(kind: str, key: str, count: int) -> bytes:
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    view = stored + number(offset) + numbers(shape) + numbers(strides)
    hooks = name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + view + b"\x89" + hooks + b"tR"


def dictionary(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def archive(records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for path, data in records.items():
            made.writestr(f"archive/{path}", data)
    return file.getvalue()


def checkpoint(state: Mapping[str, NDArray[Any]], wrap: Callable[[bytes], bytes] = lambda state: state) -> bytes:
    """The file of a state dict; `wrap` makes a larger pickle around the state's."""
    entries: dict[str, bytes] = {}
    records: dict[str, bytes] = {}
    for index, (key, array) in enumerate(state.items()):
        values = np.ascontiguousarray(array)
        strides = tuple(step // values.itemsize for step in values.strides)
        stored = storage(_KINDS[array.dtype.name], str(index), array.size)
        entries[key] = tensor(stored, 0, array.shape, strides)
        records[f"data/{index}"] = values.tobytes()
    return archive({"data.pkl": pickled(wrap(dictionary(entries))), "byteorder": b"little", **records})
