//! What a configuration is worth: its highest load, alone or against the power that it draws there.

use crate::error::{Error, Result};
use crate::queue::chain::{Config, StageUse};

/// Maximise `qps / (fixed + per_watt * power_w)`: (1, 0) is QPS, (0, 1) QPS per watt, (cost of the server per hour, price
/// of a watt-hour) QPS per cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    pub fixed: f64,
    pub per_watt: f64,
}

impl Objective {
    pub const QPS: Self = Self { fixed: 1.0, per_watt: 0.0 };
    pub const QPS_PER_WATT: Self = Self { fixed: 0.0, per_watt: 1.0 };

    pub fn check(self) -> Result<()> {
        for (name, weight) in [("fixed", self.fixed), ("per_watt", self.per_watt)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(Error::invalid(
                    format!("objective.{name}"),
                    format!("is {weight}; must be finite and from 0"),
                ));
            }
        }
        if self.fixed + self.per_watt <= 0.0 {
            return Err(Error::invalid("objective", "is (0, 0); one of the weights must be above 0"));
        }
        Ok(())
    }

    pub fn needs_power(self) -> bool {
        self.per_watt > 0.0
    }

    /// `power_w` is not looked at where it does not matter.
    pub fn score(self, qps: f64, power_w: f64) -> f64 {
        qps / self.cost(power_w)
    }

    fn cost(self, power_w: f64) -> f64 {
        if self.needs_power() { self.fixed + self.per_watt * power_w } else { self.fixed }
    }

    /// The lowest load whose score can be `score`, if `power_w(load)` is drawn there at least. Power is what a server
    /// draws at rest and more with load, so the fixed point of `load = score * cost(load)` is come to from below, and any
    /// step on the way is a valid answer.
    pub fn least_load(self, score: f64, power_w: impl Fn(f64) -> f64) -> f64 {
        if !self.needs_power() {
            return score * self.fixed;
        }
        let mut load = 0.0;
        for _ in 0..LOAD_STEPS {
            let next = score * self.cost(power_w(load));
            let settled = next <= load * (1.0 + LOAD_SETTLED);
            load = next;
            if settled || !load.is_finite() {
                break;
            }
        }
        load
    }
}

/// What a search looks for: the highest score, at loads that draw no more than the budget (infinite: none).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    pub objective: Objective,
    pub power_budget_w: f64,
}

impl Goal {
    pub const QPS: Self = Self { objective: Objective::QPS, power_budget_w: f64::INFINITY };

    pub fn check(self) -> Result<()> {
        self.objective.check()?;
        if self.power_budget_w.is_nan() || self.power_budget_w <= 0.0 {
            return Err(Error::invalid("power_budget_w", format!("is {}; must be above 0", self.power_budget_w)));
        }
        Ok(())
    }

    pub fn needs_power(self) -> bool {
        self.objective.needs_power() || self.power_budget_w.is_finite()
    }
}

const LOAD_STEPS: usize = 64;
const LOAD_SETTLED: f64 = 1e-6;

/// Power of a server from the use of its stages, as `hercules_fast.serving.power` writes it: what is always drawn, and
/// for each component what it draws at rest and the part of its span that its use makes up.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerModel {
    pub base_w: f64,
    /// For each component.
    pub idle_w: Vec<f64>,
    /// For each component: from rest to full use.
    pub span_w: Vec<f64>,
    /// For each group: its component.
    pub component_of: Vec<usize>,
    /// For each group: cores that its threads share; 0 where they share all of it, so that its use is their mean.
    pub slots: Vec<u32>,
    /// For each stage: its group.
    pub group_of: Vec<usize>,
    /// For each variant and stage (row-major): cores of one thread, at least 1.
    pub cores: Vec<u32>,
    /// The component whose use is the stages' energy.
    pub energy_of: Option<usize>,
}

impl PowerModel {
    /// Refuse what does not fit together, naming the field.
    pub fn check(&self, variants: usize, stages: usize) -> Result<()> {
        let components = self.idle_w.len();
        let lengths = [
            ("span_w", self.span_w.len(), components),
            ("slots", self.slots.len(), self.component_of.len()),
            ("group_of", self.group_of.len(), stages),
            ("cores", self.cores.len(), variants * stages),
        ];
        for (name, found, wanted) in lengths {
            if found != wanted {
                return Err(Error::invalid(format!("power.{name}"), format!("has {found} entries, must be {wanted}")));
            }
        }
        let indices = [
            ("component_of", self.component_of.iter().max(), components),
            ("group_of", self.group_of.iter().max(), self.component_of.len()),
            ("energy_of", self.energy_of.as_ref(), components),
        ];
        for (name, largest, end) in indices {
            if let Some(largest) = largest
                && *largest >= end
            {
                return Err(Error::invalid(format!("power.{name}"), format!("is {largest}; allowed are 0..{end}")));
            }
        }
        let watts = [("base_w", &[self.base_w][..]), ("idle_w", &self.idle_w), ("span_w", &self.span_w)];
        for (name, values) in watts {
            if let Some(value) = values.iter().find(|value| !(value.is_finite() && **value >= 0.0)) {
                return Err(Error::invalid(format!("power.{name}"), format!("is {value}; must be finite and from 0")));
            }
        }
        Ok(())
    }

    /// Watts of a server that runs `config` at `qps` with these `uses` of its stages.
    pub fn power_w(&self, config: &Config, qps: f64, uses: &[StageUse]) -> f64 {
        self.power_with(config, qps, uses, |stage| uses[stage].energy_j_per_query)
    }

    fn power_with(&self, config: &Config, qps: f64, uses: &[StageUse], energy_j: impl Fn(usize) -> f64) -> f64 {
        let stages = self.group_of.len();
        let runs = |stage: &usize| config.threads[*stage] > 0;
        let mut used = vec![0.0; self.idle_w.len()];
        for (group, component) in self.component_of.iter().enumerate() {
            let (mut busy, mut threads_in_group) = (0.0, 0);
            for stage in (0..stages).filter(runs).filter(|stage| self.group_of[*stage] == group) {
                let threads = config.threads[stage];
                let cores = self.cores[config.variant * stages + stage].max(1);
                busy += uses[stage].utilisation * f64::from(threads) * f64::from(cores);
                threads_in_group += threads;
            }
            let slots = if self.slots[group] > 0 { self.slots[group] } else { threads_in_group };
            used[*component] += if slots > 0 { (busy / f64::from(slots)).min(1.0) } else { 0.0 };
        }
        if let Some(memory) = self.energy_of {
            let energy: f64 = (0..stages).filter(runs).map(energy_j).sum();
            let span = self.span_w[memory];
            let share = if span > 0.0 { qps * energy / span } else { 0.0 };
            used[memory] = if share < 1.0 { share } else { 1.0 }; // unknown energy (NaN) counts as full use
        }
        let components = self.idle_w.iter().zip(&self.span_w).zip(&used);
        components.map(|((idle, span), used)| idle + span * used).sum::<f64>() + self.base_w
    }

    /// Least watts of `config` at `qps`, from the least busy seconds of each stage for a query and no energy.
    pub fn least_w(&self, config: &Config, qps: f64, least_busy_s: &[f64]) -> f64 {
        let used = |(seconds, threads): (&f64, &u32)| {
            let share = if *threads > 0 { qps * seconds / f64::from(*threads) } else { 0.0 };
            StageUse { utilisation: share.min(1.0), ..StageUse::UNUSED }
        };
        let uses: Vec<StageUse> = least_busy_s.iter().zip(&config.threads).map(used).collect();
        self.power_with(config, qps, &uses, |_| 0.0)
    }
}
