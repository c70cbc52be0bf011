"""The rules that follow a user's own: how the parameters of common models start by default."""

# The first rule that matches wins, so exceptions come before the general case.
DEFAULT_RULES = """\
# Buffers: not parameters, but stored next to them, and a model is wrong without their values.
[[rules]]
glob = "*position_ids"
init = "arange"

[[rules]]
regex = '(.*\\.)?(attn|attention)\\.(bias|causal_mask)' # the causal mask of GPT-2 and its kin
min_ndim = 4
init = "lower_triangle"

[[rules]]
glob = "*attn.masked_bias"
max_ndim = 0
init = "constant"
value = -10000.0

[[rules]]
glob = ["*num_batches_tracked", "*running_mean"]
init = "zeros"

[[rules]]
glob = "*running_var"
init = "ones"

# Parameters.
[[rules]]
glob = ["*bias", "*beta", "*bias_ih_l*", "*bias_hh_l*"]
init = "zeros"

[[rules]]
glob = ["*[Nn]orm*", "*ln_*", "*gamma", "*scale"]
max_ndim = 1
min_ndim = 1
init = "ones"

[[rules]]
glob = "*embed*"
init = "normal"
sigma = 0.02

[[rules]]
glob = "*weight" # a vector of weights scales a norm, whatever its layer is called
max_ndim = 1
min_ndim = 1
init = "ones"

[[rules]]
min_ndim = 4 # convolutions: He et al. 2015
init = "he_normal"
mode = "fan_out"
nonlinearity = "relu"

[[rules]]
min_ndim = 2 # matrices: BERT, GPT-2 and Llama start with 0.02
init = "normal"
sigma = 0.02
"""
