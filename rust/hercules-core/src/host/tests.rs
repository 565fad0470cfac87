use super::*;
use std::cell::RefCell;

const ONCE: Prefetch = Prefetch { rows_ahead: 16, burst: 4, level: Level::L1 };

fn seconds(memory: &[u8], row_bytes: usize, rows: &[i64], prefetch: Prefetch) -> Result<f64> {
    // SAFETY: the slice's own memory.
    let block = unsafe { Memory::new(memory.as_ptr(), memory.len()) };
    read_seconds(block, row_bytes, rows.iter().copied(), prefetch, Some(2), &Control::new())
}

/// Lines, counted from `row`, of the addresses that are visited; the last byte stands for its own line.
fn visited<const LINES: usize, const ALIGNED: bool>(row: usize, row_bytes: usize) -> Vec<usize> {
    let seen = RefCell::new(Vec::new());
    for_each_line::<LINES, ALIGNED>(std::ptr::without_provenance(row), row_bytes, |byte| {
        assert!((row..row + row_bytes).contains(&byte.addr()), "outside the row");
        seen.borrow_mut().push(byte.addr() / LINE_BYTES);
    });
    let mut seen = seen.into_inner();
    seen.dedup();
    seen
}

#[test]
fn every_line_of_a_row_is_visited_once_and_none_beyond() {
    for row in [0, 1, 8, 36, 63, 64, 100] {
        let base = 1 << 20 | row;
        let wanted = |bytes: usize| (base / LINE_BYTES..=(base + bytes - 1) / LINE_BYTES).collect::<Vec<_>>();
        assert_eq!(visited::<1, false>(base, 36), wanted(36));
        assert_eq!(visited::<2, false>(base, 72), wanted(72));
        assert_eq!(visited::<3, false>(base, 136), wanted(136));
        assert_eq!(visited::<16, false>(base, 1000), wanted(1000));
        for bytes in [1025, 2048, 3000, 65536] {
            assert_eq!(visited::<0, false>(base, bytes), wanted(bytes));
        }
    }
    assert_eq!(visited::<4, true>(1 << 20, 256).len(), 4);
    assert_eq!(visited::<0, true>(1 << 20, 4096).len(), 64);
}

#[test]
fn any_width_distance_and_thread_count_gives_a_time() {
    let memory = vec![1_u8; 1 << 18];
    for row_bytes in [1, 4, 36, 64, 72, 128, 1000, 1024, 1100, 4096, MAX_ROW_BYTES] {
        let rows: Vec<i64> = (0..1000).map(|i| i * 7919 % (memory.len() / row_bytes) as i64).collect();
        for rows_ahead in [0, 1, 16, 2000] {
            for burst in [1, 3, 4096] {
                for level in [Level::L1, Level::L2] {
                    let prefetch = Prefetch { rows_ahead, burst, level };
                    assert!(seconds(&memory, row_bytes, &rows, prefetch).unwrap() > 0.0);
                    assert!(seconds(&memory, row_bytes, &rows[..1], prefetch).unwrap() >= 0.0);
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let memory = [0_u8; 100];
    for (row_bytes, rows, prefetch, message) in [
        (10, &[][..], ONCE, "rows: must name"),
        (10, &[9, 10], ONCE, "indices[1] is 10, outside the table's rows 0 <= index < 10"),
        (10, &[-1], ONCE, "indices[0] is -1"),
        (200, &[0], ONCE, "0 <= index < 0"),
        (0, &[0], ONCE, "row_bytes: is 0; allowed is a whole number from 1 to 65536"),
        (MAX_ROW_BYTES + 1, &[0], ONCE, "row_bytes: is 65537"),
        (10, &[0], Prefetch { rows_ahead: 4097, ..ONCE }, "rows_ahead: is 4097; allowed is a whole number from 0"),
        (10, &[0], Prefetch { burst: 0, ..ONCE }, "burst: is 0"),
    ] {
        let error = seconds(&memory, row_bytes, rows, prefetch).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_cancelled_pass_ends() {
    let (memory, control) = (vec![1_u8; 1 << 16], Control::new());
    control.cancel();
    // SAFETY: the vector's own memory.
    let block = unsafe { Memory::new(memory.as_ptr(), memory.len()) };
    assert_eq!(read_seconds(block, 64, std::iter::repeat_n(3, 100), ONCE, Some(1), &control), Err(Error::Cancelled));
}
