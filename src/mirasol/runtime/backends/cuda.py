"""Calls of NVIDIA's driver for the TensorRT backend. Not yet run on a GPU."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.runtime.backends import Array

LIBRARY = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on


class Cuda:
    """The first GPU: its name, memory and streams; raises MirasolError without a driver or a GPU."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError:
            raise MirasolError(
                f"no NVIDIA driver ({LIBRARY} is not found): TensorRT needs a GPU. provider='cpu' needs none"
            ) from None
        self.call("cuInit", 0)
        device, context, major, minor = c_int(), c_void_p(), c_int(), c_int()
        self.call("cuDeviceGet", byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", byref(context), device)
        self._context = context
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, 256, device)
        self.call("cuDeviceGetAttribute", byref(major), MAJOR, device)
        self.call("cuDeviceGetAttribute", byref(minor), MINOR, device)
        self.gpu = f"{name.value.decode()} sm{major.value}{minor.value}"

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver; raises MirasolError unless it succeeds."""
        result = getattr(self._library, name)(*arguments)
        if result:
            text = c_char_p()
            self._library.cuGetErrorString(result, byref(text))
            raise MirasolError(f"the GPU's driver: {name} failed: {(text.value or b'').decode()} ({result})")

    def here(self) -> None:
        """Make the GPU current in the calling thread."""
        self.call("cuCtxSetCurrent", self._context)


class Stream:
    """A CUDA stream and its recorded graphs, freed when the object is deleted."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.handle, self._graphs = cuda, c_void_p(), list[c_void_p]()
        cuda.call("cuStreamCreate", byref(self.handle), 1)  # CU_STREAM_NON_BLOCKING: streams do not wait for each other

    def record(self, work: Callable[[], None]) -> c_void_p:
        """Record the calls of ``work`` without running them; :meth:`launch` runs them."""
        graph, executable = c_void_p(), c_void_p()
        self.cuda.call("cuStreamBeginCapture_v2", self.handle, THREAD_LOCAL)
        try:
            work()
        finally:  # a stream must not be left recording
            self.cuda.call("cuStreamEndCapture", self.handle, byref(graph))
        self.cuda.call("cuGraphInstantiateWithFlags", byref(executable), graph, c_uint64(0))
        self.cuda.call("cuGraphDestroy", graph)
        self._graphs.append(executable)
        return executable

    def launch(self, graph: c_void_p) -> None:
        """Run a recorded graph."""
        self.cuda.call("cuGraphLaunch", graph, self.handle)

    def wait(self) -> None:
        """Wait until all work is done."""
        self.cuda.call("cuStreamSynchronize", self.handle)

    def __del__(self) -> None:
        with contextlib.suppress(MirasolError):
            self.cuda.here()
            for graph in self._graphs:
                self.cuda.call("cuGraphExecDestroy", graph)
            self.cuda.call("cuStreamDestroy_v2", self.handle)


class Buffer:
    """GPU memory of an array's shape and type, freed when the object is deleted."""

    def __init__(self, stream: Stream, first: Array) -> None:
        self._stream, self._shape, self._dtype, self._bytes = stream, first.shape, first.dtype, c_size_t(first.nbytes)
        self.address = c_uint64()
        stream.cuda.call("cuMemAlloc_v2", byref(self.address), self._bytes)
        self.write(first)

    def write(self, array: Array) -> None:
        """Copy an array of the same shape and type to the GPU, in stream order."""
        array = np.ascontiguousarray(array, self._dtype).reshape(self._shape)
        source = c_void_p(array.ctypes.data)  # pageable: already read when the call returns
        self._stream.cuda.call("cuMemcpyHtoDAsync_v2", self.address, source, self._bytes, self._stream.handle)

    def read(self) -> Array:
        """A copy in host memory."""
        array = np.empty(self._shape, self._dtype)
        target = c_void_p(array.ctypes.data)
        self._stream.cuda.call("cuMemcpyDtoHAsync_v2", target, self.address, self._bytes, self._stream.handle)
        self._stream.wait()
        return array

    def __del__(self) -> None:
        with contextlib.suppress(MirasolError):
            self._stream.cuda.here()
            self._stream.cuda.call("cuMemFree_v2", self.address)
