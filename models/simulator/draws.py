"""Random numbers by address: the same (seed, stream, keys) gives the same number, in whatever order it is asked for.

Chosen instead of a generator with a state, because then two policies that show different pages meet the same shoppers
with the same luck (common random numbers), an interactive run equals a vectorised one, and any day can be replayed
alone. The mixer is splitmix64's finaliser (Steele, Lea and Flood, 2014), applied once a key.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ONE, _TWO = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mixed(code: Codes) -> Codes:
    code = (code ^ (code >> np.uint64(30))) * _ONE
    code = (code ^ (code >> np.uint64(27))) * _TWO
    return code ^ (code >> np.uint64(31))


def codes(seed: int, stream: str, *keys: npt.ArrayLike) -> Codes:
    """64 random bits for each address; `keys` are integers >= 0 that broadcast, the result has their shape."""
    with np.errstate(over="ignore"):
        code: Codes = _mixed(np.array([seed], np.uint64) * _GOLDEN + np.uint64(zlib.crc32(stream.encode())))
        for key in keys:
            code = _mixed(code + (np.asarray(key).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return code


def uniform(seed: int, stream: str, *keys: npt.ArrayLike) -> Floats:
    """One number in (0, 1) for each address, see `codes`."""
    return ((codes(seed, stream, *keys) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
