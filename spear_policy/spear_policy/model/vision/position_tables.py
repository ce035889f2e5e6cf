"""Learned position tables, resampled to the grid of an image.

Both encoders learned one square table. The two projects resample it by different rules, and the
rule is part of the weights: another one shifts every position (facts/model.md 1.4 and 1.5).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resample_to_size(table: Tensor, rows: int, columns: int, mode: str = "bicubic") -> Tensor:
    """SigLIP's rule: align the outer edges of both grids; half-pixel centres, no antialiasing.

    Args:
        table: (side * side, width), row-major.
        mode: bicubic or bilinear.

    Returns:
        (rows * columns, width) in fp32.
    """
    square = _as_picture(table)
    return _as_table(F.interpolate(square, size=(rows, columns), mode=mode, align_corners=False))


def resample_by_offset(table: Tensor, rows: int, columns: int, offset: float) -> Tensor:
    """MoGe's rule: bicubic by the factors (rows + offset) / side and (columns + offset) / side.

    The offset moves every sample a little; DINOv2 took it in to make the size round right. A
    grid of the table's own size stays as it is.

    Args:
        table: (side * side, width), row-major, without the class token.

    Returns:
        (rows * columns, width) in fp32.
    """
    square = _as_picture(table)
    side = square.shape[-1]
    if rows == columns == side:
        return table.float()
    factors = ((rows + offset) / side, (columns + offset) / side)
    return _as_table(F.interpolate(square, scale_factor=factors, mode="bicubic"))


class PositionTable(nn.Module):
    """A learned table of side x side positions and its resampled versions.

    The resampled tables are kept while nothing is trained; a changed table is noticed.
    """

    def __init__(self, side: int, width: int, resample):
        """`resample(table, rows, columns)` is one of this module's rules."""
        super().__init__()
        self.table = nn.Parameter(torch.empty(side * side, width))
        self._resample = resample
        self._kept = {}

    def forward(self, rows: int, columns: int) -> Tensor:
        """Return the positions of a grid, (rows * columns, width), in the table's dtype."""
        table = self.table
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or table.is_inference():
            return self._resample(table, rows, columns).to(table.dtype)
        version = (table.data_ptr(), table._version, table.dtype, table.device)
        found = self._kept.get((rows, columns))
        if found is None or found[0] != version:
            resampled = self._resample(table, rows, columns).to(table.dtype)
            found = self._kept[rows, columns] = (version, resampled)
        return found[1]


def _as_picture(table):
    side = round(table.shape[0] ** 0.5)
    if side * side != table.shape[0]:
        raise ValueError(f"a position table of {table.shape[0]} rows is not square")
    return table.float().view(1, side, side, -1).permute(0, 3, 1, 2)


def _as_table(picture):
    return picture.squeeze(0).flatten(1).T
