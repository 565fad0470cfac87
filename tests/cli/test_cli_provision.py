"""``provision``: what it answers, what it refuses, and that a refusal writes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hercules_fast.cli import main
from hercules_fast.errors import InterruptedRun
from hercules_fast.provisioning import Plan, solving
from tests import small_plans

STOCK = ",".join(f"{name}={count}" for name, count in small_plans.STOCK.items())
HEADER = "timestamp,rank,=feed\n"


def csv_of(scale: float = 1.0) -> str:
    load = small_plans.load(scale)
    rows = [f"{t}Z,{','.join(map(repr, q.tolist()))}" for t, q in zip(load.times, load.qps, strict=True)]
    return HEADER + "\n".join(rows) + "\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a table and a load."""
    small_plans.table().save(tmp_path / "table.json")
    (tmp_path / "load.csv").write_text(csv_of())
    return tmp_path


def provision(files: Path, *more: str, load: str = "load.csv", stock: str = STOCK) -> int:
    return main(["provision", str(files / "table.json"), "--load", str(files / load), "--stock", stock, *more])


def test_text_and_json(files, capfd) -> None:
    """By the files themselves, so that what a solver prints past Python shows."""
    assert provision(files) == 0
    out, err = capfd.readouterr()
    assert out.startswith("Plan for load load\n")
    assert err == ""
    assert provision(files, "--json", "--headroom", "0.1") == 0
    document = json.loads(capfd.readouterr().out)
    plan = Plan.from_dict(document)
    assert plan.headroom.tolist() == [0.1, 0.1]
    assert plan.is_covered
    assert plan.servers_on.tolist() == small_plans.plan().servers_on.tolist()


def test_the_plan_is_saved(files, capsys) -> None:
    assert provision(files, "--out", str(files / "plan.json"), "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert Plan.load(files / "plan.json").is_covered
    assert provision(files, "--out", str(files / "plan.csv")) == 0
    assert (files / "plan.csv").read_text().startswith("timestamp,server,workload")
    assert str(files / "plan.csv") in capsys.readouterr().err


def test_load_beyond_the_stock_is_1_and_says_who_is_short(files, capsys) -> None:
    (files / "much.csv").write_text(csv_of(3.0))
    assert provision(files, load="much.csv") == 1
    out, _ = capsys.readouterr()
    assert "LOAD THAT IS NOT SERVED" in out
    assert "short in" in out
    assert "the stock would cover" in " ".join(out.split())


def test_stock_from_a_fleet(files, capsys) -> None:
    """The fleet's servers are not in this table: refused by name."""
    argv = ["provision", str(files / "table.json"), "--load", str(files / "load.csv"), "--fleet", "zoo10"]
    assert main(argv) == 2
    assert "'T1'" in capsys.readouterr().err


def test_zero_load_is_fine(files, capsys) -> None:
    (files / "zero.csv").write_text(csv_of(0.0))
    assert provision(files, load="zero.csv") == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEADER + "2026-01-05T00:00Z,1,-2\n2026-01-05T01:00Z,1,2\n", "-2"),
        (HEADER + "2026-01-05T00:00Z,nan,2\n2026-01-05T01:00Z,1,2\n", "nan"),
        (HEADER + "2026-01-05T00:00Z,1,2\n2026-01-05T01:00Z,inf,2\n", "inf"),
        (HEADER + "2026-01-05T00:00Z,1,2\n2026-01-05T00:00Z,1,2\n", "line 3"),
        (HEADER + "2026-01-05T01:00Z,1,2\n2026-01-05T00:00Z,1,2\n", "line 3"),
        (HEADER + "".join(f"2026-01-{d:02}T00:00Z,1,2\n" for d in (1, 2, 3, 9)), "5 steps of 86400 s are missing"),
        ("timestamp,rank,=feed,rnak\n2026-01-05T00:00Z,1,2,3\n2026-01-05T01:00Z,1,2,3\n", "rnak"),
        ("timestamp,rank\n2026-01-05T00:00Z,1\n2026-01-05T01:00Z,1\n", "=feed"),
        ("", "empty"),
        (HEADER, "no rows"),
    ],
    ids=["negative", "nan", "inf", "duplicate", "unordered", "gap", "unknown", "missing", "empty", "header-only"],
)
def test_bad_loads_are_refused_and_nothing_is_written(files, text, says, capsys) -> None:
    (files / "bad.csv").write_text(text)
    before = sorted(p.name for p in files.iterdir())
    assert provision(files, "--out", str(files / "plan.json"), load="bad.csv") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "bad.csv" in err
    assert sorted(p.name for p in files.iterdir()) == before


