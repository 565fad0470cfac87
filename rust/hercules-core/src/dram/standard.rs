//! A DRAM standard as data: organisation of a rank, timing in clock cycles, supply currents.

use crate::error::{Error, Result};

/// Largest number of cycles that a timing parameter may have.
pub const MAX_CYCLES: u32 = 1 << 20;

/// Named whole numbers, read from pairs; the names are the field's own, in lower case.
macro_rules! named_numbers {
    ($(#[$meta:meta])* $name:ident: $number:ty, $what:literal, $($(#[$doc:meta])* $field:ident,)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name { $($(#[$doc])* pub $field: $number,)* }

        impl $name {
            /// Names of the fields, in order.
            pub const NAMES: &[&str] = &[$(stringify!($field)),*];

            /// Fill the fields from `(name, value)` pairs: each name once, none unknown.
            pub fn from_pairs(pairs: &[(String, $number)]) -> Result<Self> {
                for (i, (name, _)) in pairs.iter().enumerate() {
                    if !Self::NAMES.contains(&name.as_str()) {
                        let message = format!("is unknown; allowed are {}", Self::NAMES.join(", "));
                        return Err(Error::invalid(format!(concat!($what, ".{}"), name), message));
                    }
                    if pairs[..i].iter().any(|(earlier, _)| earlier == name) {
                        return Err(Error::invalid(format!(concat!($what, ".{}"), name), "is given twice"));
                    }
                }
                let find = |name: &str| {
                    let pair = pairs.iter().find(|pair| pair.0 == name);
                    pair.map(|pair| pair.1).ok_or_else(|| Error::invalid(format!(concat!($what, ".{}"), name), "is missing"))
                };
                Ok(Self { $($field: find(stringify!($field))?,)* })
            }
        }
    };
}

named_numbers! {
    /// What one rank is made of. Counts and `row_bytes` are powers of two.
    Organisation: u32, "organisation",
    /// Bank groups.
    groups,
    banks_per_group,
    /// Rows of a bank.
    rows,
    /// Bytes that one row holds over all chips of the rank.
    row_bytes,
    /// Width of the channel's data bus.
    bus_bits,
    /// Width of one chip; `bus_bits / device_bits` chips make a rank.
    device_bits,
}

named_numbers! {
    /// Cycles of the DRAM clock between commands, in the names of JEDEC without their t or n.
    Timing: u32, "timing",
    /// Cycles that a burst keeps the data bus: half its beats.
    bl,
    /// Read command to first data.
    cl,
    /// Write command to first data.
    cwl,
    /// Activate to read or write.
    rcd,
    /// Precharge to activate.
    rp,
    /// Activate to precharge.
    ras,
    /// Activate to activate, same bank.
    rc,
    /// Read to read and write to write, other bank group.
    ccd_s,
    /// Read to read, same bank group.
    ccd_l,
    /// Write to write, same bank group.
    ccd_l_wr,
    /// Activate to activate, other bank group.
    rrd_s,
    /// Activate to activate, same bank group.
    rrd_l,
    /// Window in which a rank takes at most four activates.
    faw,
    /// Read to precharge.
    rtp,
    /// End of write data to precharge.
    wr,
    /// End of write data to read, other bank group.
    wtr_s,
    /// End of write data to read, same bank group.
    wtr_l,
    /// Gap on the data bus from a read to a write of the same rank.
    rtw,
    /// Gap on the data bus between bursts of different ranks.
    rank_switch,
    /// Refresh to any command of the rank.
    rfc,
    /// Mean time between refreshes of a rank.
    refi,
    /// Cycles of the command bus that an activate takes.
    row_command,
    /// Cycles of the command bus that a read or write takes.
    column_command,
}

named_numbers! {
    /// Supply voltage and currents of one chip, and what the data pins need.
    Currents: f64, "currents",
    vdd_v,
    idd0_ma,
    idd2n_ma,
    idd3n_ma,
    idd4r_ma,
    idd4w_ma,
    idd5_ma,
    /// Energy to move one bit over the channel.
    io_pj_per_bit,
}

/// One speed grade of one kind of DRAM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standard {
    pub organisation: Organisation,
    pub timing: Timing,
    /// Length of a clock cycle.
    pub tck_ns: f64,
    /// Without them no energy is told.
    pub currents: Option<Currents>,
}

