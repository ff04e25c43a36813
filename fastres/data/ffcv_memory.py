"""How FFCV gets at its file here: each image is read into its place in the batch by pread, not through a memory map.

A file that is cut while it is mapped ends the process with SIGBUS at the next touch, without a word and a summary. A
read just comes out short.
"""

import ctypes

import numpy as np

from fastres.data.ffcv_import import load_ffcv

_pread = ctypes.CDLL(None).pread
_pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
_pread.restype = ctypes.c_ssize_t


def loader_class(handle: int, short: np.ndarray) -> type:
    """FFCV's Loader for a file that is open under `handle`, with a memory manager of ours whatever it sets.

    short  i64 [1]  counts images that could not be read in full
    """
    base = load_ffcv("ffcv.memory_managers.base")

    class Context(base.MemoryContext):
        """What `decoder` gets as its storage; nothing to open or close."""

        state = handle, short

        def __enter__(self) -> "Context":
            return self

        def __exit__(self, *_) -> None: ...

    class Manager(base.MemoryManager):
        state_type = None

        def schedule_epoch(self, batches) -> Context:
            return Context()

        def compile_reader(self) -> None:
            """Only FFCV's own decoders ask for it."""

    class Loader(load_ffcv("ffcv.loader").Loader):
        @property
        def memory_manager(self) -> Manager:
            return self._ours

        @memory_manager.setter
        def memory_manager(self, theirs) -> None:
            self._ours = Manager(theirs.reader)

    return Loader


def decoder():
    """FFCV's SimpleRGBImageDecoder for raw pixels of one size, which is what the packer writes."""

    class Decoder(load_ffcv("ffcv.fields.decoders").SimpleRGBImageDecoder):
        def generate_code(self):
            pread = _pread  # compiled code takes it for a constant

            def decode(batch_indices, destination, metadata, storage_state):
                handle, short = storage_state
                for k in range(len(batch_indices)):
                    image, start = destination[k], metadata[batch_indices[k]]["data_ptr"]
                    if pread(handle, image.ctypes.data, image.size, start) != image.size:
                        short[0] += 1
                return destination[: len(batch_indices)]

            return decode

    return Decoder()
