//! How the bits of a byte address choose channel, rank, bank group, bank, row and column.

use super::standard::Standard;
use crate::error::{Error, Result};

/// Parts of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Channel,
    Rank,
    Group,
    Bank,
    Row,
    Column,
}

const NAMES: [(&str, Part); 6] = [
    ("channel", Part::Channel),
    ("rank", Part::Rank),
    ("group", Part::Group),
    ("bank", Part::Bank),
    ("row", Part::Row),
    ("column", Part::Column),
];

/// Rows stay together, then ranks, groups and banks take turns: what the oracle of the tests uses.
pub const DEFAULT: &str = "row bank group rank column channel";

/// Where an access goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub channel: u32,
    /// Number of the bank in its channel, see [`super::state::State`].
    pub bank: u32,
    pub row: u32,
    pub column: u32,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    part: Part,
    mask: u64,
    /// Bit of the address where the piece starts, and bit of its word in the [`Place`].
    from: u32,
    to: u32,
}

/// A checked mapping of one system.
#[derive(Debug, Clone)]
pub struct Mapping {
    pieces: Vec<Piece>,
    /// Those of the rank, for a question that is asked for every vector.
    rank_pieces: Vec<Piece>,
    capacity: u64,
    rank_shift: u32,
}

fn bits_of(count: u64) -> u32 {
    count.trailing_zeros()
}

impl Mapping {
    /// Read a mapping such as `"row bank group rank column"`, most significant part first.
    ///
    /// A part may carry its bits (`column:3`) and then stand more than once; a part of one channel or one rank may be
    /// left out. Bits of the standard that the text does not place are a fault.
    pub fn new(text: &str, standard: &Standard, channels: usize, ranks: usize) -> Result<Self> {
        for (name, count) in [("channels", channels), ("ranks", ranks)] {
            if !count.is_power_of_two() || count > 64 {
                return Err(Error::invalid(name, format!("is {count}; allowed is a power of two from 1 to 64")));
            }
        }
        let o = &standard.organisation;
        let needed = |part: Part| match part {
            Part::Channel => bits_of(channels as u64),
            Part::Rank => bits_of(ranks as u64),
            Part::Group => bits_of(u64::from(o.groups)),
            Part::Bank => bits_of(u64::from(o.banks_per_group)),
            Part::Row => bits_of(u64::from(o.rows)),
            Part::Column => bits_of(standard.columns()),
        };
        let words: Vec<(Part, Option<u32>)> = text.split_whitespace().map(word).collect::<Result<_>>()?;
        let (mut pieces, mut placed) = (Vec::new(), [0_u32; 6]);
        let mut from = bits_of(standard.access_bytes());
        for &(part, bits) in words.iter().rev() {
            if bits.is_none() && words.iter().filter(|other| other.0 == part).count() > 1 {
                let message = format!("{part:?} stands more than once, so each needs its bits, as in column:3");
                return Err(Error::invalid("mapping", message.to_lowercase()));
            }
            let bits = bits.unwrap_or_else(|| needed(part));
            let to = placed[part as usize];
            placed[part as usize] += bits;
            if bits > 0 && placed[part as usize] <= needed(part) {
                let shift = match part {
                    Part::Rank => bits_of(standard.banks() as u64),
                    Part::Group => bits_of(u64::from(o.banks_per_group)),
                    _ => 0,
                };
                pieces.push(Piece { part, mask: (1 << bits) - 1, from, to: to + shift });
                from += bits;
            }
        }
        for (name, part) in NAMES {
            if placed[part as usize] != needed(part) {
                let message =
                    format!("gives {} bits to {name}; it must be {} here", placed[part as usize], needed(part));
                return Err(Error::invalid("mapping", message));
            }
        }
        Ok(Self {
            rank_pieces: pieces.iter().copied().filter(|piece| piece.part == Part::Rank).collect(),
            pieces,
            capacity: standard.rank_bytes() * (channels * ranks) as u64,
            rank_shift: bits_of(standard.banks() as u64),
        })
    }

    /// Bytes of the whole system; addresses lie below.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Where `address` lies.
    #[inline]
    pub fn place(&self, address: u64) -> Place {
        let mut place = Place { channel: 0, bank: 0, row: 0, column: 0 };
        for piece in &self.pieces {
            let word = match piece.part {
                Part::Channel => &mut place.channel,
                Part::Rank | Part::Group | Part::Bank => &mut place.bank,
                Part::Row => &mut place.row,
                Part::Column => &mut place.column,
            };
            *word |= (((address >> piece.from) & piece.mask) as u32) << piece.to;
        }
        place
    }

    /// The mapping of one rank by itself: rank bits are taken out and the others close up.
    #[must_use]
    pub fn of_one_rank(&self) -> Self {
        let mut from = self.pieces.iter().map(|piece| piece.from).min().unwrap_or(0);
        let (mut pieces, mut ranks) = (Vec::new(), 1);
        for piece in &self.pieces {
            if piece.part == Part::Rank {
                ranks *= piece.mask + 1;
            } else {
                pieces.push(Piece { from, ..*piece });
                from += piece.mask.count_ones();
            }
        }
        Self { pieces, rank_pieces: Vec::new(), capacity: self.capacity / ranks, ..*self }
    }

    /// Number of the rank that `address` lies in.
    #[inline]
    pub fn rank_of(&self, address: u64) -> u32 {
        let bits = self
            .rank_pieces
            .iter()
            .map(|piece| (((address >> piece.from) & piece.mask) as u32) << (piece.to - self.rank_shift));
        bits.fold(0, |rank, bits| rank | bits)
    }

    /// Whether `bytes` from `address` on may lie in more than one rank.
    #[inline]
    pub fn may_change_rank(&self, address: u64, bytes: u64) -> bool {
        self.rank_pieces.first().is_some_and(|piece| address >> piece.from != (address + bytes - 1) >> piece.from)
    }

    /// `address` without the bits that choose its rank.
    pub fn inside_rank(&self, address: u64) -> u64 {
        // From the top down, so that bits below stay where they are.
        self.rank_pieces.iter().rev().fold(address, |address, piece| {
            let low = address & ((1 << piece.from) - 1);
            (address >> (piece.from + piece.mask.count_ones())) << piece.from | low
        })
    }

    /// Number of the rank inside a channel that a bank belongs to, and of the bank inside that rank.
    pub fn split_bank(&self, bank: u32) -> (u32, u32) {
        (bank >> self.rank_shift, bank & ((1 << self.rank_shift) - 1))
    }
}

fn word(text: &str) -> Result<(Part, Option<u32>)> {
    let (name, bits) = text.split_once(':').map_or((text, None), |(name, bits)| (name, Some(bits)));
    let part = NAMES.iter().find(|known| known.0 == name).map(|known| known.1).ok_or_else(|| {
        let known = NAMES.map(|known| known.0).join(", ");
        Error::invalid("mapping", format!("names {name:?}; allowed are {known}"))
    })?;
    let bits = bits.map(|bits| {
        bits.parse().ok().filter(|bits| *bits <= 48).ok_or_else(|| {
            Error::invalid("mapping", format!("gives {name} {bits:?} bits; allowed is a whole number up to 48"))
        })
    });
    Ok((part, bits.transpose()?))
}
