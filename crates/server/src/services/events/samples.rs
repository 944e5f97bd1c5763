//! What the generators say: made up, but for the figures of the `system` stream, which are this machine's.

use serde_json::json;
use sysinfo::{MemoryRefreshKind, System};

use super::generator::{Sample, Source};

/// Above this a figure of the machine is worth an alert, in percent.
const CPU_PERCENT_MAX: f64 = 80.0;
const MEMORY_PERCENT_MAX: f64 = 90.0;
const DISK_PERCENT_MAX: f64 = 90.0;

/// Makes the source of a stream's sample events.
pub(super) fn source_of(stream_id: &str) -> Source {
    match stream_id {
        "system" => {
            let mut machine = Machine::new();
            Box::new(move || machine.sample())
        }
        "user-activity" => in_turn([
            user_action,
            profile_update,
            permission_change,
            user_action,
            content_update,
        ]),
        "notifications" => in_turn([push, alert, reminder, announcement]),
        _ => in_turn([user_action, notice, order_update, user_action]),
    }
}

/// One after the other, from the first again.
fn in_turn<const N: usize>(samples: [fn() -> Sample; N]) -> Source {
    let mut next = 0;
    Box::new(move || {
        let sample = samples[next % N];
        next += 1;
        sample()
    })
}

fn one_of(texts: &[&'static str]) -> &'static str {
    texts[fastrand::usize(..texts.len())]
}

fn user_id() -> String {
    format!("user_{}", fastrand::u32(1_000..10_000))
}

fn user_action() -> Sample {
    let (action, message) = [
        ("login", "User logged in"),
        ("logout", "User logged out"),
        ("update_profile", "User updated their profile"),
    ][fastrand::usize(..3)];
    let client = one_of(&["web", "ios", "android"]);
    Sample {
        event_type: "user_action",
        message: message.into(),
        data: json!({ "user_id": user_id(), "action": action, "client": client }),
    }
}

fn profile_update() -> Sample {
    let field = one_of(&["display_name", "email", "avatar", "language"]);
    Sample {
        event_type: "user_action",
        message: format!("User changed their {field}"),
        data: json!({ "user_id": user_id(), "action": "update_profile", "field": field }),
    }
}

fn permission_change() -> Sample {
    let role = one_of(&["viewer", "editor", "admin"]);
    Sample {
        event_type: "data_update",
        message: format!("User was given the role {role}"),
        data: json!({ "user_id": user_id(), "entity": "permission", "role": role }),
    }
}

fn content_update() -> Sample {
    let entity = one_of(&["comment", "article", "photo"]);
    let id = fastrand::u32(1..100_000);
    Sample {
        event_type: "data_update",
        message: format!("User updated a {entity}"),
        data: json!({ "user_id": user_id(), "entity": entity, "entity_id": id }),
    }
}

fn order_update() -> Sample {
    let status = one_of(&["placed", "paid", "packed", "shipped"]);
    let order = format!("ORD-{}", fastrand::u32(10_000..100_000));
    Sample {
        event_type: "data_update",
        message: format!("Order {order} is {status}"),
        data: json!({ "entity": "order", "order_id": order, "status": status }),
    }
}

fn notice() -> Sample {
    let message = one_of(&[
        "The nightly report is ready",
        "A new version was rolled out",
        "The import has finished",
    ]);
    notification(message, "application", "normal")
}

fn push() -> Sample {
    let message = one_of(&[
        "You have a new message",
        "Someone mentioned you",
        "Your order was shipped",
    ]);
    notification(message, "push", "normal")
}

fn alert() -> Sample {
    let message = one_of(&[
        "New sign-in from another device",
        "Your password expires in 3 days",
    ]);
    notification(message, "alert", "high")
}

fn reminder() -> Sample {
    let message = one_of(&["Your meeting starts in 15 minutes", "A task is due today"]);
    notification(message, "reminder", "normal")
}

fn announcement() -> Sample {
    let message = one_of(&[
        "Maintenance is scheduled for Sunday",
        "The handbook has a new chapter",
    ]);
    notification(message, "announcement", "low")
}

fn notification(message: &str, category: &str, priority: &str) -> Sample {
    Sample {
        event_type: "notification",
        message: message.into(),
        data: json!({ "category": category, "priority": priority }),
    }
}

/// This machine's figures.
struct Machine {
    /// `None` where the system tells nothing.
    system: Option<System>,
    turn: u32,
}

impl Machine {
    fn new() -> Self {
        let mut system = System::new().ok();
        if let Some(system) = &mut system {
            // Usage is what happened since the reading before.
            system.refresh_cpu_usage();
        }
        Self { system, turn: 0 }
    }

    /// The figures three times, then how the machine is.
    fn sample(&mut self) -> Sample {
        let (mut cpu, mut memory, mut used, mut total) = (0.0, 0.0, 0, 0);
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            (used, total) = (system.used_memory(), system.total_memory());
            cpu = rounded(f64::from(system.global_cpu_usage()));
            memory = percent(used, total);
        }
        let disk = disk_percent();
        let data = json!({
            "cpu_percent": cpu,
            "memory_percent": memory,
            "memory_used_bytes": used,
            "memory_total_bytes": total,
            "disk_percent": disk,
        });
        self.turn += 1;
        if !self.turn.is_multiple_of(4) {
            return Sample {
                event_type: "metric_update",
                message: format!("CPU {cpu}%, memory {memory}%, disk {disk}%"),
                data,
            };
        }
        let alerts = [
            (
                "High CPU usage detected",
                "cpu_percent",
                cpu,
                CPU_PERCENT_MAX,
            ),
            (
                "High memory usage detected",
                "memory_percent",
                memory,
                MEMORY_PERCENT_MAX,
            ),
            (
                "Disk space is running low",
                "disk_percent",
                disk,
                DISK_PERCENT_MAX,
            ),
        ];
        match alerts.into_iter().find(|(.., value, max)| value > max) {
            Some((message, figure, value, max)) => Sample {
                event_type: "system_alert",
                message: message.into(),
                data: json!({ figure: value, "threshold": max, "severity": "warning" }),
            },
            None => Sample {
                event_type: "notification",
                message: "All figures are within their limits".into(),
                data,
            },
        }
    }
}

/// How full the root file system is.
fn disk_percent() -> f64 {
    let Ok(disk) = rustix::fs::statvfs("/") else {
        return 0.0;
    };
    // As `df` has it: what only root may use counts as neither.
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    percent(used, used + disk.f_bavail)
}

#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    rounded(part as f64 / whole as f64 * 100.0)
}

