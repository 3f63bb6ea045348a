"""The one engine: forward over many masks, backward for gradients, planned within a memory budget."""

from shortlm.sweep.backward import PIECE, BlockGradients, KeptStates, backward_sweep
from shortlm.sweep.blocks import Batch, BlockCaller, predicted, widest
from shortlm.sweep.decisions import count_forwards, path_of, single_removals
from shortlm.sweep.evaluator import Evaluator
from shortlm.sweep.finite import perplexity_of, refuse_no_number
from shortlm.sweep.forward import Losses, gathered, sweep
from shortlm.sweep.job import Job, Say, open_job, share_of
from shortlm.sweep.kept import KeptPrefixes
from shortlm.sweep.plan import ModelSize, Plan, Work
from shortlm.sweep.planner import Planner, auto_batch_size, batched, plan_for, taken_memory
from shortlm.sweep.ranks import Ranks, joined_ranks, told
from shortlm.sweep.replaced import bypassed
from shortlm.sweep.tail import Tail, token_nats
from shortlm.sweep.timing import CallTimes, MadeUpModel, seconds
from shortlm.sweep.trace import LiveBytes, silent

__all__ = [
    "PIECE",
    "Batch",
    "BlockCaller",
    "BlockGradients",
    "CallTimes",
    "Evaluator",
    "Job",
    "KeptPrefixes",
    "KeptStates",
    "LiveBytes",
    "Losses",
    "MadeUpModel",
    "ModelSize",
    "Plan",
    "Planner",
    "Ranks",
    "Say",
    "Tail",
    "Work",
    "auto_batch_size",
    "backward_sweep",
    "batched",
    "bypassed",
    "count_forwards",
    "gathered",
    "joined_ranks",
    "open_job",
    "path_of",
    "perplexity_of",
    "plan_for",
    "predicted",
    "refuse_no_number",
    "seconds",
    "share_of",
    "silent",
    "single_removals",
    "sweep",
    "taken_memory",
    "token_nats",
    "told",
    "widest",
]  # fmt: skip
