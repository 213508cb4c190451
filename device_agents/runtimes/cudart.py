"""The few calls of the CUDA runtime that engines need, through ctypes: nothing to install beside CUDA itself."""

import ctypes
import ctypes.util

from device_agents.runtimes import RuntimeRefused

NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2")
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind


def open_cuda():
    """The CUDA runtime of this machine.

    Raises:
        RuntimeRefused: there is none, or no GPU for it.
    """
    found = ctypes.util.find_library("cudart")
    for name in ([found] if found else []) + list(NAMES):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        cuda = Cuda(library)
        if cuda.devices() < 1:
            raise RuntimeRefused("CUDA is installed, but it sees no GPU: check `nvidia-smi` or the container's flags")
        return cuda
    raise RuntimeRefused(
        "no CUDA runtime (libcudart) is found here: install CUDA, or add its folder to LD_LIBRARY_PATH"
    )


class Cuda:
    """The library with its error codes made exceptions; addresses are plain integers."""

    def __init__(self, library):
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def _call(self, name, *arguments):
        code = getattr(self._library, name)(*arguments)
        if code:
            said = (self._library.cudaGetErrorString(code) or b"").decode("utf-8", "replace")
            error = MemoryError if code == 2 else RuntimeError  # cudaErrorMemoryAllocation
            raise error("{}: {} ({})".format(name, said, code))

    def devices(self):
        """How many GPUs there are; 0 where the driver is missing."""
        count = ctypes.c_int()
        return 0 if self._library.cudaGetDeviceCount(ctypes.byref(count)) else count.value

    def allocate(self, size):
        """Address of so many new bytes on the GPU."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def free(self, address):
        """Give memory back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def upload(self, address, array):
        """Copy a numpy array to the GPU."""
        self._copy(address, array.ctypes.data, array.nbytes, TO_DEVICE)

    def download(self, array, address):
        """Fill a numpy array from the GPU."""
        self._copy(array.ctypes.data, address, array.nbytes, TO_HOST)

    def _copy(self, to, source, size, kind):
        self._call(
            "cudaMemcpy", ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size), ctypes.c_int(kind)
        )

    def stream(self):
        """A new stream's handle."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value

    def synchronize(self, stream):
        """Wait until a stream is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def close_stream(self, stream):
        """Give a stream back."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))