def test_all_faults_of_a_load_come_at_once(files, capsys) -> None:
    (files / "bad.csv").write_text(HEADER + "2026-01-05T00:00Z,-1,nan\n2026-01-05T01:00Z,x,2\n")
    assert provision(files, load="bad.csv") == 2
    err = capsys.readouterr().err
    assert "line 2" in err
    assert "line 3" in err


@pytest.mark.parametrize(
    ("stock", "says"),
    [
        ("old=1,nwe=2", "did you mean 'new'?"),
        ("old", "NAME=N"),
        ("old=-1", "NAME=N"),
        ("old=1.5,new=x", "'new=x'"),
        ("old=1,old=2", "old is given twice"),
        ("old=nan", "NAME=N"),
    ],
)
def test_bad_stocks_are_refused(files, stock, says, capsys) -> None:
    assert provision(files, stock=stock) == 2
    assert says in capsys.readouterr().err


def test_bad_tables_are_refused(files, capsys) -> None:
    table = json.loads((files / "table.json").read_text())
    table["rows"][0]["qps"] = -5.0
    table["rows"][1]["power_w"] = "much"
    (files / "table.json").write_text(json.dumps(table))
    assert provision(files) == 2
    err = capsys.readouterr().err
    assert "rows[0].qps" in err
    assert "rows[1].power_w" in err
    (files / "table.json").write_text("")
    assert provision(files) == 2
    assert "is not JSON" in capsys.readouterr().err
    (files / "table.json").unlink()
    assert provision(files) == 2
    assert "no such file" in capsys.readouterr().err


def test_places_that_cannot_be_written_are_refused_before_the_work(files, monkeypatch, capsys) -> None:
    monkeypatch.setattr("hercules_fast.provisioning.provision", lambda *_, **__: pytest.fail("work was started"))
    for place in ("load.csv/plan.json", "absent/plan.json", ".", "plan.txt"):
        assert provision(files, "--out", str(files / place)) == 2
        err = capsys.readouterr().err
        assert "--out" in err or "cannot write" in err
    assert sorted(p.name for p in files.iterdir()) == ["load.csv", "table.json"]


def test_out_never_replaces_an_input_and_other_files_only_when_told(files, capsys) -> None:
    (files / "old.json").write_text("mine")
    (files / "alias.json").symlink_to("table.json")
    (files / "load-alias.csv").symlink_to("load.csv")
    kept = {p.name: p.read_bytes() for p in files.iterdir()}
    assert provision(files, "--out", str(files / "old.json")) == 2
    assert "old.json: it exists; give another name, or --overwrite" in capsys.readouterr().err
    for name in ("table.json", "alias.json", "load.csv", "load-alias.csv"):
        assert provision(files, "--out", str(files / name), "--overwrite") == 2
        assert f"{name}: it is an input of this run" in capsys.readouterr().err
    assert provision(files, "--out", str(files / "load.csv"), "--overwrite", load="load-alias.csv") == 2
    assert {p.name: p.read_bytes() for p in files.iterdir()} == kept
    assert provision(files, "--out", str(files / "old.json"), "--overwrite") == 0
    assert Plan.load(files / "old.json").is_covered