fn rounded(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_says_what_it_is_for_in_types_that_clients_know() {
        let cases: [(&str, &[&str]); 5] = [
            ("default", &["user_action", "notification", "data_update"]),
            ("anything", &["user_action", "notification", "data_update"]),
            ("user-activity", &["user_action", "data_update"]),
            ("notifications", &["notification"]),
            ("system", &["metric_update", "system_alert", "notification"]),
        ];
        for (stream, types) in cases {
            let mut source = source_of(stream);
            let mut said = std::collections::BTreeSet::new();
            for _ in 0..40 {
                let sample = source();
                assert!(
                    types.contains(&sample.event_type),
                    "{stream}: {}",
                    sample.event_type
                );
                assert!(sample.data.is_object() && !sample.message.is_empty());
                said.insert(sample.message);
            }
            assert!(said.len() > 2 || stream == "system", "{stream}: {said:?}");
        }
    }

    #[test]
    fn the_figures_are_those_of_this_machine() {
        let mut machine = Machine::new();
        let data = machine.sample().data;
        assert!(
            data["memory_total_bytes"].as_u64() > Some(1 << 20),
            "{data}"
        );
        for figure in ["memory_percent", "disk_percent", "cpu_percent"] {
            let value = data[figure].as_f64().unwrap();
            assert!((0.0..=100.0).contains(&value), "{figure}: {data}");
        }
        assert!(data["memory_percent"].as_f64() > Some(0.0), "{data}");
    }
}
