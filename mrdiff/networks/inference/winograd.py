"""3x3 convolutions by Winograd's minimal filtering (Lavin and Gray 2016), for the CPU.

A tile of m x m results costs (m + 2)² products a pair of channels instead of 9 m²: 4 times fewer
for m = 4, 2.25 times for m = 2. Transforms and products are matrix products, so this pays where
there are many channels; rounding errors are a few times larger for m = 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mrdiff.networks.inference.derived import derived

__all__ = ["pays", "winograd_conv"]

# B^T, G and A^T of F(m, 3): a tile d, a filter g and their results A^T [(G g) * (B^T d)].
_TABLES = {
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}
_MATRICES = {
    m: tuple(torch.tensor(rows, dtype=torch.float64) for rows in table)
    for m, table in _TABLES.items()
}
# Both axes at once: the transforms of a tile as one matrix.
_BOTH = {
    m: (torch.kron(b, b).float(), torch.kron(a, a).float()) for m, (b, _, a) in _MATRICES.items()
}

_LEAST_CHANNELS = 256
_CHUNK = 2_000_000  # numbers that a transform may hold at once: about a core's cache


def pays(weight: Tensor) -> bool:
    """Whether a 3x3 convolution with this weight ``[O, C, 3, 3]`` is worth it."""
    outputs, inputs, *size = weight.shape
    large = min(outputs, inputs) >= _LEAST_CHANNELS
    return large and size == [3, 3] and weight.dtype == torch.float32


def _filters(weight: Tensor, m: int) -> Tensor:
    """G g G^T of every pair of channels: ``[(m + 2)², C, O]``."""
    g = _MATRICES[m][1]
    turned = torch.einsum("ai,bj,ocij->abco", g, g, weight.double())
    return turned.flatten(0, 1).float().contiguous()


def winograd_conv(x: Tensor, weight: Tensor) -> Tensor:
    """``[B, C, H, W]`` by ``[O, C, 3, 3]``, zeros around, no bias; channels last in memory."""
    batch, channels, height, width = x.shape
    outputs = weight.shape[0]
    # Large filters are read once a call: few tiles do not repay those of m = 4.
    m = 4 if height * width >= 64**2 else 2
    filters = derived(weight, f"winograd {m}", lambda w: _filters(w, m))
    rows, columns = -(-height // m), -(-width // m)
    pad = (0, 0, 1, columns * m - width + 1, 1, rows * m - height + 1)
    image = F.pad(x.permute(0, 2, 3, 1), pad)
    out = x.new_empty(batch, rows * m, columns * m, outputs)
    together = max(1, _CHUNK // ((m + 2) ** 2 * columns * max(channels, outputs)))
    # Filters that fill the cache by themselves are better used by all tiles at once.
    together = rows if filters.numel() > 4 * _CHUNK else together
    for index in range(batch):
        for top in range(0, rows, together):
            tiles = min(together, rows - top)
            part = out[index, top * m : (top + tiles) * m].view(tiles, m, columns, m, outputs)
            _fill(part, image[index, top * m :], filters, m)
    return out[:, :height, :width].permute(0, 3, 1, 2)


def _fill(out: Tensor, image: Tensor, filters: Tensor, m: int) -> None:
    """Compute some rows of tiles, ``[tiles, m, columns, m, O]``, from ``[H, W, C]``."""
    tiles, _, columns, _, outputs = out.shape
    n, channels = m + 2, image.shape[-1]
    down, across, _ = image.stride()
    shape = (n, n, tiles, columns, channels)
    windows = image.as_strided(
        shape, (down, across, m * down, m * across, 1), image.storage_offset()
    )
    forth, back = _BOTH[m]
    turned = torch.mm(forth, windows.reshape(n * n, -1)).view(n * n, tiles * columns, channels)
    product = torch.bmm(turned, filters).view(n * n, -1)
    result = torch.mm(back, product).view(m, m, tiles, columns, outputs)
    out.copy_(result.permute(2, 0, 3, 1, 4))
