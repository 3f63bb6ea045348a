"""The one engine: forward over many masks, backward for gradients, planned within a memory budget."""

from shortlm.sweep.backward import PIECE, BlockGradients, KeptStates, Passage, backward_sweep
from shortlm.sweep.blocks import Batch, BlockCaller, predicted, widest
from shortlm.sweep.branches import Branches
from shortlm.sweep.call_times import call_times
from shortlm.sweep.decisions import count_forwards, path_of, single_removals
from shortlm.sweep.decode_latency import DecodeLatency, decode_latencies
from shortlm.sweep.evaluator import Evaluator
from shortlm.sweep.finite import perplexity_of, refuse_no_number
from shortlm.sweep.forward import Losses, gathered, sweep
from shortlm.sweep.job import Job, Say, open_job, share_of
from shortlm.sweep.kept import KeptPrefixes
from shortlm.sweep.ranks import Ranks, distributed_errors, joined_ranks
from shortlm.sweep.recall import Recall
from shortlm.sweep.replaced import bypassed
from shortlm.sweep.schedule import ModelSize, Schedule, Work
from shortlm.sweep.scheduler import Scheduler, auto_batch_size, batched, schedule_for, taken_memory
from shortlm.sweep.side import Side, noted
from shortlm.sweep.sublayers import PARTIAL_CALLS, sublayer_states
from shortlm.sweep.tail import Tail, token_nats
from shortlm.sweep.timing import CallTimes, MadeUpModel, seconds
from shortlm.sweep.trace import CallCost, LiveBytes, call_cost, silent

__all__ = [
    "PARTIAL_CALLS",
    "PIECE",
    "Batch",
    "BlockCaller",
    "BlockGradients",
    "Branches",
    "CallCost",
    "CallTimes",
    "DecodeLatency",
    "Evaluator",
    "Job",
    "KeptPrefixes",
    "KeptStates",
    "LiveBytes",
    "Losses",
    "MadeUpModel",
    "ModelSize",
    "Passage",
    "Ranks",
    "Recall",
    "Say",
    "Schedule",
    "Scheduler",
    "Side",
    "Tail",
    "Work",
    "auto_batch_size",
    "backward_sweep",
    "batched",
    "bypassed",
    "call_cost",
    "call_times",
    "count_forwards",
    "decode_latencies",
    "distributed_errors",
    "gathered",
    "joined_ranks",
    "noted",
    "open_job",
    "path_of",
    "perplexity_of",
    "predicted",
    "refuse_no_number",
    "schedule_for",
    "seconds",
    "share_of",
    "silent",
    "single_removals",
    "sublayer_states",
    "sweep",
    "taken_memory",
    "token_nats",
    "widest",
]  # fmt: skip