@pytest.mark.parametrize("text", ["-0.1", "1000.5", "nan", "inf", "much"])
def test_headroom_has_one_range(files, text, capsys) -> None:
    assert provision(files, "--headroom", text) == 2
    assert f"is {text!r}; allowed is a number from 0 to 1000" in capsys.readouterr().err


# -- what operators decide -------------------------------------------------------------------------------------------

PRICES = """
schema = "hercules_fast.prices/1"
name = "two sites"
currency = "EUR"
[sites]
old = "north"
new = "south"
gpu = "south"
[[energy]]
site = "north"
price_per_kwh = [0.05]
carbon_g_per_kwh = [30.0]
[[energy]]
site = "south"
price_per_kwh = [0.3]
carbon_g_per_kwh = [300.0]
"""
MAINTENANCE = """
schema = "hercules_fast.maintenance/1"
name = "gpu firmware"
[[windows]]
server = "gpu"
machines = 3
start = "2026-01-05T10:00"
end = "2026-01-05T14:00"
"""


def test_wishes_reach_the_plan(files, capsys) -> None:
    (files / "prices.toml").write_text(PRICES)
    (files / "out.toml").write_text(MAINTENANCE)
    more = [
        "--headroom",
        "rank=0.2,=feed=0.1",
        "--estimate",
        "lower",
        "--drain",
        "old:=feed",
        "--minimum",
        "new:=feed=2",
    ]
    more += ["--maintenance", str(files / "out.toml"), "--prices", str(files / "prices.toml"), "--json"]
    assert provision(files, *more) == 0
    plan = Plan.from_dict(json.loads(capsys.readouterr().out))
    assert plan.headroom.tolist() == [0.2, 0.1]
    assert plan.estimate == "lower"
    assert plan.drained == ("old does not run =feed",)
    assert not plan.servers_on[:, 0, 1].any()
    assert (plan.servers_on[:, 1, 1] >= 2).all()
    assert plan.stock[:, 2].tolist() == [0 if 10 <= h < 14 else 3 for h in range(48)]
    assert plan.costs.currency == "EUR"
    document = plan.to_dict()
    assert document["figures"]["carbon_kg"] is not None
    assert provision(files, *more[:-1]) == 0
    out = capsys.readouterr().out
    assert "headroom 10% to 20% by workload" in out
    assert "Not to be used" in out
    assert "EUR, " in out


RULES = """
schema = "hercules_fast.constraints/1"
name = "halls"

[[power_caps]]
name = "row 4"
servers = ["new"]
limit_w = [LIMIT]

[failure_domains]
domain_of = { old = "a", new = "b", gpu = "b" }
"""


def test_constraints_from_a_file(files, capsys) -> None:
    (files / "rules.toml").write_text(RULES.replace("LIMIT", "1000.0"))
    rules = ("--constraints", str(files / "rules.toml"))
    assert provision(files, *rules, "--json", "--no-baselines") == 1, "the peak is exposed"
    plan = Plan.from_dict(json.loads(capsys.readouterr().out))
    assert plan.constrained is not None
    assert plan.constrained.cap_names == ("row 4",)
    assert plan.covered.all()
    assert plan.exposed_qps.any()
    (files / "little.csv").write_text(csv_of(0.3))
    assert provision(files, *rules, load="little.csv") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Constraints" in out
    assert "its failure rule (k = 1) binds in 48 of 48 intervals" in out
    assert "the baselines know no constraints" in out
    assert provision(files, *rules, "--no-baselines") == 1
    assert "LOAD THAT A FAILURE WOULD LEAVE UNSERVED" in capsys.readouterr().out


