"""A residual vision net whose weights are initialised again, put into groups, saved and loaded."""

import os
import tempfile

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, context, nn
from mindspore.common import dtype as mstype
from mindspore.common import initializer as init
from mindspore.common.initializer import HeNormal, Normal, TruncatedNormal, initializer


class Conv(nn.Cell):
    def __init__(self, inputs, outputs, kernel=3, has_bias=False):
        super().__init__()
        self.weight = Parameter(initializer("normal", (outputs, inputs, kernel, kernel)), name="weight")
        self.bias = Parameter(initializer("zeros", (outputs,)), name="bias") if has_bias else None

    def extend_repr(self):
        return f"shape={self.weight.shape}"


class Norm(nn.Cell):
    def __init__(self, features):
        super().__init__()
        self.gamma = Parameter(initializer("ones", (features,)), name="gamma")
        self.beta = Parameter(initializer("zeros", (features,)), name="beta")
        self.moving_mean = Parameter(initializer("zeros", (features,)), name="mean", requires_grad=False)
        self.moving_variance = Parameter(initializer("ones", (features,)), name="variance", requires_grad=False)


class Linear(nn.Cell):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = Parameter(initializer("xavier_uniform", (outputs, inputs)), name="weight")
        self.bias = Parameter(initializer("zeros", (outputs,)), name="bias")


class Block(nn.Cell):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = Conv(inputs, outputs)
        self.bn1 = Norm(outputs)
        self.conv2 = Conv(outputs, outputs)
        self.bn2 = Norm(outputs)
        self.down_sample = nn.SequentialCell([Conv(inputs, outputs, 1), Norm(outputs)]) if inputs != outputs else None


class ResNet(nn.Cell):
    def __init__(self, classes=10, widths=(8, 16)):
        super().__init__()
        self.stem = nn.SequentialCell([Conv(3, widths[0], 7, has_bias=True), Norm(widths[0])])
        self.layers = nn.CellList([Block(max(widths[0], width // 2), width) for width in widths])
        self.head = Linear(widths[-1], classes)
        self.init_weights()

    def init_weights(self):
        for _, cell in self.cells_and_names():
            if isinstance(cell, Conv):
                fan_out = init._calculate_fan_in_and_fan_out(cell.weight.shape)[1]
                sigma = (2.0 / fan_out) ** 0.5
                cell.weight.set_data(initializer(Normal(sigma), cell.weight.shape, cell.weight.dtype))
                if cell.bias is not None:
                    cell.bias.set_data(initializer("zeros", cell.bias.shape, cell.bias.dtype))
            elif isinstance(cell, Norm):
                cell.gamma.set_data(initializer("ones", cell.gamma.shape, cell.gamma.dtype))
            elif isinstance(cell, Linear):
                cell.weight.set_data(initializer(TruncatedNormal(0.02), cell.weight.shape, cell.weight.dtype))


def group(net, weight_decay):
    decay = [p for p in net.trainable_params() if len(p.shape) > 1]
    rest = [p for p in net.trainable_params() if len(p.shape) <= 1]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest}, {"order_params": net.trainable_params()}]


context.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
print(ms.get_context("mode"), context.get_context("device_target"))
ms.set_seed(1)
print(ms.get_seed())
net = ResNet()
print(net.layers[1].down_sample[0])
for name, parameter in net.parameters_and_names():
    print(name, parameter)
stem = net.stem[0].weight
print(abs(float(stem.asnumpy().std()) - (2 / (8 * 49)) ** 0.5) < 0.01)
print(len(net.trainable_params()), len(net.untrainable_params()), sum(p.size for p in net.get_parameters()))
for part in group(net, 1e-4):
    for key, value in part.items():
        print(key, [p.name for p in value] if isinstance(value, list) else value)

for parameter in net.layers[0].get_parameters():
    parameter.requires_grad = False
print([p.name for p in net.trainable_params()])
net.head.weight.set_data(initializer(HeNormal(mode="fan_out", nonlinearity="relu"), net.head.weight.shape))
net.head.bias += 1
net.head.bias[0] = 5
print(net.head.bias.asnumpy().tolist(), type(net.head.bias).__name__)
net.set_train()
print(net.training, net.head.training)

folder = tempfile.mkdtemp()
path = os.path.join(folder, "resnet.ckpt")
ms.save_checkpoint(net, path, append_dict={"epoch": 3, "lr": 0.5, "model": "resnet"})
print(sorted(os.listdir(folder)))
loaded = ms.load_checkpoint(path)
print(len(loaded), loaded["model"], int(loaded["epoch"].asnumpy()), float(loaded["lr"].asnumpy()))
other = ResNet()
not_loaded, unused = ms.load_param_into_net(
    other, {k: v for k, v in loaded.items() if k not in ("epoch", "lr", "model")}
)
print(not_loaded, unused)
same = zip(net.get_parameters(), other.get_parameters(), strict=True)
print(all(np.array_equal(one.asnumpy(), two.asnumpy()) for one, two in same))
heads = ms.load_checkpoint(path, choice_func=lambda name: name.startswith("head"))
print(list(heads), heads["head.bias"].dtype == mstype.float32)
few = ms.load_checkpoint(path, filter_prefix=["layers", "stem", "epoch", "lr", "model"])
print(sorted(few))
small = ResNet(classes=4)
try:
    ms.load_param_into_net(small, few)
except RuntimeError:
    print("RuntimeError: another number of classes")
few.pop("head.weight")
few["head.bias"] = Parameter(Tensor(np.arange(4), ms.float32), name="head.bias")
not_loaded, unused = ms.load_param_into_net(small, few)
print(len(not_loaded), not_loaded[-1], unused, small.head.bias.asnumpy().tolist())
prefixed = {"backbone." + name: value for name, value in loaded.items() if not isinstance(value, str)}
not_loaded, _ = ms.load_param_into_net(ResNet(), {k: v for k, v in prefixed.items() if "." in k[9:]})
print(not_loaded)
for wrong in (lambda: ms.load_checkpoint("nowhere.ckpt"), lambda: ms.save_checkpoint(3, path)):
    try:
        wrong()
    except (ValueError, TypeError) as error:
        print("ValueError" if isinstance(error, ValueError) else "TypeError")
