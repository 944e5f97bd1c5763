//! Events as lines: for people, coloured on a terminal, or as JSON for programs.

use std::io::{self, BufWriter, ErrorKind, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use jiff::Zoned;
use serde::{Deserialize, Serialize};
use tidewire_core::decode::Decoded;
use tokio::sync::mpsc;

use crate::client::notice;

const TIME: Style = Style::new().dimmed();
const TOPIC: Style = AnsiColor::Cyan.on_default();
const EVENT: Style = AnsiColor::Green.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Prints events until there are no more, or enough.
pub(super) struct Printer {
    json: bool,
    colour: bool,
    left: Option<u64>,
}

/// An event as `--json` prints it.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    topics: &'a [String],
    event: &'a str,
    data: &'a str,
}

/// The data of a hub's `gap` event: events were lost after `from`.
#[derive(Deserialize)]
struct Gap {
    from: Option<String>,
    reason: String,
}

impl Printer {
    /// A printer that stops after `count` events, if there is a count.
    pub(super) fn new(json: bool, count: Option<u64>) -> Self {
        let colour = !json && AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        Self {
            json,
            colour,
            left: count,
        }
    }

    /// Prints all that comes. A standard output that was closed, as `| head` does, is an end and no error.
    pub(super) fn run(mut self, mut events: mpsc::Receiver<Vec<Decoded>>) -> io::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        while let Some(batch) = events.blocking_recv() {
            match self.print_batch(&mut out, &batch) {
                Ok(()) if self.left == Some(0) => return Ok(()),
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn print_batch(&mut self, out: &mut impl Write, batch: &[Decoded]) -> io::Result<()> {
        for event in batch {
            if self.left == Some(0) {
                break;
            }
            if let Some(gap) = gap(event) {
                self.print_gap(out, event, &gap)?;
            } else {
                self.print(out, event)?;
                self.left = self.left.map(|left| left - 1);
            }
        }
        out.flush()
    }

    fn print(&self, out: &mut impl Write, event: &Decoded) -> io::Result<()> {
        if self.json {
            return print_json(out, event);
        }
        let topics = if event.topics.is_empty() {
            "-".to_owned()
        } else {
            event.topics.join(",")
        };
        let data = event.data.replace('\n', "\n    ");
        let time = Zoned::now().strftime("%H:%M:%S%.3f").to_string();
        if self.colour {
            // A terminal obeys what it is shown, and the data is anybody's.
            let (topics, name, data) = (harmless(&topics), harmless(&event.event), harmless(&data));
            return writeln!(
                out,
                "{TIME}{time}{TIME:#} {TOPIC}{topics}{TOPIC:#} {EVENT}{name}{EVENT:#} {data}"
            );
        }
        writeln!(out, "{time} {topics} {} {data}", event.event)
    }

    /// Programs get a gap as an event, people get a warning; neither counts it as an event.
    fn print_gap(&self, out: &mut impl Write, event: &Decoded, gap: &Gap) -> io::Result<()> {
        if self.json {
            print_json(out, event)?;
        }
        // What was before the gap shall be seen before it.
        out.flush()?;
        let why = match gap.reason.as_str() {
            "expired" => "they are no longer in the hub's history".to_owned(),
            "unknown_id" => {
                "the hub does not know the last event's id, perhaps after a restart".to_owned()
            }
            "lagged" => "they were published faster than they were read".to_owned(),
            other => other.to_owned(),
        };
        let from = gap
            .from
            .as_deref()
            .map(|id| format!(" after {id}"))
            .unwrap_or_default();
        let stderr_colour = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
        let style = if stderr_colour { WARNING } else { Style::new() };
        notice(harmless_line(
            &format!("events{from} were missed: {why}"),
            style,
        ));
        Ok(())
    }
}

fn harmless_line(text: &str, style: Style) -> String {
    format!("{style}warning: gap:{style:#} {}", harmless(text))
}

fn print_json(out: &mut impl Write, event: &Decoded) -> io::Result<()> {
    let line = Line {
        id: &event.id,
        topics: &event.topics,
        event: &event.event,
        data: &event.data,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// The event as a gap, if it is one of a hub's and not an application's of the same name.
fn gap(event: &Decoded) -> Option<Gap> {
    if event.event == "gap" {
        serde_json::from_str(&event.data).ok()
    } else {
        None
    }
}

/// Text without control characters except line ends and tabs.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() && char != '\n' && char != '\t' {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(printer: &mut Printer, event: &Decoded) -> String {
        let mut out = Vec::new();
        printer
            .print_batch(&mut out, std::slice::from_ref(event))
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    fn event(data: &str) -> Decoded {
        let topics = vec!["a".to_owned(), "b".to_owned()];
        Decoded {
            id: "7".to_owned(),
            event: "made".to_owned(),
            data: data.to_owned(),
            topics,
        }
    }

    #[test]
    fn further_lines_of_data_are_indented() {
        let mut printer = Printer {
            json: false,
            colour: false,
            left: None,
        };
        let line = printed(&mut printer, &event("one\ntwo"));
        assert_eq!(line.split_once(' ').unwrap().1, "a,b made one\n    two\n");
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do_by_an_event() {
        let mut printer = Printer {
            json: false,
            colour: true,
            left: None,
        };
        let line = printed(&mut printer, &event("\u{1b}]0;title\u{7}"));
        assert!(line.contains("\\u{1b}]0;title\\u{7}"), "{line:?}");
        assert!(line.contains("\u{1b}[36ma,b"), "{line:?}");
    }

    #[test]
    fn json_has_the_data_as_it_came() {
        let mut printer = Printer {
            json: true,
            colour: false,
            left: None,
        };
        let line = printed(&mut printer, &event("one\n\u{1b}"));
        assert_eq!(
            line,
            "{\"id\":\"7\",\"topics\":[\"a\",\"b\"],\"event\":\"made\",\"data\":\"one\\n\\u001b\"}\n"
        );
    }

    #[test]
    fn only_the_hubs_own_gap_is_a_gap() {
        let of = |data: &str| Decoded {
            event: "gap".to_owned(),
            ..event(data)
        };
        assert!(gap(&of(r#"{"from":null,"reason":"expired"}"#)).is_some());
        assert!(gap(&of("mind the gap")).is_none());
        assert!(gap(&event(r#"{"from":null,"reason":"expired"}"#)).is_none());
    }
}
