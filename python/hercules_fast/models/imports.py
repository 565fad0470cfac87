"""Models described for other programs: DLRM command lines, DeepRecSys files, TorchRec tables.

What is read is the shape of a model: tables, widths, how they are joined. Where a program has a rule of its own for
what is not written (the width that its top MLP reads, the tables that a number stands for), that rule is followed, and
the docstring of its function says so. Every fault of a description is reported at once, with its path.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, cast

from hercules_fast.descriptors import COUNT, Bound, nearest, read_json, validate
from hercules_fast.errors import ConfigError, Fault, InputError
from hercules_fast.models.descriptors import Model, Stage, TableGroup
from hercules_fast.models.files import MODEL, load_model

__all__ = [
    "load_any_model",
    "load_deeprecsys_model",
    "load_torchrec_tables",
    "model_from_dlrm_flags",
    "model_from_embedding_bag_configs",
]

MAX_FAULTS = 1000
"""Faults of one description that are reported; the others are counted."""

_ROWS, _DIM = MODEL.bounds["tables[].rows"], MODEL.bounds["tables[].dim"]
_POOLING, _WIDTH = MODEL.bounds["tables[].pooling"], MODEL.bounds["stages[].dims[]"]

DTYPE_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("FP32", "FLOAT32"), 4),
    **dict.fromkeys(("FP16", "FLOAT16", "BF16", "BFLOAT16"), 2),
    **dict.fromkeys(("INT8", "UINT8"), 1),
}
"""Bytes of a value by ``data_type`` of TorchRec, in upper case, without its scales."""

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_DIGITS = re.compile(r"[0-9]{1,18}")

Interaction = Literal["dot", "cat"]

# --- DLRM and DeepRecSys ----------------------------------------------------------------------------------------------


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Options of dlrm_s_pytorch.py and dlrm_s_caffe2.py (GitHub facebookresearch/dlrm), and of DeepRecSys's utils/utils.py,
# that say how a model is fed, trained, run or printed, not what it is.
_OF_THE_RUN = _names(
    "accel_configs accel_request_size_thres accel_root_dir activation_function arr_steps avg_arrival_rate "
    "avg_mini_batch_size batch_configs batch_dist_file batch_size_distribution caffe2_net_type config_file "
    "data_randomize data_set data_size data_sub_sample_rate data_trace_enable_padding data_trace_file "
    "dataset_multiprocessing debug_mode dist_backend enable_profiling engine fc_workers inference_engines "
    "inference_only inter_op_workers learning_rate load_model local_rank log_file loss_function loss_threshold "
    "loss_weights lr_decay_start_step lr_num_decay_steps lr_num_warmup_steps max_arr_range max_ind_range "
    "max_mini_batch_size md_round_dims md_temperature md_threshold memory_map min_arr_range mini_batch_size "
    "mlperf_acc_threshold mlperf_auc_threshold mlperf_bin_loader mlperf_bin_shuffle mlperf_grad_accum_iter "
    "mlperf_logging model_accel nepochs num_batches num_workers numpy_rand_seed optimizer output_log_file "
    "plot_compute_graph print_freq print_precision print_time print_wall_time processed_data_file qr_collisions "
    "qr_operation qr_threshold queue rand_data_dist rand_data_max rand_data_min rand_data_mu rand_data_sigma "
    "raw_data_file req_granularity round_targets save_model save_onnx save_proto_types_shapes sched_timeout "
    "sls_workers stable_region sub_task_batch_size sync_dense_params target_latency tensor_board_filename "
    "test_freq test_mini_batch_size test_num_workers tune_accel_qps tune_batch_qps use_accel use_gpu "
    "var_mini_batch_size"
)

# Options that make another model than the tables and layers say -> the value that does not.
_OTHER_MODELS: Mapping[str, str] = {
    "qr_flag": "false",  # quotient-remainder tables
    "md_flag": "false",  # tables of mixed dimensions
    "weighted_pooling": "none",
    "quantize_emb_with_bit": "32",
    "quantize_mlp_with_bit": "32",
    "data_generation": "random, synthetic",  # of a data set, rows and dense features are the data's
}

_OF_EVERY_FAMILY = _names(
    "arch_sparse_feature_size arch_embedding_size arch_mlp_bot arch_mlp_top arch_interaction_op "
    "arch_interaction_itself num_indices_per_lookup num_indices_per_lookup_fixed"
)
# Keys of one family that files of the others may hold too: what these do not read, they ignore.
_OF_ONE_FAMILY = _names("model_type model_name arch_mlp_tasks num_multi_tasks hidden_size user_behavior_tables")


def model_from_dlrm_flags(flags: Sequence[str] | str, *, name: str) -> Model:
    """Return the model that a command line of facebookresearch/dlrm describes (``dlrm_s_pytorch.py --arch-...``).

    ``flags`` is the line or its words; words before the first option are passed over, and so are options of the run
    (``--mini-batch-size``). ``--arch-sparse-feature-size``, ``--arch-embedding-size``, ``--arch-mlp-bot`` and
    ``--arch-mlp-top`` must be there: what the program takes without them is a toy. ``--arch-mlp-bot`` begins with the
    dense features; ``--arch-mlp-top`` with the first layer's output, since its input follows from the interaction:
    ``dot`` (the default) of n vectors of width d gives ``n (n - 1) / 2 + d`` values, with ``--arch-interaction-itself``
    ``n (n + 1) / 2 + d``, and ``cat`` gives ``n d``. Unless ``--num-indices-per-lookup-fixed`` says so, the program
    draws every bag's lookups between 1 and ``--num-indices-per-lookup`` (10); here their mean is taken, ``(p + 1) //
    2``, and the label says so.

    Raises:
        ConfigError: every fault, with the option's name and the position in it.
    """
    source = "command line of DLRM"
    faults: list[Fault] = []
    fields = _Fields(_parsed(flags, faults), lambda key: f"--{key.replace('_', '-')}", faults)
    fields.refuse_unknown(_OF_EVERY_FAMILY)
    architecture = _architecture(fields)
    parts = _dlrm(fields, architecture)
    _raise(source, faults)
    return _built(source, name, "dlrm", parts, architecture)


def load_deeprecsys_model(path: str | Path) -> Model:
    """Return the model in a DeepRecSys configuration (GitHub harvard-acc/DeepRecSys, ``models/configs/*.json``).

    ``model_type`` is one of ``dlrm`` (the default), ``wnd``, ``mtwnd``, ``ncf``, ``din``, ``dien``; ``model_name``
    becomes the name (else the file's). Keys are DLRM's, with underscores, and are read as
    :func:`model_from_dlrm_flags` says, beside ``arch_mlp_tasks`` and ``num_multi_tasks`` (mtwnd), ``hidden_size``
    (dien, 64) and ``user_behavior_tables`` (din). That last number of tables is added to those of the file, as the
    program means to; its own order of reading lets it fall. Tables of din and dien are, in this order: user profile,
    behaviours, candidate ad, context; of ncf: two of the factorisation, two of the MLP.

    Raises:
        MissingFileError: the file cannot be opened.
        ConfigError: every fault of the file, with its path.
    """
    return _deeprecsys(str(path), read_json(path))


def _deeprecsys(source: str, data: Mapping[str, Any]) -> Model:
    faults: list[Fault] = []
    fields = _Fields(data, str, faults)
    fields.refuse_unknown(_OF_EVERY_FAMILY | _OF_ONE_FAMILY)
    family = fields.word("model_type", tuple(_FAMILIES), "dlrm")
    name = fields.text("model_name", Path(source).stem)
    architecture = _architecture(fields)
    parts = _FAMILIES[family](fields, architecture) if family in _FAMILIES else None
    _raise(source, faults)
    return _built(source, name, family, parts, architecture)


@dataclass(frozen=True, slots=True)
class _Architecture:
    """What the ``arch_*`` options say; None where they are at fault."""

    dim: int | None
    rows: tuple[int, ...] | None
    bottom: tuple[int, ...] | None
    top: tuple[int, ...] | None
    interaction: str
    itself: bool
    pooling: int
    label: str


@dataclass(frozen=True, slots=True)
class _Table:
    rows: int
    dim: int
    pooling: int
    dtype_bytes: int = 4
    role: str = ""


@dataclass(frozen=True, slots=True)
class _Parts:
    """A model without its name."""

    dense_input_dim: int
    tables: tuple[TableGroup, ...]
    stages: tuple[Stage, ...]


def _architecture(fields: _Fields) -> _Architecture:
    most = fields.whole("num_indices_per_lookup", _POOLING, 10) or 1
    fixed = fields.flag("num_indices_per_lookup_fixed")
    return _Architecture(
        dim=fields.whole("arch_sparse_feature_size", _DIM),
        rows=fields.wholes("arch_embedding_size", _ROWS),
        bottom=fields.wholes("arch_mlp_bot", _WIDTH),
        top=fields.wholes("arch_mlp_top", _WIDTH),
        interaction=fields.word("arch_interaction_op", ("dot", "cat"), "dot"),
        itself=fields.flag("arch_interaction_itself"),
        pooling=most if fixed else (most + 1) // 2,
        label="imported" if fixed or most == 1 else f"imported; mean of 1 to {most} lookups per table",
    )


def _dlrm(fields: _Fields, arch: _Architecture) -> _Parts | None:
    if arch.dim is not None and arch.bottom is not None:
        if len(arch.bottom) < 2:
            fields.fault("arch_mlp_bot", f"has 1 width, {arch.bottom[0]}; allowed are two or more: input and output")
        elif arch.bottom[-1] != arch.dim:
            allowed = f"{arch.dim}, the arch_sparse_feature_size that its output is joined with"
            fields.fault("arch_mlp_bot", f"is {arch.bottom[-1]}; allowed is {allowed}", len(arch.bottom) - 1)
    if fields.faults or arch.dim is None or arch.rows is None or arch.bottom is None or arch.top is None:
        return None
    tables = [_Table(rows, arch.dim, arch.pooling) for rows in arch.rows]
    interaction = _interaction(
        [t.dim for t in tables], arch.bottom[-1], cast(Interaction, arch.interaction), itself=arch.itself
    )
    stages = (_mlp("bottom_mlp", arch.bottom), interaction, _mlp("predict_mlp", (interaction.out_dim, *arch.top)))
    return _Parts(arch.bottom[0], _grouped(tables), stages)


def _wide_and_deep(fields: _Fields, arch: _Architecture) -> _Parts | None:
    """Dense features go as they are into the first layer, beside the pooled rows."""
    if arch.bottom is not None and len(arch.bottom) > 1:
        fields.fault("arch_mlp_bot", f"has {len(arch.bottom)} widths; allowed is one: the number of dense features")
    _only_concatenation(fields, arch)
    if fields.faults or arch.dim is None or arch.rows is None or arch.bottom is None or arch.top is None:
        return None
    width = arch.bottom[0] + arch.dim * len(arch.rows)
    tables = [_Table(rows, arch.dim, arch.pooling) for rows in arch.rows]
    stages = (_concat("interaction", width), _mlp("predict_mlp", (width, *arch.top)))
    return _Parts(arch.bottom[0], _grouped(tables), stages)


def _multi_task(fields: _Fields, arch: _Architecture) -> _Parts | None:
    tasks = fields.wholes("arch_mlp_tasks", _WIDTH)
    heads = fields.whole("num_multi_tasks", COUNT, 1)
    if tasks is not None and arch.top is not None and tasks[0] != arch.top[-1]:
        allowed = f"{arch.top[-1]}, the width that arch_mlp_top puts out"
        fields.fault("arch_mlp_tasks", f"is {tasks[0]}; allowed is {allowed}", 0)
    if tasks is not None and len(tasks) < 2:
        fields.fault("arch_mlp_tasks", f"has 1 width, {tasks[0]}; allowed are two or more: input and output")
    parts = _wide_and_deep(fields, arch)
    if parts is None or tasks is None or heads is None:
        return None
    joined, shared = parts.stages
    return replace(
        parts, stages=(joined, replace(shared, name="shared_mlp"), replace(_mlp("task_mlp", tasks), copies=heads))
    )


def _ncf(fields: _Fields, arch: _Architecture) -> _Parts | None:
    """Two tables are added, two go through the MLP; its last width is the layer after both are joined."""
    _only_concatenation(fields, arch)
    if arch.rows is not None and len(arch.rows) != 4:
        allowed = "4: two of the factorisation, two of the MLP"
        fields.fault("arch_embedding_size", f"has {len(arch.rows)} tables; allowed are {allowed}")
    if arch.pooling != 1:
        fields.fault("num_indices_per_lookup", f"comes to {arch.pooling}; allowed is 1 for model_type 'ncf'")
    if arch.top is not None and len(arch.top) < 2:
        allowed = "two or more: layers of the MLP, then the last layer"
        fields.fault("arch_mlp_top", f"has 1 width, {arch.top[0]}; allowed are {allowed}")
    if fields.faults or arch.dim is None or arch.rows is None or arch.top is None:
        return None
    roles = (*["matrix-factorisation branch"] * 2, *["mlp branch"] * 2)
    tables = [_Table(rows, arch.dim, 1, role=role) for rows, role in zip(arch.rows, roles, strict=True)]
    *hidden, last = arch.top
    joined = arch.dim + hidden[-1]
    stages = (
        _mlp("mlp_branch", (2 * arch.dim, *hidden)),
        Stage(name="combine", kind="sum", vectors=2, dim=arch.dim),
        _concat("join", joined),
        _mlp("final_fc", (joined, last)),
    )
    return _Parts(0, _grouped(tables), stages)


def _interest(fields: _Fields, arch: _Architecture, behaviour: str, added: int) -> list[_Table]:
    """Tables of din and dien by their roles, with ``added`` more of the first behaviour; empty for a fault."""
    _only_concatenation(fields, arch)
    if arch.rows is not None and len(arch.rows) < 4:
        allowed = "4 or more: user profile, behaviours, candidate ad, context"
        fields.fault("arch_embedding_size", f"has {len(arch.rows)} tables; allowed are {allowed}")
    if fields.faults or arch.dim is None or arch.rows is None:
        return []
    profile, *behaviours, candidate, context = arch.rows
    behaviours = [behaviours[0]] * added + behaviours
    by_role = {"user profile": [profile], behaviour: behaviours, "candidate ad": [candidate], "context": [context]}
    return [_Table(rows, arch.dim, arch.pooling, role=role) for role, group in by_role.items() for rows in group]


def _din(fields: _Fields, arch: _Architecture) -> _Parts | None:
    """An attention unit of its own for every behaviour, which reads it, the candidate and the sum of both."""
    added = fields.whole("user_behavior_tables", Bound(0, COUNT.high), 0)
    tables = _interest(fields, arch, "user behaviour", added or 0)
    if fields.faults or arch.dim is None or arch.bottom is None or arch.top is None:
        return None
    dim, units = arch.dim, len(tables) - 3
    stages = (
        replace(_concat("activation_input", 3 * dim), copies=units),
        replace(_mlp("activation_unit", (3 * dim, *arch.bottom, dim)), copies=units),
        Stage(name="behaviour_sum", kind="sum", vectors=units, dim=dim),
        _concat("interaction", 4 * dim),
        _mlp("predict_mlp", (4 * dim, *arch.top)),
    )
    return _Parts(0, _grouped(tables), stages)


def _dien(fields: _Fields, arch: _Architecture) -> _Parts | None:
    """Two recurrences over the behaviours with an attention between them; its state joins the other tables."""
    hidden = fields.whole("hidden_size", _WIDTH, 64)
    tables = _interest(fields, arch, "user behaviour sequence", 0)
    if fields.faults or arch.dim is None or arch.top is None or hidden is None:
        return None
    dim, steps = arch.dim, len(tables) - 3
    joined = hidden + 3 * dim
    stages = (
        Stage(name="interest_rnn_1", kind="rnn", steps=steps, input_dim=dim, hidden_dim=hidden),
        Stage(name="attention", kind="attention", steps=steps, dims=(hidden, hidden)),
        Stage(name="interest_rnn_2", kind="rnn", steps=steps, input_dim=hidden, hidden_dim=hidden),
        _concat("interaction", joined),
        _mlp("predict_mlp", (joined, *arch.top)),
    )
    return _Parts(0, _grouped(tables), stages)


_FAMILIES: Mapping[str, Callable[[_Fields, _Architecture], _Parts | None]] = {
    "dlrm": _dlrm,
    "wnd": _wide_and_deep,
    "mtwnd": _multi_task,
    "ncf": _ncf,
    "din": _din,
    "dien": _dien,
}


def _only_concatenation(fields: _Fields, arch: _Architecture) -> None:
    if arch.interaction == "dot":
        where = "is 'dot'" if "arch_interaction_op" in fields.data else "missing, which means 'dot'"
        fields.fault("arch_interaction_op", f"{where}; allowed is 'cat' for every model_type but 'dlrm'")


# --- TorchRec ---------------------------------------------------------------------------------------------------------

_TABLE_KEYS = frozenset({"num_embeddings", "embedding_dim", "pooling_factor", "data_type", "pooling", "feature_names"})
_WRAPPER_KEYS = frozenset({"tables", "name", "bottom_mlp", "top_mlp", "interaction_op", "interaction_itself"})


def load_torchrec_tables(
    path: str | Path,
    *,
    bottom_mlp: Sequence[int] | None = None,
    top_mlp: Sequence[int] | None = None,
    interaction_op: Interaction | None = None,
    interaction_itself: bool | None = None,
    name: str | None = None,
) -> Model:
    """Return a model over the tables in a JSON file ``{table: {num_embeddings, embedding_dim, pooling_factor}}``.

    A table may also say ``data_type`` (``FP32``, the default, ``FP16``, ``BF16``, ``INT8``, ``UINT8``), ``pooling``
    (``SUM`` only) and ``feature_names`` (one: tables that features share are not described here). The dense network is
    given here, or in the file, which then is ``{"tables": {...}, "bottom_mlp": [...], "top_mlp": [...],
    "interaction_op": ..., "name": ...}``; what is given here counts. Widths begin with an MLP's input:
    ``bottom_mlp`` with the dense features, ``top_mlp`` with the width of the interaction, which ``cat`` makes of the
    bottom's output and all pooled rows, and ``dot`` as :func:`model_from_dlrm_flags` says. ``name`` is the file's
    unless given. Without MLPs the model is its tables.

    Raises:
        MissingFileError: the file cannot be opened.
        ConfigError: every fault of the file and of the widths, with its path (``t_cat_0.num_embeddings``, or
            ``tables.t_cat_0.num_embeddings`` where the file says ``tables``).
    """
    given = {
        "bottom_mlp": None if bottom_mlp is None else list(bottom_mlp),
        "top_mlp": None if top_mlp is None else list(top_mlp),
        "interaction_op": interaction_op,
        "interaction_itself": interaction_itself,
        "name": name,
    }
    return _torchrec(str(path), read_json(path), {key: value for key, value in given.items() if value is not None})


def _torchrec(source: str, data: Mapping[str, Any], given: Mapping[str, Any]) -> Model:
    faults: list[Fault] = []
    wrapped = "tables" in data and not _is_table(data["tables"])
    network = {**(data if wrapped else {}), **given}
    tables = data["tables"] if wrapped else data
    if wrapped:
        _Fields(data, str, faults).refuse_unknown(_WRAPPER_KEYS, run=frozenset())
        if not isinstance(tables, Mapping):
            faults.append(Fault("tables", f"is {_shown(tables)}; allowed is an object of tables"))
            tables = {}
    if not tables and not faults:
        faults.append(Fault("tables" if wrapped else "", "holds no table; allowed is one or more"))
    found = [
        _table(("tables." if wrapped else "") + _path(name), name, entry, faults) for name, entry in tables.items()
    ]
    return _from_tables(source, found, network, faults, Path(source).stem)


def model_from_embedding_bag_configs(
    configs: Iterable[Any],
    *,
    pooling_factor: int | Mapping[str, int] = 1,
    bottom_mlp: Sequence[int] = (),
    top_mlp: Sequence[int] = (),
    interaction_op: Interaction = "cat",
    interaction_itself: bool = False,
    name: str = "torchrec",
) -> Model:
    """Return a model over live TorchRec configurations, without importing TorchRec.

    ``configs`` are objects with ``name``, ``num_embeddings`` and ``embedding_dim`` and, if they have them,
    ``data_type``, ``pooling`` and ``feature_names`` (``torchrec.EmbeddingBagConfig``). They do not say how many rows a
    lookup gathers: ``pooling_factor`` does, for all tables or by name (1 for those not named). The rest is as for
    :func:`load_torchrec_tables`.

    Raises:
        ConfigError: every fault, with its path (``configs[2].num_embeddings``).
    """
    source = "embedding bag configurations"
    faults: list[Fault] = []
    found = []
    if isinstance(configs, str | bytes | Mapping) or not isinstance(configs, Iterable):
        raise ConfigError(source, [Fault("configs", f"is {_shown(configs)}; allowed are objects with num_embeddings")])
    by_name = pooling_factor if isinstance(pooling_factor, Mapping) else None
    names: list[str] = []
    for index, config in enumerate(configs):
        label = str(getattr(config, "name", "") or f"table {index}")
        if label in names:
            faults.append(Fault(f"configs[{index}].name", f"is {_shown(label)}, the name of another table"))
        names.append(label)
        entry = {
            key: _plain(getattr(config, key)) for key in _TABLE_KEYS if getattr(config, key, None) not in (None, [], ())
        }
        entry.setdefault("pooling_factor", by_name.get(label, 1) if by_name is not None else pooling_factor)
        found.append(_table(f"configs[{index}]", label, entry, faults))
    for unknown in sorted(str(key) for key in (by_name or {}) if key not in names):
        faults.append(Fault(f"pooling_factor.{_path(unknown)}", f"is no table's name{nearest(unknown, names)}"))
    if not names:
        faults.append(Fault("configs", "holds no table; allowed is one or more"))
    network = {
        **({"bottom_mlp": list(bottom_mlp)} if bottom_mlp else {}),
        **({"top_mlp": list(top_mlp)} if top_mlp else {}),
        "interaction_op": interaction_op,
        "interaction_itself": interaction_itself,
    }
    return _from_tables(source, found, network, faults, name)


def _is_table(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "num_embeddings" in entry


def _plain(value: Any) -> Any:
    """An enumeration's value, so that ``DataType.FP16`` is read as ``"FP16"``."""
    return getattr(value, "value", value)


def _table(path: str, name: str, entry: Any, faults: list[Fault]) -> _Table | None:
    if not isinstance(entry, Mapping):
        faults.append(Fault(path, f"is {_shown(entry)}; allowed is an object with {', '.join(sorted(_TABLE_KEYS))}"))
        return None
    fields = _Fields(entry, lambda key: f"{path}.{key}", faults)
    fields.refuse_unknown(_TABLE_KEYS, run=frozenset())
    rows = fields.whole("num_embeddings", _ROWS)
    dim = fields.whole("embedding_dim", _DIM)
    pooling = fields.whole("pooling_factor", _POOLING)
    dtype = fields.word("data_type", tuple(DTYPE_BYTES), "FP32", any_case=True)
    fields.word("pooling", ("SUM",), "SUM", any_case=True)
    features = entry.get("feature_names", [name])
    if not isinstance(features, list | tuple) or len(features) != 1:
        fields.fault(
            "feature_names", f"is {_shown(features)}; allowed is a list of one: a table of its own per feature"
        )
    if rows is None or dim is None or pooling is None or dtype not in DTYPE_BYTES:
        return None
    return _Table(rows, dim, pooling, DTYPE_BYTES[dtype], name)


def _from_tables(
    source: str, found: Sequence[_Table | None], network: Mapping[str, Any], faults: list[Fault], name: str
) -> Model:
    fields = _Fields(network, str, faults)
    bottom = fields.wholes("bottom_mlp", _WIDTH, ()) or ()
    top = fields.wholes("top_mlp", _WIDTH, ()) or ()
    op = fields.word("interaction_op", ("dot", "cat"), "cat")
    itself = fields.flag("interaction_itself")
    name = fields.text("name", name)
    for key, widths in (("bottom_mlp", bottom), ("top_mlp", top)):
        if len(widths) == 1:
            fields.fault(key, f"has 1 width, {widths[0]}; allowed are two or more: input and output")
    tables = [table for table in found if table is not None]
    stages: list[Stage] = []
    if bottom or top:
        if op == "dot":
            _faults_of_dot(fields, tables, bottom)
        if not faults:
            joined = _interaction(
                [t.dim for t in tables], bottom[-1] if bottom else 0, cast(Interaction, op), itself=itself
            )
            if top and top[0] != joined.out_dim:
                allowed = f"{joined.out_dim}, the width that the interaction {op!r} puts out"
                fields.fault("top_mlp", f"is {top[0]}; allowed is {allowed}", 0)
            stages = [*([_mlp("bottom_mlp", bottom)] if bottom else []), joined]
            stages += [_mlp("predict_mlp", top)] if top else []
    _raise(source, faults)
    parts = _Parts(bottom[0] if bottom else 0, _grouped(tables), tuple(stages))
    return _built(source, name, "dlrm", parts, None)


def _faults_of_dot(fields: _Fields, tables: Sequence[_Table], bottom: Sequence[int]) -> None:
    if not bottom:
        fields.fault(
            "interaction_op", "is 'dot'; allowed with a bottom_mlp only, whose output is joined to the products"
        )
        return
    for table in tables:
        if table.dim != bottom[-1]:
            words = f"table {_shown(table.role)} has embedding_dim {table.dim}"
            fields.fault("interaction_op", f"is 'dot', but {words}; allowed is {bottom[-1]}, what bottom_mlp puts out")


# --- any of them ------------------------------------------------------------------------------------------------------


def load_any_model(path: str | Path) -> Model:
    """Read a model from a file: TOML of our own schema, or JSON of DeepRecSys or TorchRec, known by its keys.

    Raises:
        MissingFileError: the file cannot be opened.
        ConfigError: every fault of the file, with its path.
    """
    if Path(path).suffix.lower() != ".json":
        return load_model(path)
    data = read_json(path)
    if any(key.startswith(("arch_", "model_", "num_indices_")) for key in data):
        return _deeprecsys(str(path), data)
    if isinstance(data.get("tables"), Mapping) or any(
        isinstance(entry, Mapping) and _TABLE_KEYS & entry.keys() for entry in data.values()
    ):
        return _torchrec(str(path), data, {})
    allowed = "a DeepRecSys configuration (arch_mlp_top, ...) or TorchRec tables ({name: {num_embeddings, ...}})"
    raise ConfigError(str(path), [Fault("", f"has the keys {_shown(list(data)[:8])}; allowed is {allowed}")])


# --- parts ------------------------------------------------------------------------------------------------------------


def _mlp(name: str, dims: Sequence[int]) -> Stage:
    return Stage(name=name, kind="mlp", dims=tuple(dims))


def _concat(name: str, width: int) -> Stage:
    return Stage(name=name, kind="concat", out_dim=width)


def _interaction(dims: Sequence[int], dense: int, op: Interaction, *, itself: bool) -> Stage:
    """The stage that joins pooled rows of widths ``dims`` with a bottom MLP's output of width ``dense`` (0: none)."""
    if op == "cat":
        return _concat("interaction", dense + sum(dims))
    vectors = len(dims) + 1
    pairs = vectors * (vectors + 1 if itself else vectors - 1) // 2
    return Stage(name="interaction", kind="dot", vectors=vectors, dim=dense, out_dim=pairs + dense)


def _grouped(tables: Sequence[_Table]) -> tuple[TableGroup, ...]:
    """Join neighbours of one shape and role."""
    groups = ((table, len(tuple(same))) for table, same in groupby(tables))
    return tuple(
        TableGroup(count=n, rows=t.rows, dim=t.dim, pooling=t.pooling, dtype_bytes=t.dtype_bytes, role=t.role)
        for t, n in groups
    )


def _built(source: str, name: str, family: str, parts: _Parts | None, arch: _Architecture | None) -> Model:
    assert parts is not None, source  # every way to None has left a fault
    model = Model(
        name=name,
        family=family,
        label=arch.label if arch is not None else "imported",
        dense_input_dim=parts.dense_input_dim,
        tables=parts.tables,
        stages=parts.stages,
        latency_targets=(),
        sources=dict.fromkeys(("dense_input_dim", "tables", "stages"), f"user: {source}"),
    )
    try:
        validate(MODEL, model)  # ranges of what follows from the fields, such as the width of an interaction
    except ConfigError as error:
        raise ConfigError(source, error.faults) from None
    return model


# --- fields -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fields:
    """Values of a description by key; what is wrong with one goes into ``faults`` under ``path(key)``."""

    data: Mapping[str, Any]
    path: Callable[[str], str]
    faults: list[Fault]

    def fault(self, key: str, message: str, index: int | None = None) -> None:
        """Note a fault of a key, or of one of its values."""
        self.faults.append(Fault(self.path(key) + ("" if index is None else f"[{index}]"), message))

    def refuse_unknown(self, known: frozenset[str], run: frozenset[str] = _OF_THE_RUN) -> None:
        """Note keys that nobody knows, and those that ask for another kind of model. ``run``: keys passed over."""
        others = _OTHER_MODELS if run else {}
        for key, value in self.data.items():
            if key in others:
                allowed = others[key].split(", ")
                if str(value).lower() not in allowed:
                    self.fault(
                        key, f"is {_shown(value)}; allowed is {' or '.join(allowed)}: no such model is described"
                    )
            elif key not in known and key not in run:
                late = len(self.faults) >= MAX_FAULTS  # nobody will read it
                hint = "" if late else nearest(key[:100], known) or nearest(key[:100], run | others.keys())
                self.faults.append(
                    Fault(self.path(_path(key)), f"unknown{hint} (known: {', '.join(sorted(map(self.path, known)))})")
                )

    def whole(self, key: str, bound: Bound, default: int | None = None) -> int | None:
        """Return the whole number of a key; None for a fault."""
        if key not in self.data:
            if default is None:
                self.fault(key, "missing")
            return default
        return self._whole(key, self.data[key], bound, None)

    def wholes(self, key: str, bound: Bound, default: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        """Return one or more whole numbers, of a list or of text with dashes between; None for a fault."""
        if key not in self.data:
            if default is None:
                self.fault(key, "missing")
            return default
        value = self.data[key]
        parts = value.split("-") if isinstance(value, str) else value if isinstance(value, list) else [value]
        if not parts:
            self.fault(key, "is []; allowed is at least one whole number")
        found = [self._whole(key, part, bound, i if len(parts) > 1 else None) for i, part in enumerate(parts)]
        return tuple(v for v in found if v is not None) if found and None not in found else None

    def _whole(self, key: str, value: Any, bound: Bound, index: int | None) -> int | None:
        number: Any = value
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            number = int(value)
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if not isinstance(number, int) or isinstance(number, bool):
            words = str(bound).removeprefix("finite ")
            self.fault(key, f"is {_shown(value)}; allowed is a whole number {words}", index)
            return None
        if not bound.holds(number):
            self.fault(key, f"is {_shown(value)}; allowed is {bound}", index)
            return None
        return number

    def flag(self, key: str) -> bool:
        """Return a truth value; False where it is missing or at fault."""
        value = self.data.get(key, False)
        word = str(value).lower() if isinstance(value, str | bool | int) else ""
        if word not in (*_TRUE, *_FALSE):
            self.fault(key, f"is {_shown(value)}; allowed is true or false")
        return word in _TRUE

    def word(self, key: str, allowed: Sequence[str], default: str, *, any_case: bool = False) -> str:
        """Return one of some words; empty for a fault."""
        value = self.data.get(key, default)
        word = value.upper() if any_case and isinstance(value, str) else value
        if isinstance(word, str) and word in allowed:
            return word
        hint = nearest(word, allowed) if isinstance(word, str) else ""
        self.fault(key, f"is {_shown(value)}; allowed is one of {', '.join(allowed)}{hint}")
        return ""

    def text(self, key: str, default: str) -> str:
        """Return a text; the default where it is missing, empty or at fault."""
        value = self.data.get(key, default)
        if not isinstance(value, str):
            self.fault(key, f"is {_shown(value)}; allowed is text")
            return default
        return value or default


def _parsed(flags: Sequence[str] | str, faults: list[Fault]) -> dict[str, Any]:
    """Options of a command line, by name with underscores; True for those without a value."""
    try:
        words = shlex.split(re.sub(r"\\\r?\n", "", flags)) if isinstance(flags, str) else list(flags)
    except ValueError as error:
        faults.append(Fault("", f"is no command line: {error}"))
        return {}
    if not all(isinstance(word, str) for word in words):
        raise InputError(f"flags is {_shown(flags)}; allowed is text or a sequence of words")
    found: dict[str, Any] = {}
    last: str | None = None
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            key = name.replace("-", "_")
            if key in found:
                faults.append(Fault(f"--{_path(name)}", "is given more than once"))
            found[key] = value if equals else True
            last = None if equals else key
        elif last is not None:
            found[last], last = word, None
        elif found:
            faults.append(Fault("", f"{_shown(word)} belongs to no option"))
    return found


def _raise(source: str, faults: Sequence[Fault]) -> None:
    if len(faults) > MAX_FAULTS:
        faults = [*faults[:MAX_FAULTS], Fault("", f"and {len(faults) - MAX_FAULTS} more faults")]
    if faults:
        raise ConfigError(source, faults)


def _path(key: str) -> str:
    """A key as part of a path: one line, at most 60 characters, printable."""
    text = key if key.isprintable() else repr(key)[1:-1]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
