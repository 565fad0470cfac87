//! The basis of the linear program as a forest, and what a simplex method does with it in time of a path or a subtree.
//!
//! Nodes are the rows of the program: types first, then workloads. A basis has one variable per row, and every
//! variable touches at most two rows: a pair (type, workload) is an arc, free stock, surplus and shed load are loops.
//! So a basis is a set of trees of arcs, each with exactly one thing more: a loop at its root, or an arc that closes a
//! cycle through its root. Each node owns one basic variable: the arc to its parent, or, at a root, that extra one.
//!
//! The equations at a node: machines of a type, `sum x + free = stock`; load of a workload,
//! `sum qps x + shed - surplus = demand`. Prices are the dual values: `cost + price[type] - qps price[workload]` is the
//! reduced cost of a pair, and 0 for each pair of the basis.

/// No node.
pub const NONE: u32 = u32::MAX;

/// A sum of two numbers that is smaller than this part of them is their rounding.
const CANCELLED: f64 = 1e-13;

/// What a node owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pair: the arc to the parent; at a root, the arc to [`Node::mate`] in its own tree.
    Pair,
    /// Machines left off (a type), or capacity above demand (a workload).
    Slack,
    /// Load that is not served (a workload).
    Shed,
}

/// A variable of the program, by the rows it touches.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    pub kind: Kind,
    /// Row of the fleet, for a pair.
    pub row: u32,
    /// Node of the type; for a loop, its node.
    pub a: u32,
    /// Node of the workload; for a loop, [`NONE`].
    pub b: u32,
    pub qps: f64,
    pub cost: f64,
}

impl Variable {
    pub fn is(&self, other: &Self) -> bool {
        (self.kind, self.row, self.a, self.b) == (other.kind, other.row, other.a, other.b)
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    child: u32,
    next: u32,
    prev: u32,
    /// Other end of a root's pair.
    mate: u32,
    /// Row of the fleet, for a pair.
    row: u32,
    kind: Kind,
    qps: f64,
    cost: f64,
}

#[derive(Clone, Debug)]
pub struct Forest {
    types: u32,
    nodes: Vec<Node>,
    /// Value of the variable that each node owns: machines, or q/s for a loop of a workload.
    flow: Vec<f64>,
    price: Vec<f64>,
    /// Nodes that the last [`Forest::direction`] went through, and how much their variables move per unit.
    pub moved: Vec<(u32, f64)>,
    mark: Vec<u32>,
    stamp: u32,
    change: Vec<f64>,
    /// Nodes in preorder: after [`Forest::detach`], the free tree.
    pub tree: Vec<u32>,
    stack: Vec<u32>,
}

impl Forest {
    /// Every type with its stock free, every workload with its demand shed; `penalty` by workload.
    pub fn new(types: usize, penalty: &[f64]) -> Self {
        let loop_at = |kind, cost| Node {
            parent: NONE,
            child: NONE,
            next: NONE,
            prev: NONE,
            mate: NONE,
            row: NONE,
            kind,
            qps: 0.0,
            cost,
        };
        let mut nodes = vec![loop_at(Kind::Slack, 0.0); types];
        nodes.extend(penalty.iter().map(|&penalty| loop_at(Kind::Shed, penalty)));
        let n = nodes.len();
        Self {
            types: types as u32,
            flow: vec![0.0; n],
            price: nodes.iter().map(|node| node.cost).collect(),
            nodes,
            moved: Vec::new(),
            mark: vec![0; n],
            stamp: 0,
            change: vec![0.0; n],
            tree: Vec::with_capacity(n),
            stack: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn types(&self) -> usize {
        self.types as usize
    }

    pub fn price(&self, i: u32) -> f64 {
        self.price[i as usize]
    }

    pub fn flow(&self, i: u32) -> f64 {
        self.flow[i as usize]
    }

    /// The value of every node's variable.
    pub fn flows(&self) -> &[f64] {
        &self.flow
    }

    pub fn kind(&self, i: u32) -> Kind {
        self.nodes[i as usize].kind
    }

    fn is_type(&self, i: u32) -> bool {
        i < self.types
    }

    /// The variable that node `i` owns.
    pub fn variable(&self, i: u32) -> Variable {
        let node = &self.nodes[i as usize];
        let (a, b) = if node.kind == Kind::Pair {
            let other = if node.parent == NONE { node.mate } else { node.parent };
            if self.is_type(i) { (i, other) } else { (other, i) }
        } else {
            (i, NONE)
        };
        Variable { kind: node.kind, row: node.row, a, b, qps: node.qps, cost: node.cost }
    }

    /// Coefficient of the variable that `i` owns in the row of `i`, and of a pair in the row of its other end.
    fn coefficients(&self, i: u32) -> (f64, f64) {
        let node = &self.nodes[i as usize];
        match (node.kind, self.is_type(i)) {
            (Kind::Pair, true) => (1.0, node.qps),
            (Kind::Pair, false) => (node.qps, 1.0),
            (Kind::Slack, false) => (-1.0, 0.0),
            (Kind::Slack, true) | (Kind::Shed, _) => (1.0, 0.0),
        }
    }

    // -- flows ------------------------------------------------------------------------------------------------------

    /// How the basic variables must move for their rows to gain `at` (one or two nodes with amounts): into `moved`.
    fn direction(&mut self, at: [(u32, f64); 2]) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.mark.fill(0);
            self.stamp = 1;
        }
        self.moved.clear();
        let [(first, amount), (second, other)] = at;
        let mut i = first;
        while i != NONE {
            self.touch(i);
            i = self.nodes[i as usize].parent;
        }
        let own_path = self.moved.len();
        // The second path ends at its root, or where it meets the first.
        let (mut meeting, mut brought) = (NONE, 0.0);
        let (mut i, mut amount_here) = (second, other);
        while i != NONE {
            if self.mark[i as usize] == self.stamp {
                (meeting, brought) = (i, amount_here);
                break;
            }
            self.touch(i);
            (i, amount_here) = self.supply(i, amount_here);
        }
        let mut amount_here = amount;
        for place in 0..own_path {
            let i = self.moved[place].0;
            if i == meeting {
                amount_here = sum(amount_here, brought);
                if amount_here == 0.0 {
                    break;
                }
            }
            (_, amount_here) = self.supply(i, amount_here);
        }
        for (i, change) in &mut self.moved {
            *change = self.change[*i as usize];
        }
    }

