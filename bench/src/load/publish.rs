//! The publishing side of a load: at a pace, as fast as it is answered, in batches; and the wait for the end.

use std::io;
use std::time::{Duration, Instant};

use super::Load;
use crate::stamp;

impl Load<'_> {
    /// Publishes the next event to a topic, if a connection is free.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn publish(&mut self, topic: u32) -> io::Result<bool> {
        let Some(index) = self.idle.pop() else {
            return Ok(false);
        };
        let number = self.ledger.publish(topic, index, self.now_ns());
        let data = stamp::data(number, self.event_bytes);
        let request = self.server.publish_request(topic, &data);
        self.start(index, request)?;
        Ok(true)
    }

    /// Publishes events to these topics in one request, if a connection is free (Tidewire only).
    ///
    /// # Errors
    /// If the connection broke.
    pub fn publish_batch(&mut self, topics: &[u32]) -> io::Result<bool> {
        let Some(index) = self.idle.pop() else {
            return Ok(false);
        };
        let now_ns = self.now_ns();
        let data: Vec<String> = topics
            .iter()
            .map(|&topic| self.ledger.publish(topic, index, now_ns))
            .map(|number| stamp::data(number, self.event_bytes))
            .collect();
        let lines = topics.iter().copied().zip(data.iter().map(String::as_str));
        let request = self.server.batch_request(lines);
        self.start(index, request)?;
        Ok(true)
    }

    /// Sends any request, if a connection is free.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn request(&mut self, request: Vec<u8>) -> io::Result<bool> {
        let Some(index) = self.idle.pop() else {
            return Ok(false);
        };
        self.start(index, request)?;
        Ok(true)
    }

    fn start(&mut self, index: u32, request: Vec<u8>) -> io::Result<()> {
        self.publishers[index as usize].start(request)?;
        self.interest(index)
    }

    /// Publishes events at an even pace, each on time or as soon as the one before was answered.
    ///
    /// # Errors
    /// If a connection broke or a publish was refused.
    pub fn publish_at(
        &mut self,
        per_second: f64,
        topics: impl Iterator<Item = u32>,
    ) -> io::Result<()> {
        let started = Instant::now();
        for (n, topic) in topics.enumerate() {
            let due = started + Duration::from_secs_f64(n as f64 / per_second);
            loop {
                let wait = due.saturating_duration_since(Instant::now());
                if wait.is_zero() && self.publish(topic)? {
                    break;
                }
                self.turn(if wait.is_zero() { self.patience } else { wait })?;
            }
        }
        Ok(())
    }

    /// Publishes events as fast as they are answered, on all connections.
    ///
    /// # Errors
    /// If a connection broke or a publish was refused.
    pub fn publish_all(&mut self, topics: impl Iterator<Item = u32>) -> io::Result<()> {
        for topic in topics {
            while !self.publish(topic)? {
                self.turn(self.patience)?;
            }
        }
        Ok(())
    }

    /// The same in batches (Tidewire only).
    ///
    /// # Errors
    /// If a connection broke or a publish was refused.
    pub fn publish_batches(&mut self, topics: &[u32], lines: usize) -> io::Result<()> {
        for batch in topics.chunks(lines) {
            while !self.publish_batch(batch)? {
                self.turn(self.patience)?;
            }
        }
        Ok(())
    }

    /// Waits for all answers and deliveries, or until nothing has come for long.
    ///
    /// # Errors
    /// If a connection broke or a publish was refused.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut seen = (Instant::now(), 0);
        while self.ledger.outstanding() > 0 || self.idle.len() < self.publishers.len() {
            self.turn(Duration::from_millis(100))?;
            let so_far = self.ledger.delivered() + self.answers;
            if so_far > seen.1 {
                seen = (Instant::now(), so_far);
            } else if seen.0.elapsed() > self.patience {
                break;
            }
        }
        Ok(())
    }

    /// Reads for a time: what comes then was not asked for.
    ///
    /// # Errors
    /// If a connection broke.
    pub fn rest(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    /// Waits for whatever comes next.
    ///
    /// # Errors
    /// If a connection broke or a publish was refused.
    pub fn wait(&mut self) -> io::Result<()> {
        self.turn(self.patience)
    }
}
