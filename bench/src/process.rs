//! What a server costs: its CPU time and its memory, from `/proc`.

use std::fs;
use std::io;

use serde::Serialize;

/// The processes of one server: itself and its children.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        family.extend(
            children
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
        next += 1;
    }
    family
}

/// CPU time of a server so far, in nanoseconds.
///
/// The scheduler's own account of each thread is exact; the customary ticks (10 ms) also count threads that have
/// ended. The larger of the two is the truth, to a tick.
///
/// # Errors
/// If the server is gone.
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for process in family(pid) {
        total += scheduled_ns(process)?.max(ticked_ns(process)?.saturating_sub(TICK_NS));
    }
    Ok(total)
}

/// One tick of `/proc/PID/stat`: `USER_HZ` is 100 on every Linux.
const TICK_NS: u64 = 10_000_000;

fn scheduled_ns(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two looks.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next();
        total += first.and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

fn ticked_ns(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may have spaces. After it, user and system time are fields 12 and 13.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    Ok(ticks.filter_map(|t| t.parse::<u64>().ok()).sum::<u64>() * TICK_NS)
}

/// Memory of a server, in KiB.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// Its share of what it has in memory.
    pub pss_kb: u64,
    /// All that it has in memory.
    pub rss_kb: u64,
}

/// Memory of a server now.
///
/// # Errors
/// If the server is gone.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let mut total = Memory::default();
    for process in family(pid) {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|rest| rest.split_whitespace().next());
            value.and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0)
        };
        total.pss_kb += field("Pss:");
        total.rss_kb += field("Rss:");
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn work_and_memory_are_seen() {
        let pid = std::process::id();
        let before = cpu_ns(pid).unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        assert!(cpu_ns(pid).unwrap() - before > 10_000_000);
        let memory = memory(pid).unwrap();
        assert!(memory.pss_kb > 100 && memory.rss_kb >= memory.pss_kb);
    }
}
