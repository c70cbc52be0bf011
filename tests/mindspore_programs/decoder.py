"""A decoder with a parallel context, layouts and pipeline stages."""

import mindspore as ms
from mindspore import Layout, Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.common.initializer import Normal, initializer
from mindspore.communication import get_group_size, get_rank
from mindspore.context import ParallelMode
from mindspore.nn.cell import Cell
from mindspore.nn.utils import no_init_parameters


class Config:
    hidden, heads, layers, vocabulary, stages = 16, 4, 4, 32, 2
    param_init_type = ms.float32
    compute_dtype = ms.float16


class RMSNorm(Cell):
    def __init__(self, hidden, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = Parameter(initializer("ones", (hidden,), dtype=Config.param_init_type), parallel_optimizer=False)


class Linear(Cell):
    def __init__(self, inputs, outputs, layout=None):
        super().__init__()
        self.weight = Parameter(initializer(Normal(0.02), [outputs, inputs], Config.param_init_type), name="weight")
        self.layout = layout

    def construct(self, x):
        return ops.matmul(x, self.weight.T)


class Attention(Cell):
    def __init__(self, config, layout):
        super().__init__()
        self.compute_dtype = config.compute_dtype
        self.wq = Linear(config.hidden, config.hidden, layout("tp", "None"))
        self.wk = Linear(config.hidden, config.hidden, layout("tp", "None"))
        self.wv = Linear(config.hidden, config.hidden, layout("tp", "None"))
        self.wo = Linear(config.hidden, config.hidden, layout("None", "tp"))


class FeedForward(Cell):
    def __init__(self, config, layout):
        super().__init__()
        self.w1 = Linear(config.hidden, 4 * config.hidden, layout("tp", "None"))
        self.w2 = Linear(4 * config.hidden, config.hidden, layout("None", "tp"))
        self.w3 = Linear(config.hidden, 4 * config.hidden, layout("tp", "None"))


class Layer(Cell):
    def __init__(self, config, layout):
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden)
        self.ffn_norm = RMSNorm(config.hidden)
        self.attention = Attention(config, layout)
        self.feed_forward = FeedForward(config, layout)


class Decoder(Cell):
    def __init__(self, config, layout):
        super().__init__()
        self.tok_embeddings = Linear(config.hidden, config.vocabulary, layout("tp", "None"))
        self.layers = nn.CellList([Layer(config, layout) for _ in range(config.layers)])
        for index, layer in enumerate(self.layers):
            layer.pipeline_stage = index * config.stages // config.layers
        self.norm_out = RMSNorm(config.hidden)
        self.lm_head = Linear(config.hidden, config.vocabulary, layout("tp", "None"))
        self.lm_head.pipeline_stage = config.stages - 1


ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU", max_call_depth=10000)
print(ms.get_context("mode"), ms.get_context("max_call_depth"))
ms.set_context(mode=ms.PYNATIVE_MODE)
print(get_rank(), get_group_size())
ms.set_auto_parallel_context(
    parallel_mode=ParallelMode.STAND_ALONE,
    gradients_mean=True,
    full_batch=True,
    enable_parallel_optimizer=False,
    strategy_ckpt_save_file="",
    pipeline_stages=1,
    parallel_optimizer_config={"gradient_accumulation_shard": False, "parallel_optimizer_threshold": 64},
    comm_fusion={"allreduce": {"mode": "auto", "config": None}},
)
for key in ("parallel_mode", "device_num", "global_rank", "gradients_mean", "full_batch", "pipeline_stages"):
    print(key, ms.get_auto_parallel_context(key))
for wrong in ({"parallel_mode": "parallel"}, {"device_num": 0}, {"nothing": 1}, {"search_mode": "best"}):
    try:
        ms.set_auto_parallel_context(**wrong)
    except ValueError:
        print("ValueError", wrong)

layout = Layout((2, 4), ("dp", "tp"))
for place in (layout("dp", "tp"), layout("None", "tp"), layout(("dp", "tp"), "None")):
    described = place.to_dict()
    print(described["device_matrix"], described["tensor_map"], described["alias_name"])
try:
    Layout((2, 4), ("dp",))
except ValueError:
    print("ValueError: an axis without a name")

ms.set_seed(42)
with no_init_parameters():
    net = Decoder(Config, layout)
net.init_parameters_data()
for name, parameter in list(net.parameters_and_names())[:4]:
    print(name, parameter)
print([name for name, cell in net.cells_and_names() if isinstance(cell, RMSNorm)])
print([layer.pipeline_stage for layer in net.layers], net.lm_head.pipeline_stage)
print(net.layers[0].attention.compute_dtype == ms.float16, net.layers[0].attention.wq.layout.to_dict()["tensor_map"])
try:
    net.norm_out.pipeline_stage = -1
except ValueError:
    print("ValueError: a stage below zero")

for index, layer in enumerate(net.layers):
    layer.set_comm_fusion(index + 1)
    layer.recompute()
print([net.layers[n].attention.wq.weight.comm_fusion for n in range(4)], net.lm_head.weight.comm_fusion)
sharded = [p.name for p in net.trainable_params() if p.parallel_optimizer]
print(len(sharded), len(net.trainable_params()))
net.tok_embeddings.weight.layerwise_parallel = True
print(len(net.parameters_broadcast_dict()), len(net.parameters_dict()))
net.lm_head.weight.parallel_optimizer = False
for attribute, wrong in (("parallel_optimizer", 1), ("comm_fusion", -1), ("requires_grad", "yes")):
    try:
        setattr(net.lm_head.weight, attribute, wrong)
    except (TypeError, ValueError) as error:
        print(attribute, "ValueError" if isinstance(error, ValueError) else "TypeError")

weights = ParameterTuple(net.trainable_params())
states = weights.clone(prefix="adam_m", init="zeros")
print(len(states), states[0], states[-1].asnumpy().any())
x = Tensor([[1.0] * Config.hidden], ms.float32)
print(net.lm_head(x).shape, net.lm_head.weight.T.shape)
net.update_parameters_name("decoder.")
print(net.lm_head.weight.name, [p.name for p in net.norm_out.trainable_params()])
print(net.norm_out)
ms.reset_auto_parallel_context()
print(ms.get_auto_parallel_context("gradients_mean"), ms.get_auto_parallel_context("full_batch"))
