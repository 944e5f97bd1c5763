//! What the contract of brokers promises (`tidewire::broker`), held against each of them.
//!
//! | module | what it holds |
//! |---|---|
//! | `suite` | the conformance suite: every broker passes it. Another broker needs one more line here |
//! | `faults` | a disk that is full, slow, fails or is cut off at any byte |
//! | `damage` | files that were truncated or changed, and their repair |
//! | `life` | what one run of the disk broker leaves to the next |
//! | `redis_faults` | a Redis that is slow, falls silent, ends, or has no ids left |
//! | `redis_history` | a stream that is not the one it was, or lacks what nobody has read |
//! | `vast` | how much of what is older than the log is read, and by how many at a time |
//! | `packed` | places within the entries of a stream that have several events |
//! | `world` | a hub on a broker under test, in a folder of its own |
//! | `storage` | the faulty disk |
//! | `redis_server` | a real Redis |

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod damage;
mod faults;
mod life;
mod packed;
mod redis_faults;
mod redis_history;
#[path = "../support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod redis_server;
mod storage;
mod suite;
mod vast;
mod world;

use world::{Disk, Memory, Redis};

/// The suite for one broker.
macro_rules! conforms {
    ($name:ident, $broker:expr, [$($case:ident)*]) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    suite::$case(&$broker).await;
                }
            )*
        }
    };
}

macro_rules! each_case {
    ($name:ident, $broker:expr) => {
        conforms!(
            $name,
            $broker,
            [
                a_batch_is_stored_whole_and_in_order
                a_refused_batch_leaves_nothing
                many_publishers_get_one_order_that_readers_see
                reading_goes_on_from_any_position
                what_is_too_old_is_gone_and_a_gap_says_so
                an_unknown_id_is_a_gap
                an_own_id_is_taken_once
                a_key_is_answered_again_and_stores_once
                a_refused_request_frees_its_key
                a_key_is_used_once_by_many_at_once
                a_closed_topic_takes_nothing
                a_dropped_request_takes_nothing_back
                who_resumes_from_before_the_log_is_sent_what_the_store_has
                a_restart_keeps_what_the_broker_promises
            ]
        );
    };
}

each_case!(memory, Memory);
each_case!(disk, Disk::default());
each_case!(redis, Redis::start());
