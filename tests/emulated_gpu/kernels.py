"""cupy.RawKernel, RawModule and ElementwiseKernel on the emulated device."""

from __future__ import annotations

import ctypes
import itertools
from functools import cache
from typing import Any

import numpy as np

from tests.emulated_gpu import memory
from tests.emulated_gpu.arrays import ndarray
from tests.emulated_gpu.compiler import CompileException, library
from tests.emulated_gpu.device import CUDARuntimeError, get_current_stream, submit

_seeds = itertools.count(1)  # each launch shuffles its threads in another order; the same program, the same orders


class KernelError(RuntimeError):
    """A mistake in a kernel or its arguments, which a GPU would not have reported so clearly."""


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("seed", ctypes.c_uint64),
        ("message", ctypes.c_char_p),
    )


# ---- arguments ------------------------------------------------------------------------------------------------------


def packed(value: Any) -> np.ndarray:
    """Return an argument's bytes as CuPy passes them, as an array of no axes; arrays as their address.

    Raises TypeError for what CuPy's RawKernel refuses.
    """
    if value is None:
        return np.array(0, np.int64)
    if isinstance(value, ndarray):
        return np.array(value._host.ctypes.data if value.size else 0, np.int64)
    if isinstance(value, memory.MemoryPointer):
        return np.array(value.ptr, np.int64)
    if isinstance(value, np.ndarray):
        if value.size == 1:
            return value.reshape(()).copy()
        raise TypeError(
            f"You are trying to pass a numpy.ndarray of shape {value.shape} as a kernel parameter. Only numpy.ndarrays "
            "of size one can be passed by value. If you meant to pass a pointer to __global__ memory, you need to pass "
            "a cupy.ndarray instead."
        )
    if type(value) is bool:
        return np.array(value, np.bool_)
    if type(value) is int:
        return np.array(value, np.uint64 if value >= 2**63 else np.int64)
    if type(value) in (float, complex):
        return np.array(value)
    if isinstance(value, np.generic):
        return np.array(value)
    raise TypeError(f"Unsupported type {type(value)}")


def check_argument(
    where: str, value: Any, given: np.ndarray, kind: str, size: int, pointee: int, alignment: int
) -> None:
    """Raise KernelError unless an argument has the size and kind of its parameter, and points to a live array."""
    if given.dtype.itemsize != size:
        raise KernelError(f"{where}: the parameter has {size} bytes, got {given.dtype.itemsize} ({given.dtype})")
    is_address = isinstance(value, ndarray | memory.MemoryPointer) or value is None
    if any(memory.block_of(address) is None for address in addresses_in(given, kind)):
        raise KernelError(f"{where}: no live array is at this address")
    if kind != "p":
        if is_address:
            raise KernelError(f"{where}: the parameter is no pointer, got an array")
        if (kind in "iub") != (given.dtype.kind in "iub") and kind != "V" and given.dtype.kind != "V":
            raise KernelError(f"{where}: the parameter is of kind {kind!r}, got {given.dtype}")
        return
    if not is_address and given.dtype.kind not in "iu":
        raise KernelError(f"{where}: the parameter is a pointer, got {given.dtype}")
    if isinstance(value, ndarray) and pointee and value.itemsize != pointee:
        raise KernelError(f"{where}: the parameter points to items of {pointee} bytes, got an array of {value.dtype}")
    address = int(given)
    if address % alignment:
        raise KernelError(f"{where}: the address must be a multiple of {alignment}, got {address:#x}")
    if address and not memory.is_device_address(address) and not memory.is_pinned_address(address):
        raise KernelError(f"{where}: {address:#x} is no address on the device")


def addresses_in(given: np.ndarray, kind: str) -> list[int]:
    """Return the addresses of the device in a pointer, or in a struct, where every word that looks like one counts."""
    if kind == "p":
        return [int(given)] if memory.is_device_address(int(given)) else []
    if kind != "V":
        return []
    raw = given.tobytes()
    words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
    return [int(w) for w in words[(words >= memory.START) & (words < memory.START + memory.SPACE)]]


# ---- raw kernels ----------------------------------------------------------------------------------------------------