/// Least cycles from a column command to the next one, `[place][first writes][second writes]`; places are
/// the same bank group, another group of the rank, another rank.
pub type ColumnGaps = [[[u64; 2]; 2]; 3];

impl Timing {
    /// Gaps between column commands after JESD79-4 (DDR4), which DDR5 and HBM2 share: one burst at a time on the data
    /// bus, `ccd` inside a rank, turn-around by direction.
    pub fn column_gaps(&self) -> ColumnGaps {
        let same_rank = |ccd_read: u32, ccd_write: u32, wtr: u32| {
            [
                [ccd_read.max(self.bl), (self.cl + self.bl + self.rtw).saturating_sub(self.cwl).max(1)],
                [self.cwl + self.bl + wtr, ccd_write.max(self.bl)],
            ]
        };
        let bus = self.bl + self.rank_switch;
        let other_rank = [
            [bus, (self.cl + bus).saturating_sub(self.cwl).max(1)],
            [(self.cwl + bus).saturating_sub(self.cl).max(1), bus],
        ];
        [same_rank(self.ccd_l, self.ccd_l_wr, self.wtr_l), same_rank(self.ccd_s, self.ccd_s, self.wtr_s), other_rank]
            .map(|place| place.map(|first| first.map(u64::from)))
    }
}

impl Standard {
    /// Check every range and that parameters fit each other.
    pub fn check(&self) -> Result<()> {
        let o = &self.organisation;
        let powers = [
            ("groups", o.groups, 64),
            ("banks_per_group", o.banks_per_group, 64),
            ("rows", o.rows, 1 << 24),
            ("row_bytes", o.row_bytes, 1 << 20),
            ("bus_bits", o.bus_bits, 1024),
            ("device_bits", o.device_bits, 1024),
        ];
        for (name, value, most) in powers {
            if !value.is_power_of_two() || value > most {
                let message = format!("is {value}; allowed is a power of two up to {most}");
                return Err(Error::invalid(format!("organisation.{name}"), message));
            }
        }
        if o.device_bits > o.bus_bits {
            let message = format!("is {}; allowed is at most organisation.bus_bits = {}", o.device_bits, o.bus_bits);
            return Err(Error::invalid("organisation.device_bits", message));
        }
        // So that the bytes of any number of channels are counted in 64 bits.
        if self.rank_bytes() > 1 << 48 {
            let message = format!("makes ranks of {} bytes; allowed is up to 2^48", self.rank_bytes());
            return Err(Error::invalid("organisation.rows", message));
        }
        self.check_timing()?;
        let bytes = self.access_bytes();
        if !bytes.is_power_of_two() || bytes > u64::from(o.row_bytes) || bytes > 4096 {
            let message = format!("makes bursts of {bytes} bytes; allowed is a power of two up to row_bytes and 4096");
            return Err(Error::invalid("timing.bl", message));
        }
        if !(self.tck_ns > 0.0 && self.tck_ns <= 1000.0) {
            return Err(Error::invalid("tck_ns", format!("is {}; allowed is from above 0 to 1000", self.tck_ns)));
        }
        self.currents.map_or(Ok(()), |currents| currents.check())
    }