def test_constraints_that_are_refused(files, capsys) -> None:
    (files / "rules.toml").write_text(RULES.replace("LIMIT", "-1.0"))
    rules = ("--constraints", str(files / "rules.toml"))
    assert provision(files, *rules, "--out", str(files / "plan.json")) == 2
    assert "power_caps[0].limit_w[0]: -1.0 is outside what is allowed" in capsys.readouterr().err
    assert not (files / "plan.json").exists()
    (files / "rules.toml").write_text(RULES.replace("LIMIT", "1.0").replace('"new"', '"newt"'))
    assert provision(files, *rules) == 2
    assert "unknown server 'newt'" in capsys.readouterr().err
    assert provision(files, *rules, "--what-if", "growth") == 2
    assert "--constraints: the inverse questions of --what-if know no constraints" in capsys.readouterr().err
    assert provision(files, "--constraints", str(files / "none.toml")) == 2
    assert provision(files, *rules, "--out", str(files / "rules.toml"), "--overwrite") == 2


def test_without_baselines(files, capsys) -> None:
    assert provision(files, "--no-baselines", "--json") == 0
    plan = Plan.from_dict(json.loads(capsys.readouterr().out))
    assert plan.baselines == {}
    assert plan.greedy_order_spread is plan.oblivious_spread is None
    assert provision(files, "--no-baselines") == 0
    assert "against" not in capsys.readouterr().out


def test_ctrl_c_saves_the_intervals_done(files, monkeypatch, capsys) -> None:
    """The solver is stopped after ten intervals."""
    original = solving.solve_program

    def stopped(problem, **options):
        part, _ = original(problem.first(10), **options)
        raise InterruptedRun("stopped after 10 of 48 intervals", part)

    monkeypatch.setattr(solving, "solve_program", stopped)
    assert provision(files, "--out", str(files / "plan.json"), "--minimum", "old:rank=1") == 130
    assert not (files / "plan.json").exists()
    plan = Plan.load(files / "plan.partial.json")
    assert len(plan.times) == 10
    assert plan.is_covered
    assert any("stopped after 10 of 48 intervals" in note for note in plan.notes)
    monkeypatch.setattr(solving, "solve_program", original)
    assert provision(files, "--out", str(files / "plan.json"), "--minimum", "old:rank=1", "--quiet") == 0
    whole = Plan.load(files / "plan.json")
    assert plan.servers_on.tolist() == whole.servers_on[:10].tolist()


def test_headroom_of_the_day_before(files, capsys) -> None:
    assert provision(files, "--headroom", "day-over-day", "--json") == 0
    plan = Plan.from_dict(json.loads(capsys.readouterr().out))
    assert plan.headroom.tolist() == [0.0, 0.0], "the second day is the first again"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--headroom", "rank=x"], "is 'x'; allowed is a number from 0 to 1000"),
        (["--headroom", "rank=0.1,rank=0.2"], "each workload once"),
        (["--headroom", "rnak=0.1"], "did you mean 'rank'"),
        (["--drain", "odl"], "server to drain 'odl'; did you mean 'old'"),
        (["--drain", "old:rnak"], "did you mean 'rank'"),
        (["--minimum", "old=3"], "--minimum: 'old'; allowed is SERVER:WORKLOAD=N"),
        (["--minimum", "old:rank=-1"], "--minimum: 'old:rank=-1': allowed is NAME=N"),
        (["--minimum", "old:rank=" + "9" * 5000], "allowed is NAME=N with a whole N from 0 to 2**31 - 1"),
        (["--minimum", "old:rank=99"], "minimum: 99 'old' in all; allowed: up to its stock, 40"),
        (["--minimum", "gpu:=feed=1"], "this server cannot run it"),
        (["--estimate", "best"], "invalid choice: 'best'"),
        (["--what-if", "luck"], "invalid choice: 'luck'"),
        (["--grow", "rank"], "--grow: names what grows in --what-if growth"),
        (["--machine-price", "old=1"], "--machine-price: is for --what-if purchase"),
        (["--what-if", "purchase", "--machine-price", "old=x"], "'old=x': allowed is NAME=X with a number X"),
        (["--what-if", "purchase", "--machine-price", "odl=1"], "did you mean 'old'"),
        (["--what-if", "purchase", "--machine-price", "old=nan"], "price: 'old' is nan; allowed"),
        (["--what-if", "growth", "--grow", "rnak"], "did you mean 'rank'"),
        (["--at", "2026-01-05"], "--at: names the interval of --out REPLICAS.yaml"),
        (["--prices", "absent.toml"], "absent.toml"),
        (["--maintenance", "absent.toml"], "absent.toml"),
    ],
)
def test_wishes_that_cannot_be(files, more, says, capsys) -> None:
    assert provision(files, *more) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_bad_files_of_operators_are_refused_with_all_faults(files, capsys) -> None:
    (files / "prices.toml").write_text(PRICES.replace("[0.05]", "[]").replace("currency", "curency"))
    assert provision(files, "--prices", str(files / "prices.toml")) == 2
    err = capsys.readouterr().err
    assert "curency: unknown key; did you mean 'currency'?" in err
    (files / "out.toml").write_text(MAINTENANCE.replace("= 3", "= -3").replace("T14:00", "T09:00"))
    assert provision(files, "--maintenance", str(files / "out.toml")) == 2
    err = capsys.readouterr().err
    assert "windows[0].machines" in err
    assert "windows[0].end" in err
    assert main(["check", str(files / "out.toml")]) == 2
    (files / "out.toml").write_text(MAINTENANCE)
    assert main(["check", str(files / "out.toml")]) == 0