class RawKernel:
    """A kernel from a source of CUDA C."""

    def __init__(
        self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", *,
        translate_cucomplex: bool = False, enable_cooperative_groups: bool = False, jitify: Any = None,
    ) -> None:  # fmt: skip
        self.code, self.name, self.__name__, self.options, self.backend = code, name, name, tuple(options), backend
        self._function: Any = None

    def compile(self, log_stream: Any = None) -> None:
        if self._function is None:
            found = library(self.code, self.options)
            if self.name not in found.bounds:
                raise CUDARuntimeError("CUDA_ERROR_NOT_FOUND: named symbol not found")
            self.most_threads = found.bounds[self.name]
            count = found.function(f"emulated_parameters_{self.name}")
            numbers = (ctypes.c_int * 400)()
            self.parameters = [(chr(numbers[4 * i]), *numbers[4 * i + 1 : 4 * i + 4]) for i in range(count(numbers))]
            if sum(size for _, size, *_ in self.parameters) > 4096:
                raise CompileException(f"{self.name}: its parameters take more than 4096 bytes")
            self._function = found.function(f"emulated_launch_{self.name}")

    kernel = property(lambda self: self)
    max_threads_per_block = property(lambda self: self.compile() or self.most_threads)

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0, stream: Any = None) -> None:
        self.compile()
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError(f"Expected tuple, got {type(block if isinstance(grid, tuple) else grid).__name__}")
        grid, block = (tuple(max(1, int(n)) for n in (*sizes, 1, 1)[:3]) for sizes in (grid, block))
        self._check_sizes(grid, block, shared_mem)
        if len(args) != len(self.parameters):
            raise KernelError(f"{self.name}: takes {len(self.parameters)} arguments, got {len(args)}")
        values = [packed(a) for a in args]
        blocks = set()
        for i, (value, given, parameter) in enumerate(zip(args, values, self.parameters, strict=True)):
            check_argument(f"{self.name}: argument {i}", value, given, *parameter)
            blocks |= {memory.block_of(address) for address in addresses_in(given, parameter[0])}
        submit(lambda: self._run(grid, block, values, blocks), stream=stream)

    def _check_sizes(self, grid: Any, block: Any, shared_mem: int) -> None:
        threads = block[0] * block[1] * block[2]
        if threads > self.most_threads or block[2] > 64:
            raise CUDARuntimeError(
                f"CUDA_ERROR_INVALID_VALUE: invalid argument ({self.name}: blocks of {block}, at most "
                f"{self.most_threads} threads)"
            )
        if grid[0] >= 2**31 or max(grid[1:]) >= 2**16:
            raise CUDARuntimeError(f"CUDA_ERROR_INVALID_VALUE: invalid argument ({self.name}: a grid of {grid})")
        if shared_mem:
            raise KernelError(f"{self.name}: the emulated device has static shared memory only")

    def _run(self, grid: Any, block: Any, values: list[np.ndarray], blocks: Any) -> None:
        for given, parameter in zip(values, self.parameters, strict=True):
            memory.require_live(addresses_in(given, parameter[0]), self.name)
        message = ctypes.create_string_buffer(512)
        launch = _Launch(
            (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), next(_seeds), ctypes.addressof(message)
        )
        pointers = (ctypes.c_void_p * max(1, len(values)))(*[v.ctypes.data for v in values])
        with memory.guarded(blocks) as harm:
            failed = self._function(ctypes.byref(launch), pointers)
        if failed:
            raise KernelError(f"{self.name}: {message.value.decode()}")
        if harm:
            raise KernelError(f"{self.name}: wrote {harm[0]}")


class RawModule:
    """Several kernels from one source."""

    def __init__(
        self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = (),
        backend: str = "nvrtc", translate_cucomplex: bool = False, enable_cooperative_groups: bool = False,
        name_expressions: Any = None, jitify: Any = None,
    ) -> None:  # fmt: skip
        if code is None or path is not None:
            raise NotImplementedError("the emulated device compiles sources only")
        if name_expressions is not None:
            raise NotImplementedError('the emulated device needs kernels with extern "C"')
        self.code, self.options, self.backend = code, tuple(options), backend

    def compile(self, log_stream: Any = None) -> None:
        library(self.code, self.options)

    def get_function(self, name: str) -> RawKernel:
        kernel = RawKernel(self.code, name, self.options)
        kernel.compile()
        return kernel


