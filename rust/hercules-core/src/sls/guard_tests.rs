//! No tier touches a byte outside its buffers: each buffer ends, or begins, at a page that may not be touched.

use super::*;
use crate::control::Control;

/// Which end of the buffer lies at a forbidden page.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flush {
    Start,
    End,
}

/// Values of `T` in whole pages between two pages that may not be touched, flush with one of them.
pub(super) struct Guarded<T> {
    map: *mut libc::c_void,
    bytes: usize,
    pub(super) data: *mut T,
    len: usize,
}

impl<T: Copy> Guarded<T> {
    pub(super) fn new(values: &[T], flush: Flush) -> Self {
        // SAFETY: sysconf only reads; the mapping is fresh and private; the two pages protected are inside it, and the
        // values are written between them.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let inner = size_of_val(values).next_multiple_of(page).max(page);
            let bytes = inner + 2 * page;
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let map = libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0);
            assert_ne!(map, libc::MAP_FAILED, "no memory for a guarded buffer");
            assert_eq!(libc::mprotect(map, page, libc::PROT_NONE), 0);
            assert_eq!(libc::mprotect(map.byte_add(page + inner), page, libc::PROT_NONE), 0);
            let offset = match flush {
                Flush::Start => page,
                Flush::End => page + inner - size_of_val(values),
            };
            let data = map.byte_add(offset).cast::<T>();
            data.copy_from_nonoverlapping(values.as_ptr(), values.len());
            Self { map, bytes, data, len: values.len() }
        }
    }

    pub(super) fn get(&self) -> &[T] {
        // SAFETY: `len` values were written at `data`, which is aligned: pages are, and sizes are multiples of T's.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    fn get_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed for us alone.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, with its length.
        unsafe {
            libc::munmap(self.map, self.bytes);
        }
    }
}

/// Run one shape in every tier and mode with all buffers flush with forbidden pages; a stray access ends the process.
fn run_guarded(dim: usize, flush: Flush) {
    let rows = 3;
    let values: Vec<f32> = (0..rows * dim).map(|i| i as f32).collect();
    let weight = Guarded::new(&values, flush);
    let (last, first) = (rows as i64 - 1, 0);
    let indices = Guarded::new(&[last, first, last, last, first, last], flush);
    let lengths = Guarded::new(&[2_i64, 0, 4], flush);
    let factors = Guarded::new(&[1.0_f32; 6], flush);
    let mut out = Guarded::new(&vec![f32::NAN; 3 * dim], flush);
    for isa in Isa::ALL.into_iter().filter(|isa| *isa <= Isa::detected()) {
        for (mode, weighted) in [(Mode::Sum, false), (Mode::Sum, true), (Mode::Mean, false), (Mode::Max, false)] {
            for padding in [None, Some(0)] {
                let plan = Plan::new(Call {
                    tables: Table::new(weight.get(), rows, dim).unwrap().into(),
                    indices: indices.get().into(),
                    bags: Bags::Lengths(lengths.get().into()),
                    mode,
                    lookup_weights: weighted.then(|| factors.get().into()),
                    exact: false,
                    skip: padding.map_or(Skip::Nothing, Skip::Padding),
                    threads: Some(1),
                    isa: Some(isa),
                });
                plan.unwrap().run_into(out.get_mut(), &Control::new()).unwrap();
                assert!(out.get().iter().all(|x| x.is_finite()), "{isa} {mode:?} dim {dim}");
            }
        }
    }
}

#[test]
fn no_tier_touches_a_byte_outside_its_buffers() {
    for dim in (1..=70).chain([127, 128, 129, 255, 256, 257, 300, 513, 1023, 1024, 1025]) {
        for flush in [Flush::Start, Flush::End] {
            run_guarded(dim, flush);
        }
    }
}
