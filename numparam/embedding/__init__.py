"""Tables of rows by key: values that do not depend on who came first, on one machine or several.

>>> import numpy as np
>>> from numparam.embedding import Embedding
>>> table = Embedding(None, 4, name="items", seed=7)
>>> row = table.find(-(2**63))
>>> table.accumulate([-(2**63)], np.ones((1, 4), np.float32))
>>> table.evict(1)
array([-9223372036854775808])
>>> bool((table.find(-(2**63)) == row).all())
True
"""

from numparam.embedding.cache import EmbeddingCache
from numparam.embedding.counters import Counters
from numparam.embedding.lookup import EmbeddingLookup
from numparam.embedding.snapshot import load_table, save_table
from numparam.embedding.table import Embedding, Export

__all__ = ["Counters", "Embedding", "EmbeddingCache", "EmbeddingLookup", "Export", "load_table", "save_table"]
