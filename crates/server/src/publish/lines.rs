//! Standard input as batches of lines: a slow producer's line goes out at once, a fast one's in requests of many.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::client::notice;

/// Events in one request.
const BATCH_EVENTS_MAX: usize = 1_000;

/// Data in one request, in bytes, unless a single line is longer.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// How long a line waits for others to go with it.
const LINGER: Duration = Duration::from_millis(10);

/// Longest line: no hub with default limits takes a longer body. The limit keeps input without line ends from filling
/// the memory.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What is read ahead at a time, in bytes, and how many of those may wait.
const READ_BYTES: usize = 64 * 1024;
const CHUNKS_AHEAD_MAX: usize = 2;

/// A line with something in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1, empty lines counted.
    pub(super) number: u64,
    pub(super) text: String,
}

type Chunk = Result<Vec<Line>, String>;

/// The batches of an input.
pub(super) struct Batches {
    chunks: mpsc::Receiver<Chunk>,
    waiting: VecDeque<Line>,
    /// The input failed; what came before goes out first.
    failed: Option<String>,
}

impl Batches {
    /// Reads standard input, on a thread of its own that ends with the process: reading can't be interrupted.
    pub(super) fn of_stdin() -> Self {
        if io::stdin().is_terminal() {
            notice("reading events from standard input, one per line; Ctrl-D ends");
        }
        Self::of(io::stdin())
    }

    fn of(input: impl Read + Send + 'static) -> Self {
        let (send, chunks) = mpsc::channel(CHUNKS_AHEAD_MAX);
        std::thread::spawn(move || read_chunks(input, &send));
        Self {
            chunks,
            waiting: VecDeque::new(),
            failed: None,
        }
    }

    /// The next batch, of one line at least; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Vec<Line>, String>> {
        while self.waiting.is_empty() && self.failed.is_none() {
            let chunk = self.chunks.recv().await?;
            self.take_in(chunk);
        }
        let deadline = Instant::now() + LINGER;
        while !self.is_full() && self.failed.is_none() {
            match timeout_at(deadline, self.chunks.recv()).await {
                Ok(Some(chunk)) => self.take_in(chunk),
                Ok(None) | Err(_) => break,
            }
        }
        if self.waiting.is_empty() {
            return self.failed.take().map(Err);
        }
        let count = self.fitting();
        Some(Ok(self.waiting.drain(..count).collect()))
    }

    fn take_in(&mut self, chunk: Chunk) {
        match chunk {
            Ok(lines) => self.waiting.extend(lines),
            Err(problem) => self.failed = Some(problem),
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH_EVENTS_MAX || self.fitting() < self.waiting.len()
    }

    /// How many of the waiting lines fit into a request, one at least.
    fn fitting(&self) -> usize {
        let mut bytes = 0;
        let fits = self
            .waiting
            .iter()
            .take(BATCH_EVENTS_MAX)
            .take_while(|line| {
                bytes += line.text.len();
                bytes <= BATCH_BYTES_MAX
            });
        fits.count().max(1)
    }
}

/// Reads lines and sends on those that are there, whenever the next one would have to be waited for.
fn read_chunks(input: impl Read, chunks: &mpsc::Sender<Chunk>) {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut number = 0;
    let mut lines = Vec::new();
    loop {
        number += 1;
        match read_line(&mut input, number) {
            Ok(Some(text)) if text.is_empty() => {}
            Ok(Some(text)) => lines.push(Line { number, text }),
            Ok(None) => break,
            Err(problem) => {
                // Nobody is left to hear it if sending fails: the process is about to end.
                let _ = chunks.blocking_send(Ok(std::mem::take(&mut lines)));
                let _ = chunks.blocking_send(Err(problem));
                return;
            }
        }
        let must_wait = !input.buffer().contains(&b'\n');
        if must_wait
            && !lines.is_empty()
            && chunks
                .blocking_send(Ok(std::mem::take(&mut lines)))
                .is_err()
        {
            return;
        }
    }
    let _ = chunks.blocking_send(Ok(lines));
}

/// One line without its end; `None` at the end of the input.
fn read_line(input: &mut impl BufRead, number: u64) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    // Two more than the limit, for the line's end.
    let mut limited = input.take(LINE_BYTES_MAX as u64 + 2);
    let read = limited
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("standard input: {error}"))?;
    if read == 0 {
        return Ok(None);
    }
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("line {number}: longer than {LINE_BYTES_MAX} bytes"));
    }
    String::from_utf8(line)
        .map(Some)
        .map_err(|_| format!("line {number}: not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn batches_of(input: Vec<u8>) -> Vec<Result<Vec<Line>, String>> {
        let mut batches = Batches::of(io::Cursor::new(input));
        let mut all = Vec::new();
        while let Some(batch) = batches.next().await {
            all.push(batch);
        }
        all
    }

    #[tokio::test]
    async fn empty_lines_are_skipped_and_counted() {
        let batches = batches_of(b"a\r\n\n\nb b \nc".to_vec()).await;
        let line = |number, text: &str| Line {
            number,
            text: text.to_owned(),
        };
        assert_eq!(
            batches,
            [Ok(vec![line(1, "a"), line(4, "b b "), line(5, "c")])]
        );
        assert_eq!(batches_of(b"\n\n".to_vec()).await, []);
    }

    #[tokio::test]
    async fn a_batch_has_a_limit_in_events_and_in_bytes() {
        let lines: Vec<u8> = (0..2_500)
            .flat_map(|i| format!("{i}\n").into_bytes())
            .collect();
        let sizes: Vec<usize> = batches_of(lines)
            .await
            .into_iter()
            .map(|batch| batch.unwrap().len())
            .collect();
        assert_eq!(sizes.iter().sum::<usize>(), 2_500);
        assert!(
            sizes.iter().all(|size| *size <= BATCH_EVENTS_MAX),
            "{sizes:?}"
        );

        let long = [vec![b'x'; 700 * 1024], b"\n".to_vec()].concat().repeat(2);
        let longer = [vec![b'y'; 2 * BATCH_BYTES_MAX], b"\n".to_vec()].concat();
        let sizes: Vec<usize> = batches_of([long, longer].concat())
            .await
            .into_iter()
            .map(|batch| batch.unwrap().len())
            .collect();
        assert_eq!(sizes, [1, 1, 1]);
    }

    #[tokio::test]
    async fn what_came_before_a_bad_line_goes_out_first() {
        let batches = batches_of(b"a\nb\n\xff\nc\n".to_vec()).await;
        assert_eq!(batches.len(), 2, "{batches:?}");
        assert_eq!(batches[0].as_ref().map(Vec::len), Ok(2));
        assert_eq!(batches[1], Err("line 3: not UTF-8".to_owned()));
        let endless = vec![b'x'; LINE_BYTES_MAX + 10];
        assert_eq!(
            batches_of(endless).await,
            [Err(format!("line 1: longer than {LINE_BYTES_MAX} bytes"))]
        );
    }
}