# -- inverse questions -----------------------------------------------------------------------------------------------


def test_what_if_growth(files, capsys) -> None:
    assert provision(files, "--what-if", "growth", "--json", "--headroom", "0") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "hercules_fast.what_if/1"
    assert document["question"] == "growth"
    assert document["at"] == "2026-01-05T12:00:00Z"
    factor = document["factor"]
    assert factor > 1
    (files / "much.csv").write_text(csv_of(factor * 1.001))
    (files / "just.csv").write_text(csv_of(factor * 0.95))
    assert provision(files, "--headroom", "0", load="much.csv") == 1
    assert provision(files, "--headroom", "0", load="just.csv") == 0
    capsys.readouterr()
    assert provision(files, "--what-if", "growth", "--grow", "rank", "--headroom", "0") == 0
    assert capsys.readouterr().out.startswith("the load of rank may be ")


def test_what_if_purchase(files, capsys) -> None:
    (files / "much.csv").write_text(csv_of(4.0))
    more = ["--what-if", "purchase", "--machine-price", "old=10,new=21", "--headroom", "0.1", "--json"]
    assert provision(files, *more, load="much.csv") == 0, "the question is answered, though the plan is not covered"
    document = json.loads(capsys.readouterr().out)
    assert document["bound"] <= document["cost"]
    assert set(document["machines"]) <= {"old", "new"}
    stock = {name: count + document["machines"].get(name, 0) for name, count in small_plans.STOCK.items()}
    bigger = ",".join(f"{name}={count}" for name, count in stock.items())
    assert provision(files, "--headroom", "0.1", load="much.csv", stock=bigger) == 0
    capsys.readouterr()
    assert provision(files, "--what-if", "purchase") == 0
    assert capsys.readouterr().out == "nothing to buy: the stock covers every interval\n"


