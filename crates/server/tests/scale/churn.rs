//! Clients that hang up at any moment.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Crowd, Hub, WAIT_MAX, process};
use crate::{alone, descriptors_when_idle, publish, scaled};

const THREADS: u64 = 20;

/// How far a client gets before it hangs up.
const MOMENTS: u64 = 8;

/// One client's life. Errors are no concern of its.
fn come_and_go(port: u16, n: u64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    let head = format!(
        "GET /events?topic=own:{n}&topic=feed&topic=pattern:*&since=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n"
    );
    let mut buffer = [0; 1_024];
    match n % MOMENTS {
        0 => {}
        1 => stream.write_all(&head.as_bytes()[..head.len() / 2])?,
        2 => stream.write_all(head.as_bytes())?,
        3 => {
            stream.write_all(head.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            while stream.read(&mut buffer)? > 0 {}
        }
        4 => {
            stream.write_all(head.as_bytes())?;
            stream.read_exact(&mut buffer[..1])?;
        }
        5 => {
            stream.write_all(b"POST /events?topic=feed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf")?;
        }
        6 => {
            stream.write_all(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..8 + n as usize % 16])?;
        }
        _ => {
            stream.write_all(head.as_bytes())?;
            // Past the head, so somewhere within the events. What is unread makes the kernel send a reset.
            for _ in 0..3 {
                stream.read(&mut buffer).map(drop)?;
            }
        }
    }
    Ok(())
}

/// Waits until the process has as many descriptors as before.
fn wait_for_descriptors(pid: u32, before: usize) {
    let deadline = Instant::now() + 3 * WAIT_MAX;
    loop {
        let now = process::descriptors(pid);
        if now <= before {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{now} descriptors, and {before} before"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn clients_that_hang_up_at_any_moment_leave_nothing_behind() {
    let _alone = alone();
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_HISTORY__TTL", "1s"),
            ("TIDEWIRE_LIMITS__HEAD_TIMEOUT", "5s"),
        ],
    );
    let (port, pid) = (hub.port(), hub.pid());
    publish(&hub, "feed", 0..10, 100);
    hub.wait_for_stats("the history is gone", |stats| stats["topics"] == 0);
    let descriptors = descriptors_when_idle(&hub, &Crowd::new(port));
    let over = AtomicBool::new(false);
    let clients = scaled(2_000);
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for n in 0.. {
                publish(&hub, "feed", n * 10..n * 10 + 10, 500);
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let storm: Vec<_> = (0..THREADS)
            .map(|first| {
                scope.spawn(move || {
                    for n in (first..clients).step_by(THREADS as usize) {
                        let _ = come_and_go(port, n);
                    }
                })
            })
            .collect();
        for thread in storm {
            thread.join().expect("no client panics");
        }
        over.store(true, Ordering::Relaxed);
        publisher.join().expect("every publish was answered");
    });
    let stats = hub.wait_for_stats("nothing is left", |stats| {
        stats["connections"] == 0 && stats["topics"] == 0 && stats["filters"] == 0
    });
    let gone = stats["closes"]["client_gone"].as_u64();
    assert!(
        gone.is_some_and(|gone| gone >= clients / MOMENTS),
        "{stats}"
    );
    assert_eq!(stats["events"], 0, "{stats}");
    wait_for_descriptors(pid, descriptors);
}
