//! What a connection is told from outside, at any moment.
//!
//! A connection's task is woken with each event, and what is told here hardly ever comes. So the task looks at one number
//! each time, and asks what it is about only where that has changed: the end of a server would otherwise be looked for with
//! each event, behind locks that all connections share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// The bell of one connection's task.
#[derive(Default)]
pub(crate) struct Signals {
    rings: AtomicU32,
    is_cut_off: AtomicBool,
    /// Kept over a ring: the task may have looked between the two steps of one, and not look again.
    task: Mutex<Option<Waker>>,
}

impl Signals {
    /// Cuts the connection off, although its client takes nothing.
    pub(crate) fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Acquire)
    }

    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::AcqRel);
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn wakes(&self, by: &Waker) {
        let mut task = self.task.lock();
        match &mut *task {
            Some(task) => task.clone_from(by),
            None => *task = Some(by.clone()),
        }
    }
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

/// What waits for something that rings.
impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// A future that is polled once, and then only when the bell has rung. All of one connection's are in its one task.
pub(super) struct Rarely<F> {
    future: Pin<Box<F>>,
    signals: Arc<Signals>,
    /// How often it had rung when the future was polled last.
    heard: Option<u32>,
    /// The task that is woken.
    task: Option<Waker>,
}

impl<F: Future> Rarely<F> {
    pub(super) fn new(signals: &Arc<Signals>, future: F) -> Self {
        Self {
            future: Box::pin(future),
            signals: signals.clone(),
            heard: None,
            task: None,
        }
    }
}

impl<F: Future> Future for Rarely<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this
            .task
            .as_ref()
            .is_some_and(|task| task.will_wake(cx.waker()))
        {
            // Before the bell is asked how often it has rung, so that no ring is missed.
            this.signals.wakes(cx.waker());
            this.task = Some(cx.waker().clone());
        }
        let rings = Some(this.signals.rings.load(Ordering::Acquire));
        if std::mem::replace(&mut this.heard, rings) == rings {
            return Poll::Pending;
        }
        let waker = Waker::from(this.signals.clone());
        this.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use futures_util::task::noop_waker_ref;
    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn what_waits_is_polled_at_first_and_when_the_bell_has_rung() {
        let mut polls = 0;
        let notify = Notify::new();
        let mut notified = pin!(notify.notified());
        let signals = Arc::new(Signals::default());
        let mut rarely = Rarely::new(
            &signals,
            poll_fn(|cx| {
                polls += 1;
                notified.as_mut().poll(cx)
            }),
        );
        let mut cx = Context::from_waker(noop_waker_ref());
        for _ in 0..10 {
            assert!(Pin::new(&mut rarely).poll(&mut cx).is_pending());
        }
        notify.notify_one();
        assert!(Pin::new(&mut rarely).poll(&mut cx).is_ready());
        drop(rarely);
        assert_eq!(polls, 2);
    }

    /// The task looks in the middle of a ring, and then not again before the next one.
    #[test]
    fn a_task_is_woken_by_each_ring() {
        #[derive(Default)]
        struct Count(AtomicU32);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (signals, count) = (Arc::new(Signals::default()), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let mut rarely = Rarely::new(&signals, std::future::pending::<()>());
        let mut look = || assert!(Pin::new(&mut rarely).poll(&mut cx).is_pending());
        look();
        signals.rings.fetch_add(1, Ordering::AcqRel);
        look();
        signals.ring();
        look();
        signals.ring();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_ring_is_lost() {
        for _ in 0..10_000 {
            let (notify, signals) = (Arc::new(Notify::new()), Arc::new(Signals::default()));
            let ringing = {
                let (notify, signals) = (notify.clone(), signals.clone());
                tokio::spawn(async move {
                    notify.notify_one();
                    signals.cut_off();
                })
            };
            let is_cut_off = poll_fn(|_| {
                if signals.is_cut_off() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            });
            tokio::join!(
                Rarely::new(&signals, notify.notified()),
                Rarely::new(&signals, is_cut_off)
            );
            ringing.await.unwrap();
        }
    }
}
