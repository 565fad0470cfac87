"""Forward passes of the models, written from what each family is; nothing here knows the engine's wiring.

Everything is float64 and plain. A forward pass takes the model, its tables (a list of arrays ``[rows, dim]`` per
group), its weights by name and the inputs of a query, and gives scores ``[items, outputs]``.
"""

from __future__ import annotations

import numpy as np

from hercules_fast.models import Model, Stage


def forward(model: Model, tables, weights, inputs) -> np.ndarray:
    """Scores of the catalogue's model, by its family."""
    weights = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    pooled = [pool_group(model, g, tables[g], inputs) for g in range(len(model.tables))]
    dense = None if inputs.dense is None else np.asarray(inputs.dense, np.float64)
    stages = {stage.name: stage for stage in model.stages}
    return FAMILIES[model.family](model, stages, pooled, dense, weights)


def pool_group(model: Model, g: int, tables, inputs) -> np.ndarray:
    """Sums of rows, ``[items, tables, dim]``: the lookups of a table follow each other item by item."""
    group = model.tables[g]
    rows = np.asarray(inputs.indices[g]).reshape(group.count, inputs.items, group.pooling)
    out = np.zeros((inputs.items, group.count, group.dim))
    for t in range(group.count):
        for b in range(inputs.items):
            for row in rows[t, b]:
                out[b, t] += tables[t][row]
    return out


def relu(x):
    return np.where(x > 0, x, 0.0)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def mlp(stage: Stage, x, weights, *, end=relu, copy: int | None = None) -> np.ndarray:
    """``x`` [items, in] through the layers of a stage, or of its copy number ``copy``."""
    layers = len(stage.dims) - 1
    for i in range(layers):
        w, b = weights[f"{stage.name}.{i}.weight"], weights[f"{stage.name}.{i}.bias"]
        if copy is not None:
            w, b = w[copy], b[copy]
        assert w.shape == (stage.dims[i], stage.dims[i + 1])
        x = (end if i == layers - 1 else relu)(x @ w + b)
    return x


def flat(pooled) -> np.ndarray:
    """All pooled vectors side by side."""
    return np.concatenate([group.reshape(len(group), -1) for group in pooled], axis=1)


def dlrm(model, stages, pooled, dense, weights):
    """Bottom MLP of the dense features, joined with all pooled vectors, a cross network if there is one, top MLP."""
    x = np.concatenate([mlp(stages["bottom_mlp"], dense, weights), flat(pooled)], axis=1)
    if "cross_net" in stages:
        x = cross(stages["cross_net"], x, weights)
    return mlp(stages["predict_mlp"], x, weights, end=sigmoid)


def cross(stage: Stage, x0, weights):
    x = x0
    for layer in range(stage.layers):
        v, w, b = (weights[f"{stage.name}.{layer}.{part}"] for part in ("down", "up", "bias"))
        x = x0 * ((x @ v) @ w + b) + x
    return x


def wnd(model, stages, pooled, dense, weights):
    """Raw dense features joined with all pooled vectors, one MLP."""
    return mlp(stages["predict_mlp"], np.concatenate([dense, flat(pooled)], axis=1), weights, end=sigmoid)


def mtwnd(model, stages, pooled, dense, weights):
    """As Wide&Deep, a shared MLP, then a head per task, side by side."""
    shared = mlp(stages["shared_mlp"], np.concatenate([dense, flat(pooled)], axis=1), weights)
    task = stages["task_mlp"]
    if task.copies == 1:
        return mlp(task, shared, weights)
    end = sigmoid if task.dims[-1] == 1 else relu
    return np.concatenate([mlp(task, shared, weights, end=end, copy=i) for i in range(task.copies)], axis=1)


def ncf(model, stages, pooled, dense, weights):
    """The first two tables are added, the other two go through an MLP; both joined, a last layer."""
    factors, branch = pooled
    deep = mlp(stages["mlp_branch"], branch.reshape(len(branch), -1), weights)
    return mlp(stages["final_fc"], np.concatenate([deep, factors[:, 0] + factors[:, 1]], axis=1), weights)


def din(model, stages, pooled, dense, weights):
    """Per behaviour [behaviour, ad, behaviour + ad] through a unit of its own; their sum, profile, ad and context."""
    profile, behaviours, ad, context = pooled
    unit = stages["activation_unit"]
    interest = np.zeros((len(ad), unit.dims[-1]))
    for i in range(behaviours.shape[1]):
        one = behaviours[:, i]
        interest += mlp(unit, np.concatenate([one, ad[:, 0], one + ad[:, 0]], axis=1), weights, copy=i)
    joined = np.concatenate([interest, profile[:, 0], ad[:, 0], context[:, 0]], axis=1)
    return mlp(stages["predict_mlp"], joined, weights)


def rnn(stage: Stage, sequence, weights) -> list[np.ndarray]:
    """All states of a tanh cell over ``sequence``, a list of [items, in], from zero."""
    w, u, b = (weights[f"{stage.name}.{part}"] for part in ("input.weight", "hidden.weight", "bias"))
    state = np.zeros((len(sequence[0]), stage.hidden_dim))
    states = []
    for x in sequence:
        state = np.tanh(x @ w + state @ u + b)
        states.append(state)
    return states


def dien(model, stages, pooled, dense, weights):
    """States of the behaviours, each plus its share of a softmax over the steps, a second recurrence's last state."""
    profile, behaviours, ad, context = pooled
    states = rnn(stages["interest_rnn_1"], [behaviours[:, t] for t in range(behaviours.shape[1])], weights)
    layer = stages["attention"].name
    scores = [s @ weights[f"{layer}.0.weight"] + weights[f"{layer}.0.bias"] for s in states]
    total = sum(np.exp(score) for score in scores)
    attended = [np.exp(score) / total + state for score, state in zip(scores, states, strict=True)]
    last = rnn(stages["interest_rnn_2"], attended, weights)[-1]
    joined = np.concatenate([last, profile[:, 0], ad[:, 0], context[:, 0]], axis=1)
    return mlp(stages["predict_mlp"], joined, weights)


def dot_interaction(bottom, pooled, *, diagonal: bool) -> np.ndarray:
    """DLRM's ``dot``: the bottom vector, then the products of each vector with those before it (and itself)."""
    items = len(bottom)
    vectors = [bottom] + [group[:, t] for group in pooled for t in range(group.shape[1])]
    products = []
    for i in range(len(vectors)):
        for j in range(i + 1 if diagonal else i):
            products.append(np.sum(vectors[i] * vectors[j], axis=1).reshape(items, 1))
    return np.concatenate([bottom, *products], axis=1)


FAMILIES = {"dlrm": dlrm, "wnd": wnd, "mtwnd": mtwnd, "ncf": ncf, "din": din, "dien": dien}
