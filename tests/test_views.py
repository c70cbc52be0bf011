"""One model in two frameworks: the parameters are equal to the bit, the logits to rounding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Parameter, View, views
from numparam.indexing.region import Region
from numparam.initializer import Normal, initializer
from numparam.views import Part, Viewed

LLAMA = {"heads": 4, "groups": 2, "layers": 2, "vocab": 200}
GPT2 = {"heads": 4, "groups": 4, "layers": 2, "vocab": 200}


def made(rules: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    numparam.set_seed(7)
    return {name: Parameter(initializer(rules[name], shape), name=name).asnumpy() for name, shape in shapes.items()}


def stored_shapes(framework: str) -> dict[str, tuple[int, ...]]:
    """Return the tensors of one layer of a Llama of width 32, with 4 heads of 8 and 2 groups."""
    if framework == "megatron":
        prefix = "decoder.layers.0"
        return {
            "embedding.word_embeddings.weight": (256, 32),
            f"{prefix}.self_attention.linear_qkv.weight": (64, 32),
            f"{prefix}.mlp.linear_fc1.weight": (96, 32),
            f"{prefix}.mlp.linear_fc1.layer_norm_weight": (32,),
        }
    if framework == "torchtitan":
        return {
            "tok_embeddings.weight": (200, 32),
            **{f"layers.0.attention.{name}.weight": (rows, 32) for name, rows in (("wq", 32), ("wk", 16), ("wv", 16))},
            **{f"layers.0.feed_forward.{name}.weight": (48, 32) for name in ("w1", "w3")},
            "layers.0.ffn_norm.weight": (32,),
        }
    return {
        "model.embed_tokens.weight": (200, 32),
        **{f"model.layers.0.self_attn.{n}_proj.weight": (rows, 32) for n, rows in (("q", 32), ("k", 16), ("v", 16))},
        **{f"model.layers.0.mlp.{name}_proj.weight": (48, 32) for name in ("gate", "up")},
        "model.layers.0.post_attention_layernorm.weight": (32,),
    }


def test_every_framework_holds_the_canonical_values() -> None:
    found = {}
    for framework in views.FRAMEWORKS:
        if framework != "flax":
            pack, shapes = views.load("llama", framework, **LLAMA), stored_shapes(framework)
            found[framework] = made(pack.rules(shapes), shapes)
    hf = found["hf"]
    q, k, v = (hf[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "qkv")
    groups = [np.concatenate([q[16 * g : 16 * g + 16], k[8 * g : 8 * g + 8], v[8 * g : 8 * g + 8]]) for g in range(2)]
    megatron, titan = found["megatron"], found["torchtitan"]
    np.testing.assert_array_equal(megatron["decoder.layers.0.self_attention.linear_qkv.weight"], np.concatenate(groups))
    padded = megatron["embedding.word_embeddings.weight"]
    np.testing.assert_array_equal(padded[:200], hf["model.embed_tokens.weight"])
    assert not padded[200:].any()
    for name, values, heads in (("wq", q, 4), ("wk", k, 2)):
        permuted = values.reshape(heads, 2, 4, 32).transpose(0, 2, 1, 3).reshape(values.shape)
        np.testing.assert_array_equal(titan[f"layers.0.attention.{name}.weight"], permuted)
    tables = [views.load("llama", name, **LLAMA).fingerprint(arrays) for name, arrays in found.items()]
    assert len(tables[0]) == 7
    for table in tables[1:]:
        assert tables[0].compare(table) == []


def gpt2_shapes(framework: str) -> dict[str, tuple[int, ...]]:
    """Return the tensors of one layer of a GPT-2 of width 32, with 4 heads of 8; Megatron pads the vocabulary."""
    matrices = {"o": (32, 32), "up": (128, 32), "down": (32, 128)}
    names = {
        "hf": ("transformer.wte", "transformer.h.0.", ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")),
        "megatron": (
            "embedding.word_embeddings",
            "decoder.layers.0.",
            ("self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2"),
        ),
        "torchtitan": ("tok_embeddings", "layers.0.", ("attention.wo", "feed_forward.w1", "feed_forward.w2")),
    }
    table, prefix, others = names[framework]
    found: dict[str, tuple[int, ...]] = {f"{table}.weight": (256 if framework == "megatron" else 200, 32)}
    if framework == "torchtitan":
        fused = {f"{prefix}attention.{name}": (32, 32) for name in ("wq", "wk", "wv")}
    else:
        fused = {prefix + ("attn.c_attn" if framework == "hf" else "self_attention.linear_qkv"): (96, 32)}
    for name, shape in (
        fused | {prefix + name: matrices[kind] for name, kind in zip(others, matrices, strict=True)}
    ).items():
        found[f"{name}.weight"] = shape[::-1] if framework == "hf" else shape
        found[f"{name}.bias"] = shape[:1]
    return found


def test_gpt2_is_the_same_in_every_framework() -> None:
    found = {}
    for framework in ("hf", "megatron", "torchtitan"):
        pack, shapes = views.load("gpt2", framework, **GPT2), gpt2_shapes(framework)
        inits = {f"h.0.{part}.bias": Normal(0.1) for part in ("attn.query", "attn.key", "attn.value", "mlp.c_fc")}
        found[framework] = made(pack.rules(shapes, inits), shapes)
    hf, megatron, titan = found.values()
    for kind in ("weight", "bias"):
        parts = np.split(hf[f"transformer.h.0.attn.c_attn.{kind}"].T, 3)
        assert all(part.any() for part in parts)
        for name, part in zip("qkv", parts, strict=True):
            np.testing.assert_array_equal(titan[f"layers.0.attention.w{name}.{kind}"], part)
        heads = [part.reshape(4, 8, *part.shape[1:]) for part in parts]
        fused = np.stack(heads, 1).reshape(96, *parts[0].shape[1:])
        np.testing.assert_array_equal(megatron[f"decoder.layers.0.self_attention.linear_qkv.{kind}"], fused)
    for ours, m, t in (
        ("attn.c_proj", "self_attention.linear_proj", "attention.wo"),
        ("mlp.c_fc", "mlp.linear_fc1", "feed_forward.w1"),
    ):
        weight = hf[f"transformer.h.0.{ours}.weight"].T
        np.testing.assert_array_equal(megatron[f"decoder.layers.0.{m}.weight"], weight)
        np.testing.assert_array_equal(titan[f"layers.0.{t}.weight"], weight)
    padded = megatron["embedding.word_embeddings.weight"]
    np.testing.assert_array_equal(padded[:200], hf["transformer.wte.weight"])
    np.testing.assert_array_equal(titan["tok_embeddings.weight"], hf["transformer.wte.weight"])
    assert not padded[200:].any()
    tables = [views.load("gpt2", name, **GPT2).fingerprint(arrays) for name, arrays in found.items()]
    assert len(tables[0]) == 13
    assert tables[0].compare(tables[1]) == tables[0].compare(tables[2]) == []


def test_shards_hold_their_part() -> None:
    pack, name = views.load("llama", "megatron", **LLAMA), "decoder.layers.1.self_attention.linear_qkv.weight"
    rules = pack.rules({name: (64, 32)})
    numparam.set_seed(7)
    parameter = Parameter(initializer(rules[name], (64, 32)), name=name)
    np.testing.assert_array_equal(parameter[13:47, 5:9].asnumpy(), parameter.asnumpy()[13:47, 5:9])


def test_stacked_layers_and_packs_of_ones_own(tmp_path: Any) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[parameters]]\nname = "layers.{i}.w"\ninit = { init = "normal", sigma = 0.5 }\n'
        'flax = { name = "layers.kernel", transpose = true }\n'
    )
    pack = views.load(file, "flax")
    stacked = made(pack.rules({"layers.kernel": (3, 4, 6)}), {"layers.kernel": (3, 4, 6)})["layers.kernel"]
    numparam.set_seed(7)
    for layer in range(3):
        expected = Parameter(initializer(Normal(0.5), (6, 4)), name=f"layers.{layer}.w").asnumpy()
        np.testing.assert_array_equal(stacked[layer], expected.T)
    assert numparam.fingerprint({"layers.kernel": stacked}, view=pack.views({"layers.kernel": stacked})) == (
        pack.fingerprint({"layers.kernel": stacked})
    )


def test_the_rest_of_a_tensor_is_zero() -> None:
    part = Part("w", (2, 3), View("v", np.s_[1:5:2, :3]))
    values = initializer(Viewed([(part, Normal(1.0))]), (6, 4)).asnumpy()
    assert values[1:5:2, :3].all()
    values[1:5:2, :3] = 0
    assert not values.any()
    assert part.region(Region.full((2, 3))).is_full


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: views.load("nothing", "hf"), "no pack 'nothing'; known: gpt2, llama"),
        (lambda: views.load("llama", "hf").rules({"other": (3,)}), "has no tensor 'other'"),
        (
            lambda: views.load("llama", "megatron").parts("output_layer.weight", (4, 4)),
            r"needs the size 'vocab': load\(..., vocab=...\)",
        ),
        (
            lambda: views.load("llama", "torchtitan", heads=3).parts("layers.0.attention.wq.weight", (32, 4)),
            "has no 3 heads of two halves",
        ),
    ],
)
def test_errors(call: Callable[[], Any], words: str) -> None:
    with pytest.raises((ValueError, KeyError), match=words):
        call()


# --------------------------------------------------------------------------- logits


def attend(q: Any, k: Any, v: Any) -> Any:
    import jax

    scores = q @ k.transpose(0, 1, 3, 2) / q.shape[-1] ** 0.5
    seen = np.tril(np.ones(scores.shape[-2:], bool))
    out = jax.nn.softmax(jax.numpy.where(seen, scores, -1e30)) @ v
    return out.transpose(0, 2, 1, 3).reshape(*out.shape[:1], out.shape[2], -1)


def heads(x: Any, count: int) -> Any:
    return x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)


def rotated(x: Any) -> Any:
    import jax

    half = x.shape[-1] // 2
    angles = np.outer(np.arange(x.shape[2]), 10000.0 ** (-np.arange(half) / half)).astype(np.float32)
    cos, sin = (np.concatenate([f(angles)] * 2, -1) for f in (np.cos, np.sin))
    return x * cos + jax.numpy.concatenate([-x[..., half:], x[..., :half]], -1) * sin


def flax_llama() -> Any:
    import jax
    from flax import linen as nn

    class Attention(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            q, k, v = (
                heads(nn.Dense(count * 8, use_bias=False, name=f"{name}_proj")(x), count)
                for name, count in (("q", 4), ("k", 2), ("v", 2))
            )
            q, k = rotated(q), rotated(k)
            out = attend(q, *(jax.numpy.repeat(each, 2, 1) for each in (k, v)))
            return nn.Dense(32, use_bias=False, name="o_proj")(out)

    class Mlp(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            gate, up = (nn.Dense(48, use_bias=False, name=f"{name}_proj")(x) for name in ("gate", "up"))
            return nn.Dense(32, use_bias=False, name="down_proj")(nn.silu(gate) * up)

    class Layer(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = x + Attention(name="self_attn")(nn.RMSNorm(name="input_layernorm")(x))
            return x + Mlp(name="mlp")(nn.RMSNorm(name="post_attention_layernorm")(x))

    class Llama(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, words: Any) -> Any:
            x = nn.Embed(200, 32, name="embed_tokens")(words)
            for number in range(2):
                x = Layer(name=f"layers_{number}")(x)
            return nn.Dense(200, use_bias=False, name="lm_head")(nn.RMSNorm(name="norm")(x))

    return Llama()


def flax_gpt2() -> Any:
    from flax import linen as nn

    class Attention(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            q, k, v = (heads(each, 4) for each in _thirds(nn.Dense(96, name="c_attn")(x)))
            return nn.Dense(32, name="c_proj")(attend(q, k, v))

    class Mlp(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(32, name="c_proj")(nn.gelu(nn.Dense(128, name="c_fc")(x)))

    class Layer(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = x + Attention(name="attn")(nn.LayerNorm(1e-5, name="ln_1")(x))
            return x + Mlp(name="mlp")(nn.LayerNorm(1e-5, name="ln_2")(x))

    class Gpt2(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, words: Any) -> Any:
            embed = nn.Embed(200, 32, name="wte")
            x = embed(words) + nn.Embed(16, 32, name="wpe")(np.arange(words.shape[1]))
            for number in range(2):
                x = Layer(name=f"h_{number}")(x)
            return embed.attend(nn.LayerNorm(1e-5, name="ln_f")(x))

    return Gpt2()


def _thirds(x: Any) -> Any:
    return [x[..., start : start + 32] for start in (0, 32, 64)]


def hf(name: str) -> Any:
    import transformers

    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=4, n_positions=16)
        return transformers.GPT2LMHeadModel(config)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=200,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )


@pytest.mark.parametrize("name, sizes", [("gpt2", GPT2), ("llama", LLAMA)])
def test_transformers_and_flax_start_with_the_same_bits_and_compute_the_same(name: str, sizes: dict[str, int]) -> None:
    for library in ("torch", "transformers", "jax", "flax"):
        pytest.importorskip(library)
    import jax
    import torch

    from numparam.jax import eval_shape
    from numparam.jax import init as jax_init
    from numparam.jax.tree import name_of
    from numparam.torch import init_

    ours = hf(name).eval()
    shapes = {key: tuple(each.shape) for key, each in ours.named_parameters()}
    pack = views.load(name, "hf", **sizes)
    init_(ours, pack.rules(shapes), seed=7)

    words = np.arange(20).reshape(2, 10) * 7 % 200
    model = flax_gpt2() if name == "gpt2" else flax_llama()
    abstract = eval_shape(model.init, jax.random.key(0), words)
    named = {name_of(path): leaf for path, leaf in jax.tree.flatten_with_path(abstract)[0]}
    flax = views.load(name, "flax", **sizes)
    variables = jax_init(abstract, flax.rules(named), seed=7)

    torch_arrays = {key: each.detach().numpy() for key, each in ours.named_parameters()}
    flax_arrays = {name_of(path): leaf for path, leaf in jax.tree.flatten_with_path(variables)[0]}
    sent = pack.fingerprint(torch_arrays)
    assert sent.compare(flax.fingerprint(flax_arrays)) == []
    with torch.no_grad():
        expected = ours(torch.tensor(words)).logits.numpy()
    np.testing.assert_allclose(model.apply(variables, words), expected, atol=2e-6)
    assert expected.std() > 0.05