    fn touch(&mut self, i: u32) {
        self.mark[i as usize] = self.stamp;
        self.change[i as usize] = 0.0;
        self.moved.push((i, 0.0));
    }

    /// Let node `i` supply `amount` to its row; its parent, and what that must supply in turn.
    fn supply(&mut self, i: u32, amount: f64) -> (u32, f64) {
        let (own, other) = self.coefficients(i);
        let parent = self.nodes[i as usize].parent;
        if parent == NONE && self.nodes[i as usize].kind == Kind::Pair {
            self.supply_by_cycle(i, amount, own, other);
            return (NONE, 0.0);
        }
        let change = amount / own;
        self.change[i as usize] += change;
        (parent, -other * change)
    }

    /// The arc that closes the cycle of root `i` supplies `amount`, net of what then comes back around the cycle.
    fn supply_by_cycle(&mut self, i: u32, amount: f64, own: f64, other: f64) {
        let mate = self.nodes[i as usize].mate;
        let mut back = -other;
        let mut j = mate;
        while j != i {
            let (here, above) = self.coefficients(j);
            back *= -above / here;
            j = self.nodes[j as usize].parent;
        }
        let change = amount / (own - back);
        self.change[i as usize] += change;
        let mut amount = -other * change;
        let mut j = mate;
        while j != i {
            if self.mark[j as usize] != self.stamp {
                self.touch(j);
            }
            let (here, above) = self.coefficients(j);
            let change = amount / here;
            self.change[j as usize] = sum(self.change[j as usize], change);
            amount = -above * change;
            j = self.nodes[j as usize].parent;
        }
    }

    /// What one unit of `variable` displaces: basic variable `i` falls by `change` for each `(i, change)` of `moved`.
    pub fn displace(&mut self, variable: &Variable) {
        self.direction(self.column(variable, 1.0));
    }

    /// Set the flows that follow when `amount` of `variable`, which is no longer in the basis, must be made up for.
    pub fn make_up(&mut self, variable: &Variable, amount: f64) {
        self.direction(self.column(variable, amount));
        for &(i, change) in &self.moved {
            self.flow[i as usize] += change;
        }
    }

    /// Take `step` times the last direction off the basic variables.
    pub fn advance(&mut self, step: f64) {
        for &(i, change) in &self.moved {
            self.flow[i as usize] -= step * change;
        }
    }

    fn column(&self, variable: &Variable, amount: f64) -> [(u32, f64); 2] {
        match variable.kind {
            Kind::Pair => [(variable.a, amount), (variable.b, amount * variable.qps)],
            Kind::Slack if !self.is_type(variable.a) => [(variable.a, -amount), (NONE, 0.0)],
            Kind::Slack | Kind::Shed => [(variable.a, amount), (NONE, 0.0)],
        }
    }

