"""Tables of rows of 64 float32: unseen and seen rows, a cache, and opening."""

import tempfile

import numpy as np

from numparam import Embedding, EmbeddingCache
from numparam.initializer import Normal

from .common import Warm

ROWS, IDS, DIM = 2**18, 2**16, 64


class Rows(Warm):
    def setup(self) -> None:
        rng = np.random.default_rng(0)
        self.table = Embedding(None, DIM, init=Normal())
        self.table.find_or_insert(np.arange(ROWS))
        self.array = self.table.find(np.arange(ROWS))
        self.seen, self.unseen = rng.integers(0, ROWS, IDS), rng.integers(2**40, 2**60, IDS)
        self.gradients = np.ones((IDS, DIM), np.float32)
        self.cache = EmbeddingCache(self.table, ROWS // 2)
        hot = rng.integers(0, ROWS // 4, (64, IDS))
        cold = rng.integers(ROWS // 4, ROWS, (64, IDS))
        self.batches, self.turn = np.where(rng.random((64, IDS)) < 0.9, hot, cold), 0
        for batch in self.batches[:4]:
            self.cache.lookup(batch)

    def time_unseen_rows(self) -> None:
        self.table.find(self.unseen)

    def time_seen_rows(self) -> None:
        self.table.find(self.seen)

    def time_seen_rows_numpy(self) -> None:
        self.array[self.seen]

    def time_cached_rows_nine_of_ten(self) -> None:
        self.turn += 1
        self.cache.lookup(self.batches[self.turn % 64])

    def time_updates(self) -> None:
        self.table.update(self.seen, self.gradients)


class Opening(Warm):
    def setup(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        Embedding(2**31, DIM, path=self.folder.name).close()

    def teardown(self) -> None:
        self.folder.cleanup()

    def time_open_two_billion_rows(self) -> None:
        Embedding(2**31, DIM, path=self.folder.name).close()
