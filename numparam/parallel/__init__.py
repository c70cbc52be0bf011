"""Parameters of one model on many ranks: values, gradients and optimizers that agree.

All of it also runs in a single process, where there is nothing to send. See `numparam.communication` for the ranks.
"""

from numparam.optim import Momentum
from numparam.parallel.agreement import broadcast_parameters, check_agreement
from numparam.parallel.fusion import Bucket, Fusion, Gradient, plan_buckets
from numparam.parallel.gradients import DistributedGradReducer
from numparam.parallel.optimizer import ParallelOptimizer
from numparam.parallel.pipeline import (
    init_stage,
    parameters_here,
    pipeline_stage,
    set_pipeline_stage,
    stage_group,
    stage_ranks,
    stages_of,
    sum_shared_gradients,
)

__all__ = [
    "Bucket", "DistributedGradReducer", "Fusion", "Gradient", "Momentum", "ParallelOptimizer", "broadcast_parameters",
    "check_agreement", "init_stage", "parameters_here", "pipeline_stage", "plan_buckets", "set_pipeline_stage",
    "stage_group", "stage_ranks", "stages_of", "sum_shared_gradients",
]  # fmt: skip