# ---- elementwise kernels --------------------------------------------------------------------------------------------

_C_NAMES = {
    "?": "bool", "b": "signed char", "B": "unsigned char", "h": "short", "H": "unsigned short", "i": "int",
    "I": "unsigned int", "l": "long long", "L": "unsigned long long", "q": "long long", "Q": "unsigned long long",
    "f": "float", "d": "double",
}  # fmt: skip
_TEMPLATE = """
{preamble}
{types}
extern "C" __global__ void {name}(long long size, int ndim, const long long* shape, const long long* steps{arrays}) {{
    const struct {{ long long n; long long size() const {{ return n; }} }} _ind = {{size}};
    for (long long i = 0; i < size; ++i) {{
        long long offsets[{count}] = {{}};
        for (long long axis = ndim - 1, rest = i; axis >= 0; --axis) {{
            const long long at = rest % shape[axis];
            rest /= shape[axis];
            for (int j = 0; j < {count}; ++j) offsets[j] += at * steps[j * ndim + axis];
        }}
{named}
        {{
            {operation};
        }}
    }}
}}
"""


class _Parameter:
    def __init__(self, text: str) -> None:
        *words, self.type, self.name = text.split()
        if set(words) - {"raw", "_non_const"}:
            raise ValueError(f"{text!r}: the emulated device knows only `raw`")
        self.raw, self.template = "raw" in words, len(self.type) == 1
        self.dtype = None if self.template else np.dtype(self.type)


