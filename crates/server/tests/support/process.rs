//! What the system tells of another process.

use std::fs;
use std::time::Duration;

/// The unit of processor times in `/proc`: `USER_HZ` is 100 wherever Linux runs today.
const MS_PER_TICK: u64 = 10;

/// Memory of a process in bytes, with its share of what it shares (PSS).
pub(crate) fn memory_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs");
    let line = text.lines().find(|line| line.starts_with("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("smaps_rollup has a line Pss:") * 1_024
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process runs")
        .count()
}

/// The time that a process has kept a processor busy.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name in parentheses may have spaces; utime and stime are the 12th and 13th fields after it.
    let (_, rest) = text
        .rsplit_once(')')
        .expect("stat has the name in parentheses");
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * MS_PER_TICK)
}
