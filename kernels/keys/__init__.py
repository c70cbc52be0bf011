"""Sets of int64 keys in host memory: where the row of a key is, and which keys there are."""

from numparam.kernels.keys.bitmap import Bitmap
from numparam.kernels.keys.index import Index, distinct
from numparam.kernels.keys.recent import Recent
from numparam.kernels.keys.sums import sum_parts, sum_rows

__all__ = ["Bitmap", "Index", "Recent", "distinct", "sum_parts", "sum_rows"]