    /// All flows afresh from the right-hand side `needed` (stock, then demand).
    pub fn set_flows(&mut self, needed: &[f64]) {
        self.collect_all();
        self.change.copy_from_slice(needed);
        for place in (0..self.tree.len()).rev() {
            let i = self.tree[place];
            let (own, other) = self.coefficients(i);
            let node = &self.nodes[i as usize];
            let amount = self.change[i as usize];
            if node.parent == NONE && node.kind == Kind::Pair {
                self.flow[i as usize] = amount; // what the row still lacks, for now
                continue;
            }
            self.flow[i as usize] = amount / own;
            let parent = node.parent;
            if parent != NONE {
                self.change[parent as usize] -= other * (amount / own);
            }
        }
        // Roots with a cycle: what their rows still lack goes around it.
        for place in 0..self.tree.len() {
            let root = self.tree[place];
            let node = &self.nodes[root as usize];
            if node.parent == NONE && node.kind == Kind::Pair {
                let amount = std::mem::take(&mut self.flow[root as usize]);
                self.direction([(root, amount), (NONE, 0.0)]);
                for &(i, change) in &self.moved {
                    self.flow[i as usize] += change;
                }
            }
        }
    }

    // -- prices -----------------------------------------------------------------------------------------------------

    /// Price at the far end of the variable that `i` owns, when the price of `i`'s parent is `parent_price`.
    fn price_below(&self, i: u32, parent_price: f64) -> f64 {
        let node = &self.nodes[i as usize];
        if self.is_type(i) { node.qps * parent_price - node.cost } else { (node.cost + parent_price) / node.qps }
    }

    /// What the price of `i` was rounded at: the cost in the equation that gives it, in units of the price.
    pub fn price_scale(&self, i: u32) -> f64 {
        let node = &self.nodes[i as usize];
        match node.kind {
            Kind::Pair if self.is_type(i) => node.cost,
            Kind::Pair => node.cost / node.qps,
            Kind::Slack | Kind::Shed => node.cost,
        }
    }

    /// Price of a root from what it owns.
    fn root_price(&mut self, root: u32) -> f64 {
        let node = self.nodes[root as usize];
        if node.kind != Kind::Pair {
            return if node.kind == Kind::Shed { node.cost } else { 0.0 };
        }
        // Along the cycle: price of the mate = slope * price of the root + offset.
        self.stack.clear();
        let mut j = node.mate;
        while j != root {
            self.stack.push(j);
            j = self.nodes[j as usize].parent;
        }
        let (mut slope, mut offset) = (1.0, 0.0);
        while let Some(j) = self.stack.pop() {
            let node = &self.nodes[j as usize];
            if self.is_type(j) {
                (slope, offset) = (node.qps * slope, node.qps * offset - node.cost);
            } else {
                (slope, offset) = (slope / node.qps, (node.cost + offset) / node.qps);
            }
        }
        if self.is_type(root) {
            (node.qps * offset - node.cost) / (1.0 - node.qps * slope)
        } else {
            (node.cost + offset) / (node.qps - slope)
        }
    }

    /// Prices of the tree in `tree`, whose first node is its root or hangs on a node with a known price.
    fn set_tree_prices(&mut self) {
        let root = self.tree[0];
        let parent = self.nodes[root as usize].parent;
        let price = if parent == NONE { self.root_price(root) } else { self.price_below(root, self.price(parent)) };
        self.price[root as usize] = price;
        for place in 1..self.tree.len() {
            let i = self.tree[place];
            let above = self.price[self.nodes[i as usize].parent as usize];
            self.price[i as usize] = self.price_below(i, above);
        }
    }

    /// All prices afresh. `cost` gives the cost of each basic variable (by its node) where costs have changed.
    pub fn set_prices(&mut self, mut cost: impl FnMut(&Variable) -> f64) {
        for i in 0..self.nodes.len() as u32 {
            let variable = self.variable(i);
            self.nodes[i as usize].cost = cost(&variable);
        }
        self.collect_all();
        for place in 0..self.tree.len() {
            let i = self.tree[place];
            let parent = self.nodes[i as usize].parent;
            let price = if parent == NONE { self.root_price(i) } else { self.price_below(i, self.price(parent)) };
            self.price[i as usize] = price;
        }
    }

    // -- structure --------------------------------------------------------------------------------------------------

    fn collect_all(&mut self) {
        self.tree.clear();
        for i in 0..self.nodes.len() as u32 {
            if self.nodes[i as usize].parent == NONE {
                self.append(i);
            }
        }
    }

    /// Append `root` and all below it in preorder.
    fn append(&mut self, root: u32) {
        self.stack.clear();
        self.stack.push(root);
        while let Some(i) = self.stack.pop() {
            self.tree.push(i);
            let mut child = self.nodes[i as usize].child;
            while child != NONE {
                self.stack.push(child);
                child = self.nodes[child as usize].next;
            }
        }
    }

    fn link(&mut self, i: u32, parent: u32) {
        let first = self.nodes[parent as usize].child;
        let node = &mut self.nodes[i as usize];
        (node.parent, node.next, node.prev) = (parent, first, NONE);
        if first != NONE {
            self.nodes[first as usize].prev = i;
        }
        self.nodes[parent as usize].child = i;
    }