def test_what_if_one_more(files, capsys) -> None:
    assert provision(files, "--what-if", "one-more", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["unit"] == "W"
    gpu = document["servers"]["gpu"]
    assert 0 < gpu["saved_at_peak"] <= gpu["price_at_peak"] * (1 + 1e-9)
    assert gpu["saved_sum"] >= gpu["saved_at_peak"]
    assert document["servers"]["old"]["saved_sum"] == 0.0
    assert provision(files, "--what-if", "one-more") == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("gpu: saves ")


# -- files for a cluster manager -------------------------------------------------------------------------------------


def strict_yaml(text: str) -> list[dict]:
    """Block mappings of two-space indents with plain keys; values are JSON texts, whole numbers or plain words."""
    documents = []
    for part in text.split("---\n")[1:]:
        root: dict = {}
        stack = [root]
        for line in part.splitlines():
            depth, rest = divmod(len(line) - len(line.lstrip(" ")), 2)
            assert rest == 0
            assert depth < len(stack), "deeper than its parent opens"
            del stack[depth + 1 :]
            key, colon, value = line.strip().partition(":")
            assert colon
            assert re.fullmatch(r"[A-Za-z0-9/_.-]+", key)
            assert key not in stack[-1]
            if not value:
                stack[-1][key] = {}
                stack.append(stack[-1][key])
            elif value.startswith(' "'):
                stack[-1][key] = json.loads(value[1:])
            elif re.fullmatch(r" \d+", value):
                stack[-1][key] = int(value)
            else:
                assert re.fullmatch(r" [A-Za-z][A-Za-z0-9/]*", value)
                stack[-1][key] = value[1:]
        documents.append(root)
    return documents


def test_replicas_for_kubernetes(files, capsys) -> None:
    target = files / "replicas.yaml"
    assert provision(files, "--out", str(target), "--at", "2026-01-05T04:30+01:00", "--json") == 0
    plan = Plan.from_dict(json.loads(capsys.readouterr().out))
    documents = strict_yaml(target.read_text())
    pairs = {
        (
            d["metadata"]["annotations"]["hercules-fast/server"],
            d["metadata"]["annotations"]["hercules-fast/workload"],
        ): d
        for d in documents
    }
    used = {(plan.servers[h], plan.workloads[w]) for h, w in np.argwhere(plan.servers_on.any(axis=0)).tolist()}
    assert set(pairs) == used
    for (server, workload), document in pairs.items():
        h, w = plan.servers.index(server), plan.workloads.index(workload)
        assert document["apiVersion"] == "apps/v1"
        assert document["kind"] == "Deployment"
        assert document["spec"]["replicas"] == plan.servers_on[3, h, w]
        assert document["spec"]["template"]["spec"]["nodeSelector"] == {"hercules-fast/server-type": server}
        assert document["metadata"]["name"] == f"{workload.strip('=')}-{server}"
        assert document["metadata"]["annotations"]["hercules-fast/interval"] == "2026-01-05T03:00:00Z"
    assert any(d["spec"]["replicas"] == 0 for d in documents), "what runs at other times is switched off"
    assert provision(files, "--out", str(target), "--overwrite", "--json") == 0
    at_peak = strict_yaml(target.read_text())
    assert {d["metadata"]["annotations"]["hercules-fast/interval"] for d in at_peak} == {f"{plan.times[plan.peak]}Z"}
    capsys.readouterr()
    for time in ("2026-01-04T23:59", "2026-01-07T00:00", "noon", "now"):
        assert provision(files, "--out", str(target), "--overwrite", "--at", time) == 2
        assert "at: is" in capsys.readouterr().err


def test_names_that_kubernetes_cannot_tell_apart(files, capsys) -> None:
    table = json.loads((files / "table.json").read_text())
    text = json.dumps(table).replace('"old"', '"NEW"')
    (files / "table.json").write_text(text)
    stock = STOCK.replace("old", "NEW")
    assert provision(files, "--out", str(files / "r.yaml"), stock=stock) == 2
    assert "are both called" in capsys.readouterr().err


def test_the_plan_is_drawn(files, capsys) -> None:
    assert provision(files, "--plot", str(files / "week.svg"), "--quiet") == 0
    assert (files / "week.svg").read_text().startswith("<?xml")
    assert capsys.readouterr().err == ""
    assert provision(files, "--plot", str(files / "week.txt")) == 2
