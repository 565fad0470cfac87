"""Provisioning: how many servers of each type to switch on for each workload, interval by interval."""

from hercules_fast.provisioning.assignment import Assignment
from hercules_fast.provisioning.baselines import Baseline, OrderSpread, greedy, oblivious
from hercules_fast.provisioning.certificate import price_bound
from hercules_fast.provisioning.constrained import solve_constrained
from hercules_fast.provisioning.constraints import FailureDomains, FairShare, Hysteresis, PowerCap, Switching
from hercules_fast.provisioning.evolution import Evolution, workload_evolution
from hercules_fast.provisioning.integer import whole_bound, whole_machines
from hercules_fast.provisioning.inverse import (
    Growth,
    OneMore,
    Purchase,
    cheapest_purchase,
    largest_growth,
    one_more_server,
)
from hercules_fast.provisioning.linear import solve_linear
from hercules_fast.provisioning.network import solve_network
from hercules_fast.provisioning.operations import (
    Maintenance,
    Prices,
    SiteEnergy,
    Window,
    load_constraints,
    load_maintenance,
    load_prices,
)
from hercules_fast.provisioning.plan import Plan, Savings
from hercules_fast.provisioning.policy import Policy, headroom_from_errors, headroom_from_trace
from hercules_fast.provisioning.problem import Problem
from hercules_fast.provisioning.relaxed import LinearSolution
from hercules_fast.provisioning.replicas import replicas_yaml
from hercules_fast.provisioning.scale import largest_scale
from hercules_fast.provisioning.solution import Constrained, Solution
from hercules_fast.provisioning.solvers import CrossCheck, solve_program
from hercules_fast.provisioning.solving import solve
from hercules_fast.provisioning.timeline import provision

__all__ = [
    "Assignment",
    "Baseline",
    "Constrained",
    "CrossCheck",
    "Evolution",
    "FailureDomains",
    "FairShare",
    "Growth",
    "Hysteresis",
    "LinearSolution",
    "Maintenance",
    "OneMore",
    "OrderSpread",
    "Plan",
    "Policy",
    "PowerCap",
    "Prices",
    "Problem",
    "Purchase",
    "Savings",
    "SiteEnergy",
    "Solution",
    "Switching",
    "Window",
    "cheapest_purchase",
    "greedy",
    "headroom_from_errors",
    "headroom_from_trace",
    "largest_growth",
    "largest_scale",
    "load_constraints",
    "load_maintenance",
    "load_prices",
    "oblivious",
    "one_more_server",
    "price_bound",
    "provision",
    "replicas_yaml",
    "solve",
    "solve_constrained",
    "solve_linear",
    "solve_network",
    "solve_program",
    "whole_bound",
    "whole_machines",
    "workload_evolution",
]
