//! All generators by stream, and how many there may be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewire::Broadcaster;

use super::generator::{Generator, MakeSource, State};

/// The generators of a service.
pub(super) struct Generators {
    broadcaster: Broadcaster,
    interval: Duration,
    max: usize,
    make_source: MakeSource,
    by_stream: Mutex<BTreeMap<String, Arc<Generator>>>,
}

/// There are as many generators as may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany(pub(super) usize);

impl Generators {
    pub(super) fn new(
        broadcaster: Broadcaster,
        interval: Duration,
        max: usize,
        make_source: MakeSource,
    ) -> Self {
        Self {
            broadcaster,
            interval,
            max,
            make_source,
            by_stream: Mutex::default(),
        }
    }

    pub(super) fn broadcaster(&self) -> &Broadcaster {
        &self.broadcaster
    }

    #[cfg(test)]
    pub(super) fn generator(&self, id: &str) -> Option<Arc<Generator>> {
        self.by_stream.lock().get(id).cloned()
    }

    /// What each generator does.
    pub(super) fn states(&self) -> BTreeMap<String, State> {
        let by_stream = self.by_stream.lock();
        let states = by_stream.iter().map(|(id, g)| (id.clone(), g.state()));
        states.collect()
    }

    /// Starts a stream's generator anew, whatever it did. To be called within a runtime.
    pub(super) fn start_at_once(&self, id: &str) -> Result<Option<Arc<Generator>>, TooMany> {
        let (new, old) = self.put(id)?;
        let run = new.run(
            id.to_owned(),
            self.broadcaster.clone(),
            self.interval,
            self.make_source,
        );
        let before = old.clone();
        tokio::spawn(async move {
            if let Some(before) = before {
                before.settled().await;
            }
            run.await;
        });
        Ok(old)
    }

    /// Starts a stream's generator anew. The one before says nothing more once this has answered.
    ///
    /// This and the others below do what they do before they wait: whoever asked may hang up at any time.
    pub(super) async fn start(&self, id: &str) -> Result<(), TooMany> {
        if let Some(old) = self.start_at_once(id)? {
            old.settled().await;
        }
        Ok(())
    }

    /// Stops a stream's generator and forgets it; it says nothing more once this has answered. False if there is none.
    pub(super) async fn stop(&self, id: &str) -> bool {
        let removed = {
            let mut by_stream = self.by_stream.lock();
            let removed = by_stream.remove(id);
            if let Some(generator) = &removed {
                generator.stop();
                self.broadcaster.release(id);
            }
            removed
        };
        match removed {
            Some(generator) => {
                generator.settled().await;
                true
            }
            None => false,
        }
    }

    /// Changes what a stream's generator does, if it does what is expected. `None` if there is none.
    pub(super) async fn change(&self, id: &str, from: State, to: State) -> Option<bool> {
        let generator = self.by_stream.lock().get(id).cloned()?;
        let changed = generator.change(from, to);
        generator.settled().await;
        Some(changed)
    }

    /// Puts a new generator in the place of the stream's, which ends; answers both.
    fn put(&self, id: &str) -> Result<(Arc<Generator>, Option<Arc<Generator>>), TooMany> {
        let mut by_stream = self.by_stream.lock();
        if !by_stream.contains_key(id) && by_stream.len() >= self.max {
            return Err(TooMany(self.max));
        }
        let new = Arc::new(Generator::new());
        let old = by_stream.insert(id.to_owned(), new.clone());
        if let Some(old) = &old {
            old.stop();
        }
        // Ids are checked before they come here; one that is none could only not be kept.
        let _ = self.broadcaster.keep_active(id);
        Ok((new, old))
    }
}
