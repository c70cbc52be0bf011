"""Tables that servers hold, as a worker sees them, and their caches."""

from __future__ import annotations

from typing import Any

import numpy as np

from numparam.embedding import EmbeddingCache
from numparam.embedding.schema import Schema, as_keys, as_rows, as_unseen
from numparam.parameter import Parameter
from numparam.server.client import Client
from numparam.server.division import places_by_owner
from numparam.server.messages import Acknowledgement

Array = np.ndarray[Any, np.dtype[Any]]


class RemoteTable:
    """Stand for a table that servers hold.

    Parameters
    ----------
    client : Client
    number : int
        Of the table.
    schema : Schema
    unseen : str or float
        What `find` returns for a key without a row.
    parameter : Parameter
        Whose `unique` is whether the ids of a lookup are made distinct before they are sent.
    """

    step = 0

    def __init__(self, client: Client, number: int, schema: Schema, unseen: Any, parameter: Parameter) -> None:
        self._client, self._number, self.schema, self._parameter = client, number, schema, parameter
        self._unseen = as_unseen(f"table {schema.name!r}: ", unseen)
        self._done: int | None = None

    @property
    def name(self) -> str:
        """Return the name."""
        return self.schema.name

    def find(self, ids: Any) -> Array:
        """Return rows; see `Embedding.find`."""
        from numparam.kernels.keys import distinct
        from numparam.kernels.rows import gather

        keys, shape = as_keys(self.schema, ids)
        first, which = distinct(keys) if self._parameter.unique else (keys, keys)
        is_repeated = first.size < keys.size
        asked = keys[first] if is_repeated else keys
        self._client.counters.update(ids=keys.size, distinct_ids=asked.size)
        present, (rows,) = self.held(asked, 1)
        if not present.all():
            found, rows = rows, np.empty((asked.size, self.schema.dim), self.schema.dtype)
            rows[present] = found
            rows[~present] = self.schema.initial(0, asked[~present]) if self._unseen is None else self._unseen
        if is_repeated:
            some, rows = rows, np.empty((keys.size, self.schema.dim), self.schema.dtype)
            gather(rows, some, which)
        answer: Array = rows.reshape(*shape, self.schema.dim)
        return answer

    def held(self, keys: Array, columns: int) -> tuple[Array, list[Array]]:
        """Return which of distinct keys have rows, and the first columns of these rows; all others do not travel.

        Threads may call this at any time.
        """
        if not keys.size:
            return np.empty(0, bool), [np.empty((0, kind.width), kind.dtype) for kind in self.schema.columns[:columns]]
        client, places = self._client, places_by_owner(keys, len(self._client.servers))
        parts = [keys[place] for place in places]
        masks = [np.empty(part.size, bool) for part in parts]
        with client.lock:
            client.request("find", masks, self._number, columns, [[part] for part in parts])
            kinds, counts = self.schema.columns[:columns], [int(mask.sum()) for mask in masks]
            found = [[np.empty((count, kind.width), kind.dtype) for kind in kinds] for count in counts]
            client.receive("rows", found, by_ring=True)
        if len(places) == 1:
            return masks[0], found[0]
        present = np.empty(keys.size, bool)
        for place, mask in zip(places, masks, strict=True):
            present[place] = mask
        order = np.argsort(np.concatenate([place[mask] for place, mask in zip(places, masks, strict=True)]))
        return present, [np.concatenate(column)[order] for column in zip(*found, strict=True)]

    def update(self, ids: Any, gradients: Any) -> None:
        """Step the optimizer once for the batches of all workers; see `Embedding.update`.

        Repeated ids are not summed here, but on the server, in the order of all workers' batches.
        """
        keys, shape = as_keys(self.schema, ids)
        self.send(keys, as_rows(self.schema, "gradients", gradients, shape))

    def send(self, keys: Array, gradients: Array) -> list[tuple[Array, Acknowledgement, Array]]:
        """Send gradients, and return for each server where its keys are, what it replied, and keys to forget."""
        rows = gradients.astype(self.schema.wide, copy=False)
        places = places_by_owner(keys, len(self._client.servers))
        if self._done is None:
            self._done = self._client.step(self._number)
        self._done += 1
        payloads = [[keys[place], rows[place]] for place in places]
        replies = self._client.acknowledged("update", self._number, self._done, payloads)
        return [(place, *replied) for place, replied in zip(places, replies, strict=True)]


class SharedCache(EmbeddingCache):
    """Keep rows of a table that servers hold, as long as no other worker changes them.

    Updates go to the servers at once, so what is acknowledged is in their log. A worker steps the optimizer on its own
    copies too, with the same bits, and forgets the rows that others changed, which the servers name.
    """

    table: Any
    _of = RemoteTable

    def update(self, ids: Any, gradients: Any) -> None:
        """Step the optimizer on the servers, and on the rows in the cache."""
        from numparam.kernels.keys import distinct, sum_rows

        schema = self.table.schema
        keys, shape = as_keys(schema, ids)
        given = as_rows(schema, "gradients", gradients, shape)
        with self._lock:
            for place, acknowledgement, forgotten in self.table.send(keys, given):
                self._recent.forget(forgotten)
                self._note_change(np.concatenate([forgotten, keys[place]]))
                first, which = distinct(keys[place])
                places = self._recent.find(keys[place][first])
                cached = places >= 0
                self.counters.update(forgotten=forgotten.size, updated=int(cached.sum()))
                if cached.any():
                    sums = self._holder.from_host(sum_rows(given[place], which, first.size)[cached], self.device)
                    rows = self._holder.from_host(places[cached], self.device)
                    step = acknowledgement.step
                    schema.stepping(step)(self._columns[0], rows.array, sums.array, self._columns[1:])