    fn unlink(&mut self, i: u32) {
        let Node { parent, next, prev, .. } = self.nodes[i as usize];
        if parent == NONE {
            return;
        }
        if prev == NONE {
            self.nodes[parent as usize].child = next;
        } else {
            self.nodes[prev as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        let node = &mut self.nodes[i as usize];
        (node.parent, node.next, node.prev) = (NONE, NONE, NONE);
    }

    /// Make `i` the root of its tree: the arcs on the way up change owners. What the old root owned is dropped.
    fn make_root(&mut self, i: u32) {
        let (mut below, mut carried, mut amount) = (NONE, self.nodes[i as usize], 0.0);
        let mut here = i;
        loop {
            let (node, flow) = (self.nodes[here as usize], self.flow(here));
            self.unlink(here);
            if below != NONE {
                // `here` now hangs on `below`, by the arc that `below` owned.
                let own = &mut self.nodes[here as usize];
                (own.kind, own.row, own.qps, own.cost) = (Kind::Pair, carried.row, carried.qps, carried.cost);
                self.flow[here as usize] = amount;
                self.link(here, below);
            }
            if node.parent == NONE {
                return;
            }
            (below, carried, amount, here) = (here, node, flow, node.parent);
        }
    }

    /// Whether the owned variable of `i` lies on a cycle without closing it; then the root of its tree.
    fn cycle_root(&self, i: u32) -> Option<u32> {
        let mut root = i;
        while self.nodes[root as usize].parent != NONE {
            root = self.nodes[root as usize].parent;
        }
        if root == i || self.nodes[root as usize].kind != Kind::Pair {
            return None;
        }
        let mut j = self.nodes[root as usize].mate;
        while j != root {
            if j == i {
                return Some(root);
            }
            j = self.nodes[j as usize].parent;
        }
        None
    }

    /// Take the variable of node `i` out of the basis: leaves a tree without anything extra, its nodes in `tree`.
    /// The variable and its value.
    pub fn detach(&mut self, i: u32) -> (Variable, f64) {
        let (variable, flow) = (self.variable(i), self.flow(i));
        let root = if let Some(root) = self.cycle_root(i) {
            // The arc that closed the cycle ties the part below `i` to the root instead.
            let (closing, amount) = (self.nodes[root as usize], self.flow(root));
            self.unlink(i);
            self.make_root(closing.mate);
            let tied = &mut self.nodes[closing.mate as usize];
            (tied.kind, tied.row, tied.qps, tied.cost) = (Kind::Pair, closing.row, closing.qps, closing.cost);
            self.flow[closing.mate as usize] = amount;
            self.link(closing.mate, root);
            root
        } else {
            self.unlink(i);
            i
        };
        self.nodes[root as usize].mate = NONE;
        self.tree.clear();
        self.append(root);
        (variable, flow)
    }

    /// Prices of the free tree in `tree` may move in proportion to these: `ratio[i]` > 0 for its nodes.
    pub fn price_ratios(&self, ratio: &mut [f64]) {
        let root = self.tree[0];
        ratio[root as usize] = 1.0;
        for &i in &self.tree[1..] {
            let node = &self.nodes[i as usize];
            let above = ratio[node.parent as usize];
            ratio[i as usize] = if self.is_type(i) { node.qps * above } else { above / node.qps };
        }
    }

    /// Bring `variable` into the basis with value `flow`; one of its ends is in the free tree, which gets its prices.
    pub fn attach(&mut self, variable: &Variable, flow: f64) {
        let root = self.tree[0];
        let inside = |mut i: u32| {
            while self.nodes[i as usize].parent != NONE {
                i = self.nodes[i as usize].parent;
            }
            i == root
        };
        let (near, far, closes) = match variable.kind {
            Kind::Slack | Kind::Shed => (variable.a, NONE, false),
            Kind::Pair if inside(variable.a) => (variable.a, variable.b, inside(variable.b)),
            Kind::Pair => (variable.b, variable.a, false),
        };
        self.make_root(near);
        let node = &mut self.nodes[near as usize];
        (node.kind, node.row, node.qps, node.cost) = (variable.kind, variable.row, variable.qps, variable.cost);
        node.mate = NONE;
        self.flow[near as usize] = flow;
        if closes {
            self.nodes[near as usize].mate = far;
        } else if far != NONE {
            self.link(near, far);
        }
        self.tree.clear();
        self.append(near);
        self.set_tree_prices();
    }
}

/// `a + b`, 0 where they cancel but for rounding.
fn sum(a: f64, b: f64) -> f64 {
    let total = a + b;
    if total.abs() <= CANCELLED * a.abs().max(b.abs()) { 0.0 } else { total }
}
