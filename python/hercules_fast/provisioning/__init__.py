"""Provisioning: how many servers of each type to switch on for each workload, interval by interval."""

from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.baselines import Baseline, OrderSpread, greedy, oblivious
from hercules_fast.provisioning.certificate import price_bound
from hercules_fast.provisioning.constrained import ConstrainedSolution, solve_constrained
from hercules_fast.provisioning.constraints import FailureDomains, FairShare, Hysteresis, PowerCap, Switching
from hercules_fast.provisioning.integer import whole_machines
from hercules_fast.provisioning.linear import solve_linear
from hercules_fast.provisioning.plan import Plan, Savings
from hercules_fast.provisioning.policy import Policy, headroom_from_trace
from hercules_fast.provisioning.problem import Problem
from hercules_fast.provisioning.relaxed import LinearSolution
from hercules_fast.provisioning.scale import largest_scale
from hercules_fast.provisioning.timeline import provision

__all__ = [
    "Assignment",
    "Baseline",
    "ConstrainedSolution",
    "FailureDomains",
    "FairShare",
    "Hysteresis",
    "LinearSolution",
    "OrderSpread",
    "Plan",
    "Policy",
    "PowerCap",
    "Problem",
    "Savings",
    "Switching",
    "greedy",
    "headroom_from_trace",
    "largest_scale",
    "oblivious",
    "price_bound",
    "provision",
    "solve_constrained",
    "solve_linear",
    "whole_machines",
]
