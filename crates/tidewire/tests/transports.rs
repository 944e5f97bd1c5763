//! One suite for every way in which a stream can be carried: what a client sees, and what is counted, is the same.

// A test that panics has failed, and so has its helper.
#![allow(clippy::unwrap_used)]

mod cases;
mod support;

macro_rules! for_each_carrier {
    ($($case:ident)*) => {
        for_each_carrier!(direct Direct: $($case)*);
        for_each_carrier!(http10 Http10: $($case)*);
        for_each_carrier!(changed Changed: $($case)*);
        for_each_carrier!(http2 Http2: $($case)*);
        for_each_carrier!(tls_http1 TlsHttp1: $($case)*);
        for_each_carrier!(tls_http2 TlsHttp2: $($case)*);
        for_each_carrier!(axum_serve Axum: $($case)*);
    };
    ($module:ident $carrier:ident: $($case:ident)*) => {
        mod $module {
            $(#[test] fn $case() {
                crate::cases::$case(crate::support::server::Carrier::$carrier);
            })*
        }
    };
}

for_each_carrier! {
    a_stream_begins_with_its_headers_and_greeting
    events_come_in_order_whole_and_whatever_their_size
    a_replay_of_more_than_all_buffers_is_complete
    a_client_resumes_after_the_id_that_it_has_seen
    a_gap_is_told_where_history_is_missing
    heartbeats_come_as_asked_for
    broadcasts_and_events_to_one_connection_arrive
    the_end_of_a_topic_ends_its_streams
    a_stream_that_is_closed_says_so_for_good
    an_evicted_client_is_told_to_stay_away
    a_stream_ends_with_its_longest_life
    a_slow_client_is_closed_and_never_gets_half_an_event
    a_slow_client_is_skipped_forward
    a_client_that_takes_nothing_is_cut_off
    an_idle_client_is_not_stalled
    a_drain_ends_all_streams
    a_client_that_hangs_up_is_gone
    events_within_a_window_come_together_and_others_at_once
    what_is_no_event_of_a_topic_does_not_wait
    a_greeting_has_the_id_of_the_place_where_the_stream_starts
    everything_that_a_door_says_is_in_its_dialect
    a_heartbeat_does_not_wait
}
