"""Weights of another library are renamed and converted, and adapters are put around the layers of a net."""

import os
import re
import tempfile
from collections import OrderedDict

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import HeUniform, Zero, initializer
from mindspore.common.parameter import ParameterTuple
from mindspore.train.serialization import load_checkpoint, load_param_into_net, save_checkpoint


class Dense(nn.Cell):
    def __init__(self, inputs, outputs, has_bias=True):
        super().__init__()
        self.in_channels, self.out_channels, self.has_bias = inputs, outputs, has_bias
        self.weight = Parameter(initializer("he_uniform", (outputs, inputs)), name="weight")
        if has_bias:
            self.bias = Parameter(initializer("zeros", outputs), name="bias")

    def extend_repr(self):
        return f"input_channels={self.in_channels}, output_channels={self.out_channels}"


class LayerNorm(nn.Cell):
    def __init__(self, features):
        super().__init__()
        self.gamma = Parameter(initializer("ones", features), name="gamma")
        self.beta = Parameter(initializer("zeros", features), name="beta")


class Embedding(nn.Cell):
    def __init__(self, rows, features):
        super().__init__()
        self.embedding_table = Parameter(initializer("normal", [rows, features]), name="embedding_table")


class EncoderLayer(nn.Cell):
    def __init__(self, features):
        super().__init__()
        self.query, self.key, self.value = (Dense(features, features) for _ in range(3))
        self.output = Dense(features, features)
        self.norm = LayerNorm(features)


class Encoder(nn.Cell):
    def __init__(self, features=8, layers=2, rows=12):
        super().__init__()
        self.embeddings = Embedding(rows, features)
        self.layer = nn.CellList([EncoderLayer(features) for _ in range(layers)])
        self.pooler = Dense(features, features)


class LoraDense(nn.Cell):
    def __init__(self, dense, rank, alpha):
        super().__init__()
        self.dense = dense
        self.scaling = alpha / rank
        self.lora_a = Parameter(initializer(HeUniform(negative_slope=5**0.5), (rank, dense.in_channels), ms.float32))
        self.lora_b = Parameter(initializer(Zero(), (dense.out_channels, rank), ms.float32))

    def merged(self):
        return self.dense.weight.asnumpy() + self.scaling * (self.lora_b.asnumpy() @ self.lora_a.asnumpy())


RULES = [
    (r"encoder\.layer\.", "layer."),
    (r"attention\.(self|output)\.", ""),
    (r"LayerNorm\.weight$", "norm.gamma"),
    (r"LayerNorm\.bias$", "norm.beta"),
    (r"word_embeddings\.weight$", "embedding_table"),
    (r"output\.dense", "output"),
]


def rename(name):
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


def foreign(net):
    """Return the weights as the other library names and orders them, in float64."""
    values = OrderedDict()
    for number, parameter in enumerate(net.get_parameters()):
        name = parameter.name.replace("layer.", "encoder.layer.", 1) if "layer." in parameter.name else parameter.name
        name = re.sub(r"\.(query|key|value)\.", r".attention.self.\1.", name)
        name = re.sub(r"\.output\.", ".attention.output.dense.", name)
        name = name.replace("norm.gamma", "LayerNorm.weight").replace("norm.beta", "LayerNorm.bias")
        name = name.replace("embedding_table", "word_embeddings.weight")
        values[name] = np.full(parameter.shape, number, np.float64)
    return values


def convert(values):
    return [{"name": rename(name), "data": Tensor(value.astype(np.float32))} for name, value in values.items()]


net = Encoder()
given = foreign(net)
print(list(given)[:6])
folder = tempfile.mkdtemp()
path = os.path.join(folder, "encoder.ckpt")
save_checkpoint(convert(given), path)
loaded = load_checkpoint(path)
print([name for name in loaded if name not in net.parameters_dict()], len(loaded))
print(loaded["pooler.weight"], type(loaded["pooler.weight"]).__name__)
print(load_checkpoint(path, net).keys() == loaded.keys())
print([float(p.asnumpy().reshape(-1)[0]) for p in net.get_parameters()][:5])
half = OrderedDict((name, Parameter(value.astype(ms.float16), name=name)) for name, value in loaded.items())
missing, unused = load_param_into_net(net, half)
print(missing, unused, net.pooler.weight.dtype == ms.float32)
whole = {name: Parameter(Tensor(np.zeros(value.shape, np.int32)), name=name) for name, value in loaded.items()}
try:
    load_param_into_net(net, whole)
except RuntimeError:
    print("RuntimeError: integers for floats")

for parameter in net.get_parameters():
    parameter.requires_grad = False
for layer in net.layer:
    for target in ("query", "value"):
        setattr(layer, target, LoraDense(getattr(layer, target), rank=2, alpha=4))
for name, parameter in net.parameters_and_names():
    parameter.name = name
print([p.name for p in net.trainable_params()])
print(net.layer[0].query)
adapters = ParameterTuple(net.trainable_params())
print(
    len(adapters), [p.shape for p in adapters[:2]], all(not p.asnumpy().any() for p in adapters if "lora_b" in p.name)
)
print(all(np.abs(p.asnumpy()).max() > 0 for p in adapters if "lora_a" in p.name))
print(np.array_equal(net.layer[1].value.merged(), net.layer[1].value.dense.weight.asnumpy()))
net.layer[1].value.lora_b.set_data(Tensor(np.ones((8, 2)), ms.float32))
print(np.array_equal(net.layer[1].value.merged(), net.layer[1].value.dense.weight.asnumpy()))

lora_path = os.path.join(folder, "lora.ckpt")
save_checkpoint(net, lora_path, choice_func=lambda name: "lora_" in name)
only = load_checkpoint(lora_path)
print(list(only))
missing, unused = load_param_into_net(net, only)
print(len(missing), unused, "pooler.weight" in missing)
print(list(load_checkpoint(lora_path, choice_func=lambda name: name.endswith("lora_a"))))
for name, cell in net.cells_and_names():
    if isinstance(cell, LoraDense):
        cell.dense.weight.set_data(Tensor(cell.merged(), ms.float32))
        cell.lora_b.set_data(initializer("zeros", cell.lora_b.shape, cell.lora_b.dtype))
        print(name, cell.dense.weight.requires_grad)
merged = {p.name.replace(".dense.", "."): p for p in net.get_parameters() if "lora_" not in p.name}
fresh = Encoder()
print([list(names) for names in load_param_into_net(fresh, merged)])
save_checkpoint(fresh, os.path.join(folder, "merged"), format="safetensors")
print(sorted(os.listdir(folder)))
copies = net.pooler.weight.clone(), net.pooler.weight.copy()
print(copies[0], copies[1].asnumpy() is net.pooler.weight.asnumpy())
