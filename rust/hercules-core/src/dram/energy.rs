//! Energy from supply currents, by component, after Micron's technical note TN-46-03 as DRAMsim3 applies it.
//!
//! Milliamperes times volts times nanoseconds are picojoules. Every chip of a rank takes part in every command of it.
//!
//! * activate with its precharge: `VDD (IDD0 tRC - IDD3N tRAS - IDD2N tRP)`, what a row cycle takes above standing by
//! * read, write: `VDD (IDD4R - IDD3N) BL`, `VDD (IDD4W - IDD3N) BL`
//! * refresh: `VDD (IDD5 - IDD3N) tRFC`
//! * background: `VDD IDD3N` while any bank of the rank is open, `VDD IDD2N` while all are closed
//! * input and output: bits moved over the channel times the energy of one

use super::standard::Standard;
use super::state::Counts;

/// Nanojoules by component.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Energy {
    pub activate_nj: f64,
    pub read_nj: f64,
    pub write_nj: f64,
    pub io_nj: f64,
    pub refresh_nj: f64,
    pub background_nj: f64,
}

impl Energy {
    /// Names and values of the components.
    pub fn components(&self) -> [(&'static str, f64); 6] {
        [
            ("activate", self.activate_nj),
            ("read", self.read_nj),
            ("write", self.write_nj),
            ("io", self.io_nj),
            ("refresh", self.refresh_nj),
            ("background", self.background_nj),
        ]
    }
}

/// What happened in all ranks together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    pub counts: Counts,
    /// Accesses that moved over the channel to the host.
    pub transfers: u64,
    /// Cycles of all ranks, and those of them with an open bank.
    pub rank_cycles: u64,
    pub open_cycles: u64,
}

/// Energy of `activity`; `None` for a standard without currents.
pub fn energy(standard: &Standard, activity: &Activity) -> Option<Energy> {
    let c = standard.currents?;
    let t = &standard.timing;
    let chips = f64::from(standard.organisation.bus_bits / standard.organisation.device_bits);
    let cycles = |n: u32| f64::from(n);
    // Nanojoules of one milliampere that every chip draws for one cycle.
    let unit = c.vdd_v * chips * standard.tck_ns * 1e-3;
    let row_cycle = c.idd0_ma * cycles(t.rc) - c.idd3n_ma * cycles(t.ras) - c.idd2n_ma * cycles(t.rp);
    let Activity { counts, transfers, rank_cycles, open_cycles } = *activity;
    let closed_cycles = rank_cycles.saturating_sub(open_cycles);
    let bits = 8.0 * standard.access_bytes() as f64;
    Some(Energy {
        activate_nj: counts.activates as f64 * unit * row_cycle,
        read_nj: counts.reads as f64 * unit * (c.idd4r_ma - c.idd3n_ma) * cycles(t.bl),
        write_nj: counts.writes as f64 * unit * (c.idd4w_ma - c.idd3n_ma) * cycles(t.bl),
        io_nj: transfers as f64 * bits * c.io_pj_per_bit * 1e-3,
        refresh_nj: counts.refreshes as f64 * unit * (c.idd5_ma - c.idd3n_ma) * cycles(t.rfc),
        background_nj: unit * (open_cycles as f64 * c.idd3n_ma + closed_cycles as f64 * c.idd2n_ma),
    })
}