class ElementwiseKernel:
    """An operation in CUDA C on each element of arrays that broadcast."""

    def __init__(
        self, in_params: str, out_params: str, operation: str, name: str = "kernel", reduce_dims: bool = True,
        preamble: str = "", no_return: bool = False, return_tuple: bool = False, *, loop_prep: str = "",
        after_loop: str = "", options: tuple[str, ...] = (), **unused: Any,
    ) -> None:  # fmt: skip
        if not name.isidentifier():
            raise ValueError(f"Invalid kernel name: {name!r}")
        self.inputs, self.outputs = (
            [_Parameter(p) for p in text.split(",") if p.strip()] for text in (in_params, out_params)
        )
        self.operation, self.name, self.__name__, self.preamble, self.options = operation, name, name, preamble, options
        self.return_tuple, self.no_return = return_tuple, no_return
        if loop_prep or after_loop or unused:
            raise NotImplementedError("the emulated device knows neither loop_prep nor after_loop")
        if any(p.name in ("i", "n") for p in (*self.inputs, *self.outputs)):
            raise ValueError("Variable names 'i' and 'n' are reserved")  # CuPy reserves i, n and _*

    def __call__(self, *args: Any, size: int | None = None, stream: Any = None, block_size: int = 128) -> Any:
        inputs, outputs = list(args[: len(self.inputs)]), list(args[len(self.inputs) :])
        if len(args) not in (len(self.inputs), len(self.inputs) + len(self.outputs)):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {len(self.inputs)} or "
                f"{len(self.inputs) + len(self.outputs)}, but given {len(args)}."
            )
        for a in args:
            if not isinstance(a, ndarray | np.generic | bool | int | float):
                raise TypeError(f"Unsupported type {type(a)}")
        types = self._types(inputs, outputs)
        broadcast = [
            a._host.shape for a, p in zip((*inputs, *outputs), (*self.inputs, *self.outputs), strict=False)
            if isinstance(a, ndarray) and not p.raw
        ]  # fmt: skip
        if size is None and not broadcast:
            raise ValueError("Loop size is undecided")
        shape = np.broadcast_shapes(*broadcast) if size is None else (size,)
        if not outputs:
            outputs = [ndarray(shape, types[p.name]) for p in self.outputs]
        for p, out in zip(self.outputs, outputs, strict=True):
            if not p.raw and out.shape != shape:
                raise ValueError(f"Out shape is mismatched. {out.shape} {shape}")
        if int(np.prod(shape)):
            self._submit([*inputs, *outputs], types, shape, stream)
        if self.no_return:
            return None
        return tuple(outputs) if len(outputs) != 1 or self.return_tuple else outputs[0]

    def _types(self, inputs: list[Any], outputs: list[Any]) -> dict[str, np.dtype]:
        """Return the dtype of each parameter: a type of one letter is that of its arrays, then of its scalars."""
        letters: dict[str, np.dtype] = {}
        pairs = [*zip(self.outputs, outputs, strict=False), *zip(self.inputs, inputs, strict=True)]
        for p, a in pairs:
            if isinstance(a, ndarray | np.generic):
                known = p.dtype if not p.template else letters.setdefault(p.type, a.dtype)
                if known != a.dtype and (isinstance(a, ndarray) or p.template):
                    raise TypeError(f"Type is mismatched. {p.name} {a.dtype} {known} {p.type}")
        for p, a in pairs:
            if p.template and p.type not in letters:
                letters[p.type] = np.array(a).dtype
        for p in self.outputs:
            if p.template and p.type not in letters:
                raise TypeError(f"Type is undecided: {p.type}")
        return {p.name: letters[p.type] if p.template else p.dtype for p in (*self.inputs, *self.outputs)}

    def _submit(self, values: list[Any], types: dict[str, np.dtype], shape: tuple[int, ...], stream: Any) -> None:
        parameters = [*self.inputs, *self.outputs]
        kernel = _elementwise(
            self.name, self.operation, self.preamble, tuple((p.name, p.type, p.template, p.raw) for p in parameters),
            tuple(types[p.name].char for p in parameters), len(self.inputs), tuple(self.options),
        )  # fmt: skip
        steps, arguments, blocks, scalars = [], [], set(), []
        for p, value in zip(parameters, values, strict=True):
            if not isinstance(value, ndarray):
                steps.append([0] * len(shape))
                scalars.append(np.array(value).astype(types[p.name]))
                arguments.append(np.array(scalars[-1].ctypes.data, np.int64))
                continue
            host = value._host
            if p.raw:
                if not host.flags.c_contiguous:
                    raise NotImplementedError(f"{p.name}: the emulated device takes contiguous raw arrays")
                steps.append([0] * len(shape))
            else:
                missing = len(shape) - host.ndim
                own = [0 if n == 1 else s for n, s in zip(host.shape, host.strides, strict=True)]
                steps.append([0] * missing + own)
            arguments.append(packed(value))
            if value.size:
                blocks.add(memory.block_of(host.ctypes.data))
        numbers = np.array(steps, np.int64).reshape(len(values), len(shape))
        sizes = np.array(shape, np.int64)
        fixed = [
            np.array(int(np.prod(shape)), np.int64), np.array(len(shape), np.int32),
            np.array(sizes.ctypes.data, np.int64), np.array(numbers.ctypes.data, np.int64),
        ]  # fmt: skip

        def run(kept: Any = (sizes, numbers, scalars)) -> None:
            kernel._run((1, 1, 1), (1, 1, 1), [*fixed, *arguments], blocks)

        submit(run, stream=stream or get_current_stream())


@cache
def _elementwise(
    name: str, operation: str, preamble: str, parameters: Any, kinds: tuple[str, ...], inputs: int, options: Any
) -> RawKernel:
    types, arrays, named = {}, "", ""
    for i, ((word, type_name, template, raw), kind) in enumerate(zip(parameters, kinds, strict=True)):
        const = "const " if i < inputs else ""
        if template:
            types[type_name] = _C_NAMES[kind]
        arrays += f", {const}{_C_NAMES[kind]}* _array_{word}"
        if raw:
            named += f"        {const}{_C_NAMES[kind]}* {word} = _array_{word};\n"
        else:
            named += (
                f"        {const}{_C_NAMES[kind]}& {word} = *({const}{_C_NAMES[kind]}*)((char*)_array_{word} + "
                f"offsets[{i}]);\n"
            )
    code = _TEMPLATE.format(
        name=name, operation=operation, preamble=preamble, arrays=arrays, named=named, count=len(parameters),
        types="\n".join(f"typedef {c} {t};" for t, c in types.items()),
    )  # fmt: skip
    kernel = RawKernel(code, name, options)
    kernel.compile()
    return kernel


__all__ = ["CompileException", "ElementwiseKernel", "KernelError", "RawKernel", "RawModule", "packed"]
