//! Memory for tables: private, on 2 MiB pages where the system grants them, fenced by pages that nobody may touch.
//!
//! A gather from memory misses the TLB at nearly every row of 4 KiB pages; with 2 MiB pages it takes up to half the
//! time. The kernel gives them to private anonymous memory that is aligned to 2 MiB and advised so (where
//! `/sys/kernel/mm/transparent_hugepage/enabled` says `madvise` or `always`), not to shared memory and not to files.

use crate::error::{Error, Result};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Bytes that are ours alone, zero at first.
pub(super) struct Pages {
    /// Everything that was reserved, fences included.
    base: *mut libc::c_void,
    reserved: usize,
    data: *mut u8,
    /// What can be read and written, from `data` on.
    usable: usize,
}

// SAFETY: plain memory, owned.
unsafe impl Send for Pages {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Pages {}

impl Pages {
    pub fn zeroed(bytes: usize) -> Result<Self> {
        let page = page_bytes();
        let huge = bytes >= HUGE_PAGE_BYTES;
        // A small table stays on small pages: rounding it up to 2 MiB could multiply its size.
        let unit = if huge { HUGE_PAGE_BYTES } else { page };
        let memory = || Error::Memory { bytes };
        let usable = bytes.max(1).checked_next_multiple_of(unit).ok_or_else(memory)?;
        // Room to align, and a fence on either side. The fences keep the system from joining neighbours into one region,
        // so that the pages granted to this one can be counted.
        let reserved = usable.checked_add(unit + 2 * page).ok_or_else(memory)?;
        // SAFETY: a new private mapping at an address of the system's choice; nothing is accessible yet.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(ptr::null_mut(), reserved, libc::PROT_NONE, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(memory());
        }
        let data = base.wrapping_byte_add(page);
        let data = data.wrapping_byte_add(data.addr().next_multiple_of(unit) - data.addr());
        let pages = Self { base, reserved, data: data.cast(), usable };
        // SAFETY: data..data + usable lies inside the mapping: alignment moved it by less than `unit`. Advice may be
        // refused (a system without huge pages); the memory is as good.
        unsafe {
            if libc::mprotect(data, usable, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return Err(memory());
            }
            #[cfg(target_os = "linux")]
            if huge {
                libc::madvise(data, usable, libc::MADV_HUGEPAGE);
            }
        }
        Ok(pages)
    }

    pub fn data(&self) -> *const u8 {
        self.data
    }

    /// All usable bytes: at least those asked for.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `usable` initialised bytes (the system zeroes them), borrowed through `self` alone.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.usable) }
    }

    /// Share of the memory that lies on huge pages, 0 to 1.
    pub fn huge_share(&self) -> f64 {
        let start = self.data.addr();
        let huge = std::fs::read_to_string("/proc/self/smaps")
            .map_or(0, |smaps| huge_bytes(&smaps, &(start..start + self.usable)));
        huge as f64 / self.usable as f64
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever borrowed from it borrowed `self`.
        unsafe { libc::munmap(self.base, self.reserved) };
    }
}

/// A file's bytes, read in place.
pub(super) struct MappedFile {
    base: *mut libc::c_void,
    bytes: usize,
}

// SAFETY: the memory is only read.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Map the first `bytes` bytes of `file`, at least one.
    pub fn new(file: &File, bytes: usize) -> Result<Self> {
        // SAFETY: a new private mapping at an address of the system's choice.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            let reason = std::io::Error::last_os_error();
            return Err(Error::invalid("path", format!("cannot be mapped: {reason}")));
        }
        Ok(Self { base, bytes })
    }

    pub fn data(&self) -> *const u8 {
        self.base.cast()
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever borrowed from it borrowed `self`.
        unsafe { libc::munmap(self.base, self.bytes) };
    }
}

pub(super) fn page_bytes() -> usize {
    // SAFETY: asks for a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// Bytes on anonymous huge pages of the regions within `wanted`, from the text of `/proc/self/smaps`: a line with a
/// region's addresses, then lines with its properties.
fn huge_bytes(smaps: &str, wanted: &Range<usize>) -> usize {
    let mut inside = false;
    let mut bytes = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((start, end)) = first.split_once('-') {
            let address = |text| usize::from_str_radix(text, 16);
            if let (Ok(start), Ok(end)) = (address(start), address(end)) {
                inside = wanted.start <= start && end <= wanted.end;
            }
        } else if inside && first == "AnonHugePages:" {
            bytes += words.next().and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) * 1024;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_aligned_and_writable_to_the_last_byte() {
        for bytes in [0, 1, 4096, 5000, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 7] {
            let mut pages = Pages::zeroed(bytes).unwrap();
            assert!(pages.bytes_mut().len() >= bytes);
            assert!(pages.bytes_mut().iter().all(|&byte| byte == 0));
            pages.bytes_mut().fill(7);
            let unit = if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { page_bytes() };
            assert_eq!(pages.data().addr() % unit, 0);
            assert!((0.0..=1.0).contains(&pages.huge_share()));
        }
        assert!(matches!(Pages::zeroed(usize::MAX - 5), Err(Error::Memory { .. })));
        assert!(matches!(Pages::zeroed(1 << 60), Err(Error::Memory { .. })));
        // More than the machine has is refused when asked for, not when touched, unless the system is told to promise all.
        if std::fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() != "1") {
            assert!(matches!(Pages::zeroed(1 << 45), Err(Error::Memory { .. })));
        }
    }

    #[test]
    fn huge_pages_of_one_region_are_counted() {
        let smaps = "7f00000000-7f00400000 rw-p 00000000 00:00 0\nRss: 4096 kB\nAnonHugePages:      2048 kB\n\
                     7f00400000-7f00401000 ---p 00000000 00:00 0\nAnonHugePages:   0 kB\n\
                     7f00600000-7f00800000 rw-p 00000000 00:00 0 [heap]\nAnonHugePages:      2048 kB\n";
        assert_eq!(huge_bytes(smaps, &(0x7f_0000_0000..0x7f_0040_0000)), 2 << 20);
        assert_eq!(huge_bytes(smaps, &(0x7f_0000_0000..0x7f_0080_0000)), 4 << 20);
        assert_eq!(huge_bytes(smaps, &(0x7f_0010_0000..0x7f_0040_0000)), 0);
        assert_eq!(huge_bytes("", &(0..usize::MAX)), 0);
    }
}