    fn check_timing(&self) -> Result<()> {
        let t = &self.timing;
        let fields = [
            ("bl", t.bl, 1),
            ("cl", t.cl, 1),
            ("cwl", t.cwl, 1),
            ("rcd", t.rcd, 1),
            ("rp", t.rp, 1),
            ("ras", t.ras, 1),
            ("rc", t.rc, 1),
            ("ccd_s", t.ccd_s, 1),
            ("ccd_l", t.ccd_l, 1),
            ("ccd_l_wr", t.ccd_l_wr, 1),
            ("rrd_s", t.rrd_s, 1),
            ("rrd_l", t.rrd_l, 1),
            ("faw", t.faw, 1),
            ("rtp", t.rtp, 1),
            ("wr", t.wr, 1),
            ("wtr_s", t.wtr_s, 0),
            ("wtr_l", t.wtr_l, 0),
            ("rtw", t.rtw, 0),
            ("rank_switch", t.rank_switch, 0),
            ("rfc", t.rfc, 1),
            ("refi", t.refi, 1),
            ("row_command", t.row_command, 1),
            ("column_command", t.column_command, 1),
        ];
        for (name, value, least) in fields {
            if value < least || value > MAX_CYCLES {
                let message = format!("is {value}; allowed is a whole number from {least} to {MAX_CYCLES} cycles");
                return Err(Error::invalid(format!("timing.{name}"), message));
            }
        }
        let at_least = [
            ("ras", t.ras, "rcd", t.rcd),
            ("rc", t.rc, "ras", t.ras),
            ("ccd_l", t.ccd_l, "ccd_s", t.ccd_s),
            ("ccd_l_wr", t.ccd_l_wr, "ccd_s", t.ccd_s),
            ("rrd_l", t.rrd_l, "rrd_s", t.rrd_s),
            ("faw", t.faw, "rrd_s", t.rrd_s),
            ("wtr_l", t.wtr_l, "wtr_s", t.wtr_s),
            ("rrd_s", t.rrd_s, "row_command", t.row_command),
            ("ccd_s", t.ccd_s.max(t.bl), "column_command", t.column_command),
            // Or refreshes would leave no time to read.
            ("refi", t.refi, "rfc + rc + rp", t.rfc + t.rc + t.rp),
        ];
        for (name, value, other, least) in at_least {
            if value < least {
                let message = format!("is {value}; allowed is at least {other} = {least}");
                return Err(Error::invalid(format!("timing.{name}"), message));
            }
        }
        Ok(())
    }

    /// Bytes that one read or write moves.
    pub fn access_bytes(&self) -> u64 {
        u64::from(self.organisation.bus_bits) / 8 * u64::from(2 * self.timing.bl)
    }

    /// Accesses that one row holds.
    pub fn columns(&self) -> u64 {
        u64::from(self.organisation.row_bytes) / self.access_bytes()
    }

    pub fn banks(&self) -> usize {
        (self.organisation.groups * self.organisation.banks_per_group) as usize
    }

    /// Bytes of one rank.
    pub fn rank_bytes(&self) -> u64 {
        self.banks() as u64 * u64::from(self.organisation.rows) * u64::from(self.organisation.row_bytes)
    }

    /// Most bytes that one channel moves in a second.
    pub fn peak_gb_s(&self) -> f64 {
        self.access_bytes() as f64 / (f64::from(self.timing.bl) * self.tck_ns)
    }
}

impl Currents {
    fn check(&self) -> Result<()> {
        let fields = [
            ("vdd_v", self.vdd_v),
            ("idd0_ma", self.idd0_ma),
            ("idd2n_ma", self.idd2n_ma),
            ("idd3n_ma", self.idd3n_ma),
            ("idd4r_ma", self.idd4r_ma),
            ("idd4w_ma", self.idd4w_ma),
            ("idd5_ma", self.idd5_ma),
            ("io_pj_per_bit", self.io_pj_per_bit),
        ];
        for (name, value) in fields {
            if !(0.0..=1e5).contains(&value) {
                let message = format!("is {value}; allowed is from 0 to 1e5");
                return Err(Error::invalid(format!("currents.{name}"), message));
            }
        }
        // Each formula subtracts the background current, which must be the smaller one.
        let above = [("idd4r_ma", self.idd4r_ma), ("idd4w_ma", self.idd4w_ma), ("idd5_ma", self.idd5_ma)];
        for (name, value) in above {
            if value < self.idd3n_ma {
                let message = format!("is {value}; allowed is at least currents.idd3n_ma = {}", self.idd3n_ma);
                return Err(Error::invalid(format!("currents.{name}"), message));
            }
        }
        Ok(())
    }
}
