"""The replies of one round on disk, so that what needs all of them at once needs memory for a block of each.

    <folder>/<number>.f32      one site's tensors one after the other, raw little-endian float32

Read by position into buffers, not mapped: pages of a map count as this process's memory. A spool is not part of a run's state: the
next one empties the folder, and a round that was interrupted begins anew. The folder is private (0700), for a single reply tells more of
a hospital than the mean does.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmmas_runtime.files import make_private_folder
from gmmas_schema.errors import FederationError, ReasonCode

Float32 = NDArray[np.float32]

VALUES_AT_ONCE: Final = 1 << 20
"""Values over all sites that a block holds, 4 MiB: more sites make blocks shorter, not memory larger."""
LONGEST_BLOCK: Final = 1 << 16

_DTYPE: Final = np.dtype("<f4")


class Spool:
    """Tensors of one round's replies by site.

    Args:
        folder: emptied now, and removed by `remove`; nothing else may be in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        # Sites that send the same tensors share one table of places: a thousand sites have a handful of tables.
        self._layout: dict[str, dict[str, tuple[int, int]]] = {}
        self._known: dict[tuple[tuple[str, int], ...], dict[str, tuple[int, int]]] = {}
        shutil.rmtree(folder, ignore_errors=True)
        make_private_folder(folder)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites whose replies are here, by name."""
        return tuple(sorted(self._files))

    def write(self, site: str, tensors: Mapping[str, Float32]) -> None:
        """Write a site's reply; one a site.

        Raises:
            FederationError: the disk does not take it.
        """
        assert site not in self._files, "a site is spooled once"
        path = self._folder / f"{len(self._files)}.f32"
        try:
            with path.open("wb") as file:
                for value in tensors.values():
                    np.asarray(value, dtype=_DTYPE, order="C").tofile(file)
        except OSError as error:
            raise FederationError(
                "a reply cannot be written to the disk",
                where=path,
                got=error.strerror or type(error).__name__,
                expected="room for one model a site while a round lasts",
                remedy="make room and resume the run, or set robustness.norm_limit to null, which needs no copy of the replies",
                code=ReasonCode.DISK,
            ) from error
        self._files[site] = path
        self._layout[site] = self._table(tensors)

    def holders(self, name: str) -> tuple[str, ...]:
        """Return the sites that sent a tensor, by name."""
        return tuple(site for site in self.sites if name in self._layout[site])

    def read(self, site: str, name: str) -> Float32:
        """Return one tensor of a site, one-dimensional."""
        _, size = self._layout[site][name]
        return self._read(site, name, 0, size)

    def blocks(self, name: str, sites: Sequence[str]) -> Iterator[tuple[slice, Float32]]:
        """Yield a tensor of several sites piece by piece.

        Args:
            name: of the tensor.
            sites: who sent it; rows come in this order.

        Yields:
            The place in the flat tensor, and the values there, [site, element].
        """
        size = self._layout[sites[0]][name][1]
        step = max(1, min(LONGEST_BLOCK, VALUES_AT_ONCE // len(sites)))
        for start in range(0, size, step):
            part = slice(start, min(start + step, size))
            block_SN = np.empty((len(sites), part.stop - start), np.float32)
            for row, site in zip(block_SN, sites, strict=True):
                row[:] = self._read(site, name, start, part.stop - start)
            yield part, block_SN

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files.clear()
        self._layout.clear()

    def _read(self, site: str, name: str, start: int, count: int) -> Float32:
        offset, _ = self._layout[site][name]
        return np.fromfile(self._files[site], _DTYPE, count=count, offset=(offset + start) * _DTYPE.itemsize)

    def _table(self, tensors: Mapping[str, Float32]) -> dict[str, tuple[int, int]]:
        """Return where each tensor begins and how many values it has."""
        key = tuple((name, value.size) for name, value in tensors.items())
        if key not in self._known:
            ends = np.cumsum([0, *(size for _, size in key)]).tolist()
            self._known[key] = {name: (start, size) for (name, size), start in zip(key, ends, strict=False)}
        return self._known[key]
